"""The dense arms of a checkpoint on a GPU, by name.

    torch-eager         Transformers' model in PyTorch with its fused attention, in fp16, by CUDA
                        graph or launched
    torch-compile       the same by torch.compile
    torch-spd           this project's dense torch artefact, in fp16
    onnxruntime-spd     this project's dense onnx artefact, in fp16, in the CUDA provider
    onnxruntime-fused   the model as ONNX Runtime's transformer optimiser fuses it, likewise

The two exports of this project compute the last layer for the first token alone, and ``torch-spd``
reads queries, keys and values in one product. Sparse artefacts do the same, so that is no part of
what zeros gain.

A dense TensorRT engine is an artefact. It is built on this GPU beforehand and is named beside the
others: every dense artefact is a baseline too. Where none was named, the report lists
``tensorrt-fp16`` and ``tensorrt-int8`` as skipped.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, assert_never, get_args

import numpy as np

from spd_deploy.benchmark.arms import Arm, ArmSource
from spd_deploy.benchmark.artefact_arms import arm_of
from spd_deploy.benchmark.baseline import as_dense
from spd_deploy.benchmark.dense.fused import fused_from_checkpoint
from spd_deploy.benchmark.dense.torch_dense import DenseTorchSession, TorchMode
from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.records import SIZES, ArmFacts, BenchmarkSettings, Skipped
from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, BadSetting, Unavailable, reason_of
from spd_deploy.domain.files import bytes_of, sha256_of
from spd_deploy.domain.roofline import Work, encoder_work
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession, onnxruntime_for
from spd_deploy.sessions.open import difference_between
from spd_deploy.sessions.protocol import Description, Session

StockTorch = Literal["torch-eager", "torch-compile"]
SpdExport = Literal["torch-spd", "onnxruntime-spd"]
Engine = Literal["tensorrt-fp16", "tensorrt-int8"]
DenseName = Literal[StockTorch, SpdExport, "onnxruntime-fused", Engine]
ENGINES: tuple[Engine, ...] = get_args(Engine)
NAMES: tuple[DenseName, ...] = get_args(DenseName)
_FP16_TOLERANCE = 2e-2
_PROOF = Shape(batch=4, seq=16)


def parse_dense(text: str) -> tuple[DenseName, ...]:
    """Names from ``all``, ``none``, or a list with commas; each once, in the order of a report.

    Raises:
        BadSetting: an unknown name.
    """
    requested = [part.strip() for part in text.split(",")]
    if requested == ["all"]:
        return NAMES
    if requested == ["none"]:
        return ()
    if unknown := [name for name in requested if name not in NAMES]:
        raise BadSetting(
            "no dense arm has such a name",
            got=unknown[0] or "nothing",
            fix=f"name all, none, or some of {', '.join(NAMES)}",
        )
    return tuple(name for name in NAMES if name in requested)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseModel:
    """A checkpoint as a dense model, and the logits that all its arms are checked against.

    Attributes:
        expected_BC: its logits for ``proof`` in fp32.
        scratch: a folder for files that only this run needs.
    """

    checkpoint: Checkpoint
    proof: Batch
    expected_BC: np.ndarray
    scratch: Path

    @classmethod
    def of(cls, checkpoint: Checkpoint, scratch: Path) -> "DenseModel":
        """Run the checkpoint once in fp32, as the reference, on a batch with some padding."""
        from spd_deploy.sessions.torch import TorchSession

        checkpoint = as_dense(checkpoint)
        scratch.mkdir(parents=True, exist_ok=True)
        proof = proof_batch(checkpoint.encoder.vocabulary)
        with TorchSession(checkpoint.folder) as session:
            expected_BC = session.run(proof)
        return cls(checkpoint=checkpoint, proof=proof, expected_BC=expected_BC, scratch=scratch)

    def difference(self, session: Session, *, tolerance: float) -> float:
        """How far a session's logits are from the reference.

        Raises:
            BadArtefact: further than ``tolerance``.
        """
        found = difference_between(session.run(self.proof), self.expected_BC)
        if not found <= tolerance:
            raise BadArtefact(
                "a dense arm does not give its model's logits",
                got=f"a difference of {found:.2g}, {tolerance:g} allowed",
                fix="leave it out with --dense; please report it",
            )
        return found


def proof_batch(vocabulary: int) -> Batch:
    """A few rows of random ids; every other row is half padding."""
    ids_BS = np.random.default_rng(1).integers(1, vocabulary, (_PROOF.batch, _PROOF.seq))
    mask_BS = np.ones_like(ids_BS)
    mask_BS[::2, _PROOF.seq // 2 :] = 0
    return Batch(ids_BS=ids_BS * mask_BS, mask_BS=mask_BS, types_BS=np.zeros_like(ids_BS))


def dense_arms(
    model: DenseModel, names: Iterable[DenseName], *, engines: Iterable[str] = ()
) -> tuple[tuple[Arm, ...], tuple[Skipped, ...]]:
    """The arms of these names, and those that cannot be made here, with the reason.

    ``engines`` are the precisions of the dense TensorRT artefacts that take part already.
    """
    built = {f"tensorrt-{precision}" for precision in engines}
    found, skipped = [], []
    for name in names:
        if name in built:
            continue
        try:
            found.append(_dense_arm(model, name))
        except Exception as err:  # noqa: BLE001 - the other arms are there all the same
            skipped.append(Skipped(name=f"dense {name}", reason=reason_of(err)))
    return tuple(found), tuple(skipped)


def _dense_arm(model: DenseModel, name: DenseName) -> Arm:
    """The arm of this name.

    Raises:
        Unavailable: it is an engine's, or its runtime is not there.
    """
    match name:
        case "torch-eager":
            return _stock_torch(model, name, "eager")
        case "torch-compile":
            return _stock_torch(model, name, "compile")
        case "torch-spd" | "onnxruntime-spd":
            return _spd_export(model, name)
        case "onnxruntime-fused":
            return _fused(model, name)
        case "tensorrt-fp16" | "tensorrt-int8":
            raise Unavailable(
                "no dense engine of this precision is among the artefacts",
                fix="export the dense model with --format trt, run spd build on it here, and name "
                "its folder beside the others",
            )
        case never:
            assert_never(never)


def _stock_torch(model: DenseModel, name: StockTorch, mode: TorchMode) -> Arm:
    """Transformers' model in PyTorch."""
    folder = model.checkpoint.folder
    return _without_artefact(
        model,
        name,
        open_session=lambda: DenseTorchSession(folder, mode=mode),
        model_file=_stored_at(model.checkpoint),
    )


def _stored_at(checkpoint: Checkpoint) -> Path:
    """The checkpoint's weights: one file, or the folder of its shards."""
    return checkpoint.weights if checkpoint.weights.is_file() else checkpoint.folder


def _fused(model: DenseModel, name: str) -> Arm:
    """The model as ONNX Runtime's optimiser fuses it, which is made when it is opened first."""
    file = model.scratch / "fused.onnx"

    def open_session() -> Session:
        """Make the file where it is not there yet, after CUDA was found."""
        onnxruntime_for("cuda")
        if not file.exists():
            fused_from_checkpoint(model.checkpoint.folder, model.checkpoint.encoder, file)
        return OnnxSession(file, precision="fp16", device="cuda")

    return _without_artefact(model, name, open_session=open_session, model_file=file)


def _spd_export(model: DenseModel, name: SpdExport) -> Arm:
    """The dense export that ``spd export`` makes in fp16 for a runtime, once for all runs.

    Raises:
        Unavailable: the runtime has no CUDA here.
    """
    from exporters.export import ExportRequest, artefact_from_checkpoint
    from exporters.precision import Precision
    from exporters.torch.export import torch_artefact_from_checkpoint

    folder = model.scratch / name
    match name:
        case "torch-spd":
            if not is_artefact(folder):
                torch_artefact_from_checkpoint(model.checkpoint, folder, precision="fp16")
        case "onnxruntime-spd":
            onnxruntime_for("cuda")  # before a model is exported for nothing
            if not is_artefact(folder):
                request = ExportRequest(precision=Precision.FP16)
                artefact_from_checkpoint(model.checkpoint, folder, request)
        case never:
            assert_never(never)
    arm = arm_of(ArmSource(name=f"dense {name}", artefact=open_artefact(folder)))
    # Without a source its process is not weighed: of a dense arm the GPU's memory alone counts.
    return replace(arm, source=None)


def _without_artefact(
    model: DenseModel, name: str, *, open_session: Callable[[], Session], model_file: Path
) -> Arm:
    """An arm that runs the checkpoint itself."""
    checkpoint, encoder, named = model.checkpoint, model.checkpoint.encoder, f"dense {name}"

    def open_on(settings: BenchmarkSettings) -> Session:
        """On CUDA, the only device that these arms have."""
        return open_session()

    def work(trace: KernelTrace, number_bytes: int) -> Work:
        """The work of every multiplication, since nothing is left out."""
        return encoder_work(encoder, trace.shape, number_bytes=number_bytes)

    return Arm(
        name=named,
        dense=True,
        encoder=encoder,
        max_tokens=min(checkpoint.max_tokens, encoder.positions),
        open=open_on,
        check=partial(model.difference, tolerance=_FP16_TOLERANCE),
        facts=lambda runtime, parity: dense_facts(checkpoint, named, runtime, parity, model_file),
        work=work,
    )


def dense_facts(
    checkpoint: Checkpoint, name: str, runtime: Description, parity: float, file: Path
) -> ArmFacts:
    """The report's facts of an arm that has no artefact."""
    sizes = asdict(checkpoint.encoder)
    return ArmFacts(
        name=name,
        format="checkpoint",
        precision=runtime.precision,
        pattern=None,
        sparsity=None,
        task=checkpoint.task.name,
        sizes={name: sizes[name] for name in SIZES},
        models={file.name: sha256_of(file)},
        model_bytes=bytes_of(file),
        folder_bytes=bytes_of(file),
        runtime=runtime,
        lowered=(),
        score=dict(checkpoint.scores.get("dense", {})),
        split=checkpoint.split,
        parity=parity,
        memory=None,
        calibration=checkpoint.calibration.get("dense"),
    )
