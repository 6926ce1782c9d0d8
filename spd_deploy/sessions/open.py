"""Opens whatever a path holds: an artefact in its runtime, a checkpoint in PyTorch."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import BadArtefact, BadSetting, SpdError, Unavailable
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.golden import Golden
from spd_deploy.domain.runtime_choice import Runtime, RuntimeChoice, computed_in
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Batch, Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.checkpoints import verified_checkpoint
from spd_deploy.sessions.golden_texts import prove_texts
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Device, Session
from spd_deploy.sessions.row_parallel import part_of
from spd_deploy.sessions.tensorrt.engine_record import ENGINE_FILE, read_record
from spd_deploy.sessions.tensorrt.session import TensorRtSession
from spd_deploy.sessions.torch_network.plan import PLAN_FILE as NETWORK_FILE
from spd_deploy.sessions.torch_network.plan import TENSORS_FILE

# bf16 keeps 8 bits of a number, so logits move by a hundredth or two of the largest, whatever an
# export in fp32 was held to. More than this is not rounding.
BF16_TOLERANCE = 0.05
# Of a quantised graph such a rounding moves numbers over the edges of int8's steps: on random
# inputs, which strain its ranges, by 0.07 in a dense model and by 0.11 and 0.35 in two of 25 %
# density. So this much is allowed and what the steps themselves made, the export's own difference.
BF16_OVER_INT8 = 0.25
# The runtimes of each format.
_FORMATS: Mapping[str, tuple[Runtime, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "trt": ("tensorrt", "onnxruntime", "openvino"),
    "torch": ("torch",),
}
# Golden rows of at most so many tokens are short.
_SHORT = 8
# What OpenVINO can make of the precision in an artefact's files.
_IN_OPENVINO = {"fp32": ("fp32", "bf16"), "int8": ("int8", "bf16")}


Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedModel:
    """A session with what is needed to feed it and to read its answers."""

    session: Session
    tokenizer: Tokenizer
    task: Task


def session_from_artefact(
    artefact: Artefact,
    *,
    runtime: Runtime | None = None,
    precision: str | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Session:
    """Open the artefact in ``runtime`` and ``precision``, or in what its manifest names.

    ``device`` is the CPU where none is named, but for TensorRT, which has no other than a GPU.

    Raises:
        SpdError: it does not run in that here.
    """
    manifest = artefact.manifest
    if runtime is None:
        runtime, precision = manifest.runtime, precision or manifest.asked.precision
    _refuse_format(manifest.format, runtime)
    precision = precision or manifest.precision
    _refuse_precision(manifest.precision, runtime, precision)
    _refuse_device(runtime, device)
    file = model_file(artefact, runtime).name
    if runtime == "tensorrt":
        return TensorRtSession(artefact)
    with contextlib.ExitStack() as files:
        private = files.enter_context(artefact.private_copy(_files_read(artefact, file)))
        match runtime:
            case "onnxruntime":
                session = OnnxSession(
                    private / file, precision=precision, device=device or "cpu", threads=threads
                )
                if device == "cuda":  # where it may be loaded again, to be kept there
                    session.files = files.pop_all()
                return session
            case "openvino":
                return OpenVinoSession(
                    private / file,
                    precision=computed_in(manifest.precision, precision),
                    positions=artefact.encoder.positions,
                    threads=threads,
                )
            case "torch":
                from spd_deploy.sessions.torch_network.session import TorchArtefactSession

                return TorchArtefactSession(
                    private, artefact.encoder, device=device or "cpu", threads=threads
                )


def _refuse_device(runtime: Runtime, device: Device | None) -> None:
    """A runtime that has no such device must not be asked for it."""
    if runtime == "tensorrt" and device == "cpu":
        raise Unavailable(
            "TensorRT runs on GPUs alone",
            got="--device cpu",
            fix="use --device cuda, or --runtime onnxruntime on the CPU",
        )
    if runtime == "openvino" and device == "cuda":
        raise Unavailable(
            "OpenVINO runs on the CPU here",
            got=f"device {device}",
            fix="use --runtime onnxruntime, or --device cpu",
        )


def _files_read(artefact: Artefact, file: str) -> list[str]:
    """An artefact's model file with what a runtime reads besides: weights, or its layers' plan."""
    plan = {NETWORK_FILE} & set(artefact.manifest.files)
    return list(dict.fromkeys([file, *artefact.weights(), *plan]))


def model_file(artefact: Artefact, runtime: Runtime) -> Path:
    """The file that a runtime reads.

    Raises:
        BadArtefact: the artefact has none for it.
        Unavailable: it is for another runtime, or is an engine that is not built yet.
    """
    _refuse_format(artefact.manifest.format, runtime)
    if runtime == "tensorrt":
        read_record(artefact.folder)
        return artefact.folder / ENGINE_FILE
    name = graph_file(artefact.manifest.format, runtime)
    if name not in artefact.manifest.files:
        raise BadArtefact(
            f"{artefact.folder} has no {name}, which {runtime} reads",
            got="an artefact exported by an older version",
            fix="export it again",
        )
    return artefact.folder / name


def graph_file(format_: str, runtime: str) -> str:
    """The file of a model that a runtime reads, or that its engine was built of."""
    if format_ == "torch":
        return TENSORS_FILE
    return MODEL_FILE if format_ == "onnx" and runtime == "onnxruntime" else PORTABLE_FILE


def open_path(
    path: Path,
    *,
    asked: RuntimeChoice | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> OpenedModel:
    """Open an artefact or a checkpoint, whichever ``path`` holds, self-tested where it can be.

    Raises:
        SpdError: it is neither, it is damaged, or it does not run here.
    """
    asked = asked or RuntimeChoice()
    if is_artefact(path):
        artefact = open_artefact(path, weights=False)
        session = session_from_artefact(
            artefact,
            runtime=asked.runtime,
            precision=asked.precision,
            device=device,
            threads=threads,
        )
        try:
            prove(session, artefact)
        except SpdError:
            session.close()
            raise
        return OpenedModel(session=session, tokenizer=artefact.tokenizer(), task=artefact.task)

    refuse_no_model(path, wanted="either")
    refuse_runtime(asked)
    with verified_checkpoint(path) as checkpoint:
        tokenizer = tokenizer_of(checkpoint)
        session = session_from_checkpoint(checkpoint, device=device, threads=threads)
    return OpenedModel(session=session, tokenizer=tokenizer, task=checkpoint.task)


def session_from_checkpoint(
    checkpoint: Checkpoint, *, device: Device | None = None, threads: int | None = None
) -> Session:
    """Open a checkpoint in PyTorch.

    Raises:
        SpdError: it does not run here.
    """
    from spd_deploy.sessions.torch import TorchSession

    return TorchSession(checkpoint.folder, device=device or "cpu", threads=threads)


def refuse_runtime(asked: RuntimeChoice) -> None:
    """A checkpoint that was not exported runs in PyTorch alone.

    Raises:
        BadSetting: another runtime was asked for.
    """
    if asked.runtime not in (None, "torch"):
        raise BadSetting(
            "a checkpoint runs in PyTorch",
            got=f"--runtime {asked}",
            fix="export it with spd export, or leave --runtime out",
        )


def prove(session: Session, artefact: Artefact) -> float:
    """Run the golden inputs, and hold the session to the logits that it should give for them.

    Those are the checkpoint's or, of a graph that has its own, those it gave when it was exported.
    Golden texts must get their tokens, labels and scores besides (:func:`prove_texts`).
    A runtime that rounds to bf16 is allowed :data:`BF16_TOLERANCE`, or :data:`BF16_OVER_INT8`.

    Returns:
        The largest difference from the checkpoint's logits, absolute for logits below 1 and
        relative above.

    Raises:
        BadArtefact: it gives others.
    """
    manifest, golden = artefact.manifest, artefact.golden()
    runtime, rounded = session.description.runtime, session.description.precision
    file = graph_file(manifest.format, runtime)
    tolerance = manifest.parity.tolerance
    many = many_rows(golden, session.description.threads or default_threads())
    if file in golden.own_BC:
        if rounded != manifest.precision or runtime == "tensorrt":  # which rounds what is around
            tolerance = max(tolerance, BF16_OVER_INT8 + manifest.parity.max_difference)
        difference = _prove_alone(
            session, golden, golden.own_BC[file], tolerance, copies=len(many.logits_BC)
        )
    else:
        if rounded != manifest.precision:
            tolerance = max(tolerance, BF16_TOLERANCE)
        both = (golden, many)
        difference = max(self_test(session, one, tolerance=tolerance) for one in both)
    prove_texts(session, artefact, golden, file=file, tolerance=tolerance)
    return difference


def many_rows(golden: Golden, threads: int) -> Golden:
    """The short golden rows again and again: enough for a session to share them out."""
    mask_BS = golden.batch.mask_BS
    short = np.flatnonzero(mask_BS.sum(1) <= _SHORT)
    rows = np.resize(short, 2 * threads)
    return Golden(batch=part_of(golden.batch, rows), logits_BC=golden.logits_BC[rows])


def self_test(session: Session, golden: Golden, *, tolerance: float) -> float:
    """Run the golden inputs in one batch and compare with the checkpoint's logits.

    Returns:
        The largest difference, absolute for logits below 1 and relative above.

    Raises:
        BadArtefact: the difference is larger than ``tolerance``, or not a number.
    """
    difference = difference_between(session.run(golden.batch), golden.logits_BC)
    _refuse_different(difference, tolerance, whose="its checkpoint's logits")
    return difference


def _prove_alone(
    session: Session, golden: Golden, own_BC: Logits, tolerance: float, *, copies: int
) -> float:
    """Each row alone, and ``copies`` of one, which a session shares out among its threads."""
    found_BC = rows_alone(session, golden.batch)
    first = np.zeros(copies, np.intp)
    many_BC = session.run(part_of(golden.batch, first))
    both_BC, expected_BC = (
        np.concatenate([found_BC, many_BC]),
        np.concatenate([own_BC, own_BC[first]]),
    )
    difference = difference_between(both_BC, expected_BC)
    _refuse_different(difference, tolerance, whose="the logits it gave when it was exported")
    return difference_between(found_BC, golden.logits_BC)


def rows_alone(session: Session, batch: Batch) -> Logits:
    """The logits ``[B, C]`` of each row in a batch of its own, without padding."""
    rows = [part_of(batch, np.array([row])) for row in range(len(batch.ids_BS))]
    return np.concatenate([session.run(row) for row in rows])


def _refuse_different(difference: float, tolerance: float, *, whose: str) -> None:
    """Refuse a difference that is larger than allowed, or not a number."""
    if not difference <= tolerance:
        raise BadArtefact(
            f"the artefact does not give {whose} on this machine",
            got=f"a difference of {difference:.2g}, {tolerance:g} allowed",
            fix="export it again on this machine; if that fails too, please report it",
        )


def difference_between(found_BC: Logits, expected_BC: Logits) -> float:
    """Largest difference between logits, measured in units of max(1, largest expected)."""
    scale = max(1.0, float(np.abs(expected_BC).max()))
    return float(np.abs(found_BC - expected_BC).max()) / scale


def _refuse_format(format_: str, runtime: Runtime) -> None:
    """An artefact runs in the runtimes that its format is made for."""
    if runtime not in (possible := _FORMATS.get(format_, ())):
        wanted = next(name for name, runtimes in _FORMATS.items() if runtime in runtimes)
        raise Unavailable(
            f"{runtime} does not run an artefact of format {format_}",
            got=f"--runtime {runtime}",
            fix=f"export with --format {wanted}"
            + (f", or use --runtime {' or '.join(possible)}" if possible else ""),
        )


def _refuse_precision(stored: str, runtime: Runtime, precision: str) -> None:
    """Runtimes compute in the precision of the file; OpenVINO may round fp32 to bf16."""
    possible = _IN_OPENVINO.get(stored, ()) if runtime == "openvino" else (stored,)
    if not possible:
        raise Unavailable(
            f"{runtime} does not run artefacts of {stored}", fix="use --runtime onnxruntime"
        )
    if precision not in possible:
        raise Unavailable(
            f"{runtime} runs an artefact of {stored} in {' or '.join(possible)}",
            got=precision,
            fix="choose another --runtime, or export the artefact in that precision",
        )
