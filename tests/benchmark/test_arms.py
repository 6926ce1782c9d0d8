"""Arms: their names, what they are fed, and what is told of them."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from spd_deploy.benchmark.arms import Arm, batches_for
from spd_deploy.benchmark.artefact_arms import (
    arms_of,
    facts_of,
    lowered_of,
    refuse_unreadable,
    sources_of,
)
from spd_deploy.benchmark.baseline import as_dense
from spd_deploy.benchmark.compare import engines_of
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.artefact import Artefact, MatrixRow
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES, Runtime
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.sessions.onnxruntime import DATA_FILE, MODEL_FILE, PORTABLE_FILE
from tests.benchmark.made import ARM, source_of
from tests.portable import with_portable

SETTINGS = BenchmarkSettings(shapes=Shape.grid((1, 3), (4, 32)), threads=1)


def moved(artefact: Artefact, folder: str) -> Artefact:
    """The same artefact, said to be elsewhere."""
    return replace(artefact, folder=Path(folder))


def test_arms_are_named_after_their_folders(dense_artefact: Artefact) -> None:
    """A name that comes again gets the next free number."""
    folders = ["/a/sparse", "/b/sparse", "/c/sparse-2", "/d/sparse"]
    sources = sources_of([moved(dense_artefact, folder) for folder in folders])

    assert [source.name for source in sources] == ["sparse", "sparse-2", "sparse-2-2", "sparse-3"]


def test_a_name_is_printable(dense_artefact: Artefact) -> None:
    """Line breaks and bytes that are no text do not reach the report."""
    (source,) = sources_of([moved(dense_artefact, "/a/x\ny\udcff")])

    assert source.name == "x?y?"


def test_all_arms_are_fed_the_same_ids(arms: tuple[Arm, ...]) -> None:
    """The same seed gives the same ids, all real and within the vocabulary."""
    first, again = batches_for(arms, SETTINGS), batches_for(arms[::-1], SETTINGS)

    assert tuple(first) == SETTINGS.shapes
    for shape, batch in first.items():
        assert batch.ids_BS.shape == (shape.batch, shape.seq)
        assert batch.mask_BS.all()
        assert 0 <= batch.ids_BS.min() <= batch.ids_BS.max() < arms[0].encoder.vocabulary
        np.testing.assert_array_equal(batch.ids_BS, again[shape].ids_BS)


def test_a_length_that_is_never_served_is_refused(arms: tuple[Arm, ...]) -> None:
    """Sequences beyond the artefact's cut are refused with the length it takes."""
    with pytest.raises(BadArtefact, match="cuts its texts at 32 tokens; got sequences of 33; meas"):
        batches_for(arms, replace(SETTINGS, shapes=(Shape(batch=1, seq=33),)))


def test_matrices_are_grouped_by_lowering_and_reason() -> None:
    """Shares are means weighted by the matrices' sizes, and the largest group comes first."""

    def row(lowering: str, reason: str, density: float, N: int) -> MatrixRow:
        return MatrixRow(
            name="m", shape=(N, 10), pattern="p", density=density, lowering=lowering,
            reason=reason, flops_share=density,
        )  # fmt: skip

    rows = [
        row("dense", "small", 0.5, 1),
        row("gathered", "x", 0.2, 1),
        row("gathered", "x", 0.4, 3),
    ]
    large, small = lowered_of(rows)

    assert (large.lowering, large.matrices, large.weights) == ("gathered", 2, 40)
    assert large.density == pytest.approx(np.average([0.2, 0.4], weights=[1, 3]))
    assert (small.lowering, small.reason, small.matrices) == ("dense", "small", 1)


def calibrated(brier: float) -> TemperatureScaling:
    """A calibration that is told from others by its Brier score."""
    error = CalibrationError(expected=0.1, brier=brier, confidence=0.9)
    return TemperatureScaling(temperature=1.5, rows=90, split="dev", before=error, after=error)


def test_a_sparse_model_timed_as_dense_keeps_its_own_calibration(
    block_checkpoint: Checkpoint,
) -> None:
    """Its weights are the student's, so that those of the teacher say nothing of it."""
    student, teacher = calibrated(0.3), calibrated(0.2)
    checkpoint = replace(block_checkpoint, calibration={"dense": teacher, "sparse": student})

    assert as_dense(checkpoint).calibration == {"dense": student}


@pytest.mark.parametrize(
    ("runtime", "precision", "expected"),
    [
        ("onnxruntime", "fp32", 0.8),
        ("openvino", "fp32", 0.8),
        ("onnxruntime", "int8", 0.7),
        ("openvino", "int8", 0.6),
        ("openvino", "int8+bf16", 0.5),
        ("openvino", "bf16", None),
    ],
)
def test_a_score_is_that_of_what_ran(
    arms: tuple[Arm, ...], runtime: Runtime, precision: str, expected: float | None
) -> None:
    """What rounds has a score of its own, or none; it never borrows that of fp32."""
    scores = {"sparse": 0.8, "int8": 0.7, "int8, portable": 0.6, "int8+bf16": 0.5}
    source = source_of(arms[1])
    named = {name: {"accuracy": value} for name, value in scores.items()}
    errors = {name: calibrated(value) for name, value in scores.items()}
    manifest = replace(source.artefact.manifest, scores=named, calibration=errors)
    source = replace(source, artefact=replace(source.artefact, manifest=manifest))
    ran = replace(ARM.runtime, runtime=runtime, precision=precision)

    facts = facts_of(source, ran, 0.0)
    assert facts.score.get("accuracy") == expected
    assert facts.calibration == (None if expected is None else calibrated(expected))


def test_facts_are_those_of_the_manifest(arms: tuple[Arm, ...]) -> None:
    """Reasons, sizes, scores and hashes are told; no path is."""
    dense, nm = (arm.facts(ARM.runtime, 3e-7) for arm in arms)

    assert (dense.pattern, dense.score) == (None, {"accuracy": 0.9})
    assert (nm.pattern, nm.sparsity, nm.score) == ("2:4", 0.5, {"accuracy": 0.8})
    assert nm.runs_dense
    assert nm.matrices == len(source_of(arms[1]).artefact.manifest.matrices)
    assert nm.models == {
        name: sha
        for name, sha in source_of(arms[1]).artefact.manifest.files.items()
        if name in (MODEL_FILE, DATA_FILE)
    }
    assert 0 < nm.model_bytes < nm.folder_bytes
    assert str(source_of(arms[1]).artefact.folder.parent) not in str(asdict(nm))


def test_an_arm_proves_its_logits(arms: tuple[Arm, ...]) -> None:
    """A session that gives the golden logits passes, and says itself how it runs."""
    with arms[0].open(SETTINGS) as session:
        found = session.description
        assert arms[0].check(session) <= 1e-4

    assert (found.runtime, found.device, found.threads) == ("onnxruntime", "cpu", 1)


def test_another_models_logits_are_refused(arms: tuple[Arm, ...]) -> None:
    """A session that gives other logits than the artefact's checkpoint is refused."""
    with (
        arms[1].open(SETTINGS) as session,
        pytest.raises(BadArtefact, match="does not give its checkpoint's logits"),
    ):
        arms[0].check(session)


def test_an_artefact_is_an_arm_in_each_runtime(dense_artefact: Artefact) -> None:
    """Runtimes stand behind the folder's name; one that comes twice, or as auto too, is one arm."""
    other = moved(dense_artefact, "/b/dense")
    asked = [
        RUNTIME_CHOICES[s] for s in ("openvino", "auto", "onnxruntime", "openvino:bf16", "openvino")
    ]

    found = sources_of([dense_artefact, other], asked)

    ways = ("openvino", "onnxruntime", "openvino:bf16")
    assert [arm.name for arm in found] == [f"{n} ({w})" for n in ("dense", "dense-2") for w in ways]
    assert [str(arm.runtime_choice) for arm in found[:3]] == list(ways)
    assert [arm.runtime for arm in found[:3]] == ["openvino", "onnxruntime", "openvino"]


def test_the_models_of_an_arm_are_the_files_its_runtime_reads(
    dense_artefact: Artefact, tmp_path: Path
) -> None:
    """An arm in ONNX Runtime does not count the portable graph for others, nor the reverse."""
    both = [RUNTIME_CHOICES[name] for name in ("onnxruntime", "openvino")]
    arms = arms_of([with_portable(dense_artefact, tmp_path / "a")], both)
    ort, ov = (arm.facts(ARM.runtime, 0.0) for arm in arms)

    assert (MODEL_FILE in ort.models, PORTABLE_FILE in ort.models) == (True, False)
    assert (MODEL_FILE in ov.models, PORTABLE_FILE in ov.models) == (False, True)
    assert ov.folder_bytes == ort.folder_bytes > ov.model_bytes


def test_an_arm_without_a_file_for_its_runtime_is_refused(dense_artefact: Artefact) -> None:
    """It is named before any arm is opened; in ONNX Runtime the same artefact may be measured."""
    manifest = dense_artefact.manifest
    files = {name: sha for name, sha in manifest.files.items() if name != PORTABLE_FILE}
    old = replace(dense_artefact, manifest=replace(manifest, files=files))

    refuse_unreadable(sources_of([old]), "cpu")
    with pytest.raises(BadArtefact, match=r"has no portable\.onnx, which openvino reads"):
        refuse_unreadable(
            sources_of([old], [RUNTIME_CHOICES["onnxruntime"], RUNTIME_CHOICES["openvino"]]), "cpu"
        )


def test_runtimes_without_a_gpu_are_refused_on_one(dense_artefact: Artefact) -> None:
    """OpenVINO is named before anything is opened."""
    refuse_unreadable(sources_of([dense_artefact]), "cuda")
    with pytest.raises(Unavailable, match="OpenVINO runs on the CPU"):
        refuse_unreadable(sources_of([dense_artefact], [RUNTIME_CHOICES["openvino"]]), "cuda")


def test_dense_engines_are_known_by_their_precision(dense_artefact: Artefact) -> None:
    """A dense artefact of TensorRT stands for the baseline of its precision."""
    engine = replace(
        dense_artefact, manifest=replace(dense_artefact.manifest, format="trt", precision="int8")
    )

    assert engines_of(sources_of([dense_artefact, engine])) == {"int8"}
