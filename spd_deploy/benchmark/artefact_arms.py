"""Artefacts as arms: their names, how they are opened and checked, what the report says of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np

from spd_deploy.benchmark.arms import AUTO, Arm, ArmSource
from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.proof import sparse_kernels
from spd_deploy.benchmark.records import SIZES, ArmFacts, BenchmarkSettings, Lowered
from spd_deploy.domain.artefact import Artefact, MatrixRow
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.roofline import Work, encoder_work
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.domain.scores import score_owner
from spd_deploy.sessions.open import model_file, prove, refuse_device, session_from_artefact
from spd_deploy.sessions.protocol import Description, Device, Session
from spd_deploy.sessions.tensorrt.build_plan import read_plan
from spd_deploy.sessions.tensorrt.engine_record import read_record
from spd_deploy.sessions.torch_network.network_plan import PLAN_FILE

# Share of the multiplications that 2:4 kernels do.
_TWO_FOUR_SHARE = 2 / 4


def arms_of(
    artefacts: Iterable[Artefact], runtime_choices: Sequence[RuntimeChoice] = (AUTO,)
) -> tuple[Arm, ...]:
    """Each artefact as an arm in each requested runtime (:func:`sources_of`)."""
    return tuple(map(arm_of, sources_of(artefacts, runtime_choices)))


def sources_of(
    artefacts: Iterable[Artefact], runtime_choices: Sequence[RuntimeChoice] = (AUTO,)
) -> tuple[ArmSource, ...]:
    """Each artefact in each requested runtime, named after its folder.

    A folder's name that comes again gets a number. Where there are several runtimes, theirs
    follows in brackets. A runtime that is named twice, or is the artefact's own, is taken once.
    """
    sources: list[ArmSource] = []
    taken: set[str] = set()
    for artefact in artefacts:
        plain = _printable(artefact.folder.resolve().name)
        numbered = (f"{plain}-{i}" for i in range(2, 2 + len(taken)))
        name = next(n for n in (plain, *numbered) if n not in taken)
        taken.add(name)
        choices = dict.fromkeys(_with_runtime(one, artefact) for one in runtime_choices)
        sources += [
            ArmSource(
                name=name if len(runtime_choices) == 1 else f"{name} ({choice})",
                artefact=artefact,
                runtime_choice=choice,
            )
            for choice in choices
        ]
    return tuple(sources)


def arm_of(source: ArmSource) -> Arm:
    """An artefact as an arm."""
    return Arm(
        name=source.name,
        dense=source.artefact.manifest.sparsity is None,
        encoder=source.encoder,
        max_tokens=source.max_tokens,
        open=partial(open_source, source),
        check=partial(check_source, source),
        facts=partial(facts_of, source),
        work=partial(work_of, source),
        source=source,
    )


def open_source(source: ArmSource, settings: BenchmarkSettings) -> Session:
    """A session on the device and threads of the settings."""
    return session_from_artefact(
        source.artefact,
        runtime=source.runtime_choice.runtime,
        precision=source.runtime_choice.precision,
        device=settings.device,
        threads=settings.threads,
    )


def check_source(source: ArmSource, session: Session) -> float:
    """How far the session's logits are from the artefact's golden logits.

    Raises:
        BadArtefact: further than its precision allows.
    """
    return prove(session, source.artefact)


def refuse_unreadable(sources: Sequence[ArmSource], device: Device) -> None:
    """Refuse artefacts that their runtime cannot read or run, before anything is opened.

    Raises:
        BadArtefact: an artefact has no file for its runtime.
        Unavailable: a runtime does not run on the device.
    """
    for source in sources:
        model_file(source.artefact, source.runtime)
        refuse_device(source.runtime, device)


def facts_of(source: ArmSource, runtime: Description, parity: float) -> ArmFacts:
    """The report's facts of an artefact that ran as ``runtime`` describes."""
    manifest, folder = source.artefact.manifest, source.artefact.folder
    models = _model_hashes(source)
    sizes = asdict(source.encoder)
    pruned = manifest.sparsity is not None
    own = score_owner(
        pruned=pruned,
        precision=runtime.precision,
        format_=manifest.format,
        runtime=runtime.runtime,
    )
    return ArmFacts(
        name=source.name,
        format=manifest.format,
        precision=runtime.precision,
        pattern=manifest.pattern if pruned else None,
        sparsity=manifest.sparsity,
        task=manifest.task.name,
        sizes={name: sizes[name] for name in SIZES},
        models=models,
        model_bytes=sum(bytes_of(folder / name) for name in models),
        folder_bytes=bytes_of(folder),
        runtime=runtime,
        lowered=lowered_of(manifest.matrices),
        score=dict(manifest.scores.get(own, {})),
        split=manifest.split,
        parity=parity,
        memory=None,
        calibration=manifest.calibration.get(own),
    )


def lowered_of(matrices: Iterable[MatrixRow]) -> tuple[Lowered, ...]:
    """The matrices grouped by lowering and reason, the largest group first."""
    groups: dict[tuple[str, str], list[MatrixRow]] = defaultdict(list)
    for row in matrices:
        groups[row.lowering, row.reason].append(row)
    found = [_lowered(lowering, why, rows) for (lowering, why), rows in groups.items()]
    return tuple(sorted(found, key=lambda group: -group.matrices))


def work_of(source: ArmSource, trace: KernelTrace, number_bytes: int) -> Work:
    """The least work of an artefact: its kept multiplications.

    2:4 kernels do half of the multiplications and read half of the weights. Where some ran, every
    matrix that they take is counted so, which keeps the least time a bound.
    """
    shares = {row.name: row.flops_share for row in source.artefact.manifest.matrices}
    if sparse_kernels(trace):
        shares |= {name: _TWO_FOUR_SHARE * shares[name] for name in two_four_matrices(source)}
    return encoder_work(
        source.encoder,
        trace.shape,
        shares=shares,
        number_bytes=number_bytes,
        first_only=True,  # as all exports are made (``exporters.onnx.classifier_graph``)
    )


def two_four_matrices(source: ArmSource) -> frozenset[str]:
    """The names of the matrices that 2:4 kernels may run in the runtime."""
    match source.runtime:
        case "tensorrt":
            plan = read_plan(source.artefact.folder)
            return frozenset(matrix.name for matrix in plan.matrices if matrix.eligible)
        case "onnxruntime" | "openvino" | "torch":
            rows = source.artefact.manifest.matrices
            return frozenset(row.name for row in rows if row.lowering == "2:4")
        case never:
            assert_never(never)


def _lowered(lowering: str, reason: str, rows: Sequence[MatrixRow]) -> Lowered:
    """One group; its shares are means weighted by the matrices' sizes."""
    sizes = [row.shape[0] * row.shape[1] for row in rows]
    return Lowered(
        lowering=lowering,
        reason=reason,
        matrices=len(rows),
        weights=sum(sizes),
        density=float(np.average([row.density for row in rows], weights=sizes)),
        flops_share=float(np.average([row.flops_share for row in rows], weights=sizes)),
    )


def _printable(name: str) -> str:
    """A folder's name without what a report or a terminal cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _with_runtime(requested: RuntimeChoice, artefact: Artefact) -> RuntimeChoice:
    """The choice with a runtime named: the artefact's own where none was requested."""
    return requested if requested.runtime is not None else artefact.manifest.runtime_choice


def _model_hashes(source: ArmSource) -> dict[str, str]:
    """The files that the runtime reads, with their hashes: an engine, or a graph with weights."""
    files = source.artefact.manifest.files
    model = model_file(source.artefact, source.runtime)
    match source.runtime:
        case "tensorrt":
            return {model.name: read_record(source.artefact.folder).engine_sha256}
        case "torch":
            return {name: files[name] for name in (PLAN_FILE, model.name)}
        case "onnxruntime" | "openvino":
            return _graph_hashes(model, files)
        case never:
            assert_never(never)


def _graph_hashes(model: Path, files: Mapping[str, str]) -> dict[str, str]:
    """The hashes of an ONNX graph and of the files of weights that it names."""
    import onnx

    tensors = onnx.load(model, load_external_data=False).graph.initializer
    weights = {part.value for t in tensors for part in t.external_data if part.key == "location"}
    return {name: files[name] for name in (model.name, *sorted(weights))}
