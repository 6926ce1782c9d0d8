"""The models of ``gpu_artefacts``: drawn, pruned and exported in each form for GPUs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

from benchmarks.shapes import checkpoint_of
from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import Precision
from exporters.tensorrt.build import BuildRequest, build_engine
from exporters.tensorrt.engine_format import engine_format
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.benchmark.dense.dense_arms import DenseModel, Engine
from spd_deploy.benchmark.records import Shape, Skipped
from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured
from spd_deploy.sessions.onnxruntime import onnxruntime_for
from spd_deploy.sessions.tensorrt.compatibility import engine_fault

# Structured first: its compact network is a small dense one, which every stock kernel runs.
PATTERNS: dict[str, Pattern] = {
    "structured-75": Structured(sparsity=0.75),
    "block-128x1-90": Block(rows=128, columns=1, sparsity=0.9),
    "block-128x1-75": Block(rows=128, columns=1, sparsity=0.75),
    "block-64x1-90": Block(rows=64, columns=1, sparsity=0.9),
    "2-4": NM(n=2, m=4),
}
# Tokens of the longest text that the models read.
LONGEST = 384
_NO_DATA = "int8 is calibrated on a task's data, and weights that were drawn have no task"


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A model's checkpoints by name, its dense arms and its sparse artefacts; what has none."""

    checkpoints: Mapping[str, Checkpoint]
    dense: DenseModel
    exported: tuple[Artefact, ...]
    skipped: tuple[Skipped, ...]


def made_of(scratch: Path, model: str) -> Made:
    """Drawn, pruned and exported once, however many jobs need it."""
    checkpoints = {
        name: drawn(scratch / model, model, name, pattern)
        for name, pattern in (("dense", None), *PATTERNS.items())
    }
    sparse = {name: one for name, one in checkpoints.items() if name != "dense"}
    faults = {name: form.fault() for name, form in FORMS.items()}
    exported = tuple(
        exported_as(form, checkpoint, scratch / model / f"{name}-{form}")
        for name, checkpoint in sparse.items()
        for form, fault in faults.items()
        if fault is None
    )
    skipped = tuple(
        Skipped(name=f"{name}-{form}", reason=fault)
        for name in sparse
        for form, fault in faults.items()
        if fault is not None
    )
    dense = DenseModel.of(checkpoints["dense"], scratch / model / "forms")
    return Made(checkpoints=checkpoints, dense=dense, exported=exported, skipped=skipped)


def drawn(scratch: Path, model: str, name: str, pattern: Pattern | None) -> Checkpoint:
    """The checkpoint that an earlier job left, or a new one, whose description is written last."""
    there = scratch / f"{name}-checkpoint"
    if (there / SPD_FILE).is_file():
        return open_checkpoint(there)
    return checkpoint_of(scratch, model, name, pattern, max_tokens=LONGEST)


def fault_of_onnxruntime() -> str | None:
    """Why no ONNX artefact runs on this GPU, as nothing need be exported then; None if one does."""
    try:
        onnxruntime_for("cuda")
    except SpdError as err:
        return str(err)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseForm:
    """What a sparse checkpoint is exported as for a GPU, and why that would not run on this one."""

    export: Callable[[Checkpoint, Path], Artefact]
    fault: Callable[[], str | None] = lambda: None


FORMS: Mapping[str, SparseForm] = {
    "torch": SparseForm(export=torch_artefact_from_checkpoint),
    "onnx": SparseForm(
        export=partial(artefact_from_checkpoint, request=ExportRequest(precision=Precision.FP16)),
        fault=fault_of_onnxruntime,
    ),
}


def exported_as(form: str, checkpoint: Checkpoint, folder: Path) -> Artefact:
    """The checkpoint in a form, as an earlier job left it, or made."""
    if is_artefact(folder):
        return open_artefact(folder)
    return FORMS[form].export(checkpoint, folder)


def engines_for(
    checkpoints: Mapping[str, Checkpoint], folder: Path, shape: Shape, *, dense: Sequence[Engine]
) -> tuple[tuple[Artefact, ...], tuple[Skipped, ...]]:
    """An engine of each checkpoint, and why of some there is none.

    Engines of 2:4 have no dense baseline of their own: the dense engine of the same row is one.

    Args:
        checkpoints: by name, the dense one as ``dense``.
        folder: where the engines are written.
        shape: of the batches that the engines are built for.
        dense: the dense engines that are wanted; each is built or among the skipped.
    """
    faults = {name: fault_of_dense(name) for name in dense}
    skipped = [
        Skipped(name=f"dense {name}", reason=fault)
        for name, fault in faults.items()
        if fault is not None
    ]
    wanted = {
        name: checkpoint
        for name, checkpoint in checkpoints.items()
        if name != "dense" or None in faults.values()
    }
    if (fault := engine_fault()) is not None:
        return (), (*skipped, *(Skipped(name=f"{name}-trt", reason=fault) for name in wanted))
    built = []
    for name, checkpoint in wanted.items():
        try:
            built.append(engine_of(checkpoint, folder / f"{name}-trt", shape))
        except SpdError as err:
            skipped.append(Skipped(name=f"{name}-trt", reason=str(err)))
    return tuple(built), tuple(skipped)


def fault_of_dense(engine: Engine) -> str | None:
    """Why there is no dense engine of this name; None for the one that :func:`engine_of` builds."""
    match engine:
        case "tensorrt-fp16":
            return None
        case "tensorrt-int8":
            return _NO_DATA
        case never:
            assert_never(never)


def engine_of(checkpoint: Checkpoint, folder: Path, shape: Shape) -> Artefact:
    """The checkpoint's engine for a shape, and for its proof's rows, one by one."""
    buckets = tuple(sorted({shape, Shape(batch=1, seq=checkpoint.max_tokens)}))
    artefact = artefact_from_checkpoint(
        checkpoint,
        folder,
        ExportRequest(precision=Precision.FP16, export_format=engine_format(buckets)),
    )
    build_engine(artefact, BuildRequest(builds=1, compare=False))
    return artefact
