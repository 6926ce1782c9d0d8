"""Measures a sparse artefact and its dense baseline operator by operator, in turns.

One session is open at a time. In each round a model is opened with ONNX Runtime's profiler on,
warmed up, run while every operator is timed, and, once the profiler is off, run again for the time
of whole runs that nothing is in the way of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exporters.dense_baseline import write_dense_baseline
from spd_deploy.benchmark.arms import Arm, ArmSource, batches_for
from spd_deploy.benchmark.artefact_arms import arm_of
from spd_deploy.benchmark.layers.events import nodes_of, read_events
from spd_deploy.benchmark.layers.layer_records import (
    LayerProfile,
    MatrixFacts,
    NodeTime,
    Timeline,
    timeline_of,
)
from spd_deploy.benchmark.records import BenchmarkSettings
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import RuntimeChoice, computed_in
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession
from spd_deploy.sessions.protocol import Description
from spd_deploy.timing.host_clock import time_runs
from spd_deploy.timing.machine_load import cpu_times, others_cores
from spd_deploy.timing.rounds import interleave

_BASELINE, _MODEL = "dense baseline", "model"


def refuse_unmeasurable(source: ArmSource, settings: BenchmarkSettings) -> None:
    """Refuse what the profiler cannot see into, before time is spent.

    Raises:
        BadArtefact: an artefact of another format than ONNX, or of another precision than fp32.
        Unavailable: another device than the CPU.
    """
    if source.artefact.manifest.format != "onnx":
        raise BadArtefact(
            f"only the operators of ONNX artefacts can be timed, not those of {source.name}",
            got=f"format {source.artefact.manifest.format!r}",
            fix="export the checkpoint with --format onnx and measure that",
        )
    if source.artefact.manifest.precision != "fp32":
        raise BadArtefact(
            f"the dense baseline that {source.name} would be compared with is fp32, so the "
            "comparison would not tell sparsity from precision",
            got=f"precision {source.artefact.manifest.precision}",
            fix="export the checkpoint with --precision fp32 and measure that",
        )
    if settings.device != "cpu":
        raise Unavailable(
            "operators are timed on the CPU only: on a GPU they run later than they are started",
            got=settings.device,
            fix="measure with --device cpu",
        )


def to_profile(
    arms: Sequence[Arm], settings: BenchmarkSettings, progress: Progress
) -> tuple[tuple[ArmSource, ...], dict[str, str]]:
    """The sparse artefacts whose operators can be timed, and why those of others cannot.

    Raises:
        BadArtefact, Unavailable: none can be, with these settings.
    """
    sources = [arm.source for arm in arms if arm.source is not None and not arm.dense]
    reasons = {one.name: why for one in sources if (why := why_unprofiled(one)) is not None}
    for name, why in reasons.items():
        progress.note(f"{name} is not profiled: {why}")
    profiled = tuple(source for source in sources if source.name not in reasons)
    for source in profiled:
        refuse_unmeasurable(source, settings)
    return profiled, reasons


def why_unprofiled(source: ArmSource) -> str | None:
    """Why the operators of a sparse artefact are not timed; None where they can be."""
    if source.runtime != "onnxruntime":
        return f"it runs in {source.runtime}, and only ONNX Runtime's profiler times operators"
    if (precision := source.artefact.manifest.precision) != "fp32":
        return f"it is {precision}, and the dense baseline it would be compared with is fp32"
    return None


def profile_layers(
    source: ArmSource, settings: BenchmarkSettings, *, progress: Progress | None = None
) -> tuple[LayerProfile, ...]:
    """Measure an arm against its dense baseline at each shape of the settings.

    Raises:
        BadArtefact: another format or precision, or an artefact that takes shorter texts only.
        Unavailable: another device than the CPU, or a profile that is not understood.
    """
    refuse_unmeasurable(source, settings)
    batches = batches_for([arm_of(source)], settings)
    steps = 2 * settings.rounds * len(batches)
    with (
        (progress or Silent()).stage(f"layers of {source.name}", steps) as advance,
        scratch_folder("dense") as scratch,
    ):
        models = {
            _BASELINE: write_dense_baseline(source.artefact, scratch),
            _MODEL: source.artefact.folder / MODEL_FILE,
        }
        found = []
        for shape, batch in batches.items():
            before = cpu_times()
            visits: dict[str, list[_Visit]] = {name: [] for name in models}
            for _, name in interleave(tuple(models), settings.rounds):
                visits[name].append(_visit(models[name], batch, settings, scratch))
                advance(note=f"{name}, {shape}")
            ran = visits[_MODEL][0].ran
            found.append(
                LayerProfile(
                    arm=source.name,
                    shape=shape,
                    threads=settings.threads,
                    matrices=matrices_of(source),
                    dense=_timeline(visits[_BASELINE]),
                    sparse=_timeline(visits[_MODEL]),
                    others_cores=others_cores(before, cpu_times()),
                    runtime=f"{ran.runtime} {ran.version}",
                    precision=ran.precision,
                    served=served_otherwise(source),
                )
            )
    return tuple(found)


def served_otherwise(source: ArmSource) -> str | None:
    """The runtime and precision of serving, where they are not a profile's ONNX Runtime and fp32.

    Such as ``openvino, bf16``.
    """
    manifest = source.artefact.manifest
    if (
        manifest.runtime_choice == RuntimeChoice(runtime="onnxruntime")
        and manifest.precision == "fp32"
    ):
        return None
    return (
        f"{manifest.runtime}, {computed_in(manifest.precision, manifest.runtime_choice.precision)}"
    )


def matrices_of(source: ArmSource) -> tuple[MatrixFacts, ...]:
    """The matrices of the manifest, with the layer and role that their names stand for."""
    rows = {row.name: row for row in source.artefact.manifest.matrices}
    return tuple(
        MatrixFacts(
            name=matrix.name,
            layer=matrix.layer,
            role=matrix.role,
            weights=matrix.shape[0] * matrix.shape[1],
            pattern=rows[matrix.name].pattern,
            density=rows[matrix.name].density,
            flops_share=rows[matrix.name].flops_share,
            lowering=rows[matrix.name].lowering,
            reason=rows[matrix.name].reason,
        )
        for matrix in source.encoder.matrices()
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Visit:
    """One model's part of a round, and what ran it."""

    ran: Description
    runs: tuple[float, ...]
    profiled: tuple[float, ...]
    nodes: tuple[NodeTime, ...]


def _visit(model: Path, batch: Batch, settings: BenchmarkSettings, scratch: Path) -> _Visit:
    """Open, warm up, run with operators timed, then run without."""
    with OnnxSession(
        model, precision="fp32", threads=settings.threads, profile=scratch / "profile"
    ) as session:
        run = partial(session.run, batch)
        half = replace(settings.series, seconds=settings.series.seconds / 2)
        time_runs(run, settings.warmup)
        profiled = time_runs(run, half)
        file = session.end_profile()
        runs = time_runs(run, half)
    nodes = nodes_of(read_events(file), runs=len(profiled))
    file.unlink()
    return _Visit(ran=session.description, runs=runs, profiled=profiled, nodes=nodes)


def _timeline(visits: Sequence[_Visit]) -> Timeline:
    """The rounds of one model."""
    return timeline_of(
        [visit.runs for visit in visits],
        [visit.profiled for visit in visits],
        [visit.nodes for visit in visits],
    )
