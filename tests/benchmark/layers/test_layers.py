"""Real tiny models, profiled: every operator is accounted for, in every way to run a matrix."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark.arms import ArmSource
from spd_deploy.benchmark.artefact_arms import sources_of
from spd_deploy.benchmark.layers.analysis import analyse
from spd_deploy.benchmark.layers.attribution import attribution_of
from spd_deploy.benchmark.layers.layer_records import LayerProfile
from spd_deploy.benchmark.layers.profile_layers import matrices_of, profile_layers, served_otherwise
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.domain.patterns import Block, Structured, Unstructured
from spd_deploy.domain.versions import version_of
from tests.tiny import tiny_checkpoint

QUICK = BenchmarkSettings(shapes=(Shape(batch=2, seq=8),), threads=1, rounds=2, seconds=0.02)
# Wide enough for the cost model to choose gathered products, in blocks one and two inputs wide.
PATTERNS = {
    "dense": None,
    "gathered": Block(rows=32, columns=1, sparsity=0.75),
    "gathered-wide": Block(rows=32, columns=2, sparsity=0.75),
    "compact": Structured(sparsity=0.5),
    "packed": Unstructured(sparsity=0.9),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An arm with its profile."""

    name: str
    arm: ArmSource
    profile: LayerProfile


@pytest.fixture(scope="module", params=PATTERNS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """One kind of artefact."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = tiny_checkpoint(folder / "c", pattern=PATTERNS[request.param])
    (arm,) = sources_of([artefact_from_checkpoint(checkpoint, folder / request.param)])
    (profile,) = profile_layers(arm, QUICK)
    return Case(name=request.param, arm=arm, profile=profile)


def test_every_matrix_has_its_product(case: Case) -> None:
    """In the model and in the dense baseline each of the 12 matrices has exactly one product."""
    matrices = sorted((m.layer, m.role) for m in case.profile.matrices)

    for timeline in (case.profile.dense, case.profile.sparse):
        places = [attribution_of(node.name, node.op) for node in timeline.nodes]
        assert sorted(p.matrix for p in places if p.part == "products" and p.matrix) == matrices


def test_copies_are_where_inputs_are_gathered(case: Case) -> None:
    """Exactly the matrices that the manifest calls gathered have a gather in their scope."""
    gathered = {(m.layer, m.role) for m in case.profile.matrices if "gathered" in m.lowering}
    found = {
        attribution_of(n.name, n.op).matrix for n in case.profile.sparse.nodes if n.op == "Gather"
    }

    assert bool(gathered) == case.name.startswith("gathered")
    assert found - {None} == gathered


def test_no_operator_is_left_over(case: Case) -> None:
    """All that ONNX Runtime made of the graph is placed, fused, folded or renamed as it may be."""
    for timeline in (case.profile.dense, case.profile.sparse):
        lost = [n for n in timeline.nodes if attribution_of(n.name, n.op).part == "unattributed"]
        assert lost == []


def test_parts_add_up_to_the_total(case: Case) -> None:
    """The steps are the nodes and the rest of a run: none is counted twice, none dropped."""
    analysis = analyse(case.profile)
    nodes = case.profile.sparse.nodes
    timed_s = sum(n.typical_s for n in nodes) - len(nodes) * min(n.typical_s for n in nodes)

    steps = {step.name: step.sparse_s for step in analysis.steps}

    assert sum(steps.values()) == pytest.approx(np.median(np.concatenate(case.profile.sparse.runs)))
    assert sum(steps.values()) - steps["runtime"] == pytest.approx(timed_s)


def test_the_matrices_are_the_manifests(case: Case) -> None:
    """Each row of the manifest is there, under the layer and role that its name says."""
    rows = case.arm.artefact.manifest.matrices
    facts = matrices_of(case.arm)

    assert [(f.name, f.density, f.lowering) for f in facts] == [
        (r.name, r.density, r.lowering) for r in rows
    ]
    assert all(f".layer.{f.layer}." in f.name for f in facts)


def test_what_ran_it_is_what_the_session_says(case: Case) -> None:
    """ONNX Runtime with its version, and in what else the artefact is served, where it is."""
    manifest = case.arm.artefact.manifest

    def served(**change: Any) -> str | None:
        artefact = replace(case.arm.artefact, manifest=replace(manifest, **change))
        return served_otherwise(replace(case.arm, artefact=artefact))

    assert case.profile.runtime == f"onnxruntime {version_of('onnxruntime')}"
    assert (case.profile.precision, case.profile.served) == ("fp32", None)
    assert served(runtime="openvino") == "openvino, fp32"
    assert served(runtime="openvino", bf16=True) == "openvino, bf16"


def test_what_the_profiler_cannot_see_into_is_refused(case: Case) -> None:
    """Another format, precision or device is refused before anything is opened."""

    def changed(**change: Any) -> ArmSource:
        manifest = replace(case.arm.artefact.manifest, **change)
        return replace(case.arm, artefact=replace(case.arm.artefact, manifest=manifest))

    with pytest.raises(BadArtefact, match="format 'trt'"):
        profile_layers(changed(format="trt"), QUICK)
    for precision in ("fp16", "int8"):
        with pytest.raises(BadArtefact, match=f"is fp32.*got precision {precision}.*fp32 and"):
            profile_layers(changed(precision=precision), QUICK)
    with pytest.raises(Unavailable, match="on the CPU only"):
        profile_layers(case.arm, replace(QUICK, device="cuda"))
