"""Opens a model: an artefact in its runtime, self-tested, or a checkpoint in PyTorch."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, assert_never

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import BadArtefact, BadSetting, Unavailable
from spd_deploy.domain.extras import require_extras
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.golden import Golden
from spd_deploy.domain.long_texts import LongTextChoice
from spd_deploy.domain.runtime_choice import (
    Device,
    Runtime,
    RuntimeChoice,
    computed_in,
    reads_portable,
    runtimes_of,
    traits_of,
)
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Batch, Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.checkpoints import verified_checkpoint
from spd_deploy.sessions.golden_texts import prove_texts
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.row_parallel import part_of
from spd_deploy.sessions.tensorrt.engine_record import ENGINE_FILE, read_record
from spd_deploy.sessions.tensorrt.session import TensorRtSession
from spd_deploy.sessions.torch_network.network_plan import PLAN_FILE as NETWORK_FILE
from spd_deploy.sessions.torch_network.network_plan import TENSORS_FILE

# Largest difference that rounding to bf16 explains. bf16 has 8 significant bits, so logits differ
# by one or two percent of the largest; the export's own tolerance is for fp32.
BF16_TOLERANCE = 0.05
# The same for a quantised graph, where rounding to bf16 can move a value into the next int8 step.
# On random inputs, which exceed the calibrated ranges, logits of a dense model differ by 0.07 and
# those of two models of 25 % density by 0.11 and 0.35. The export's own difference is added to it.
BF16_OVER_INT8 = 0.25
# Golden rows of at most so many tokens count as short.
_SHORT = 8


Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedModel:
    """A session with its tokenizer and task.

    Attributes:
        source: the artefact or the checkpoint that was opened.
        self_test: largest difference of the logits from the checkpoint's on this machine; None for
            a checkpoint, which is its own reference.
    """

    session: Session
    tokenizer: Tokenizer
    task: Task
    source: Artefact | Checkpoint
    self_test: float | None = None

    def reading(self, choice: LongTextChoice) -> Self:
        """The same model, which reads long texts as it was trained, or as the choice says.

        Raises:
            OptionConflict: an option of windows where texts are cut.
            BadSetting: the stride is not smaller than a window.
        """
        windows = choice.windows(self.task.windows)
        pairs = self.task.has_pair or self.task.name == "unknown"
        return replace(self, tokenizer=self.tokenizer.in_windows(windows, pairs=pairs))


def session_from_artefact(
    artefact: Artefact,
    *,
    runtime: Runtime | None = None,
    precision: str | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Session:
    """Open an artefact in ``runtime`` and ``precision``; by default in those of its manifest.

    ``device`` is the CPU by default, but for TensorRT, which runs on a GPU only.

    Raises:
        SpdError: the artefact does not run so on this machine.
    """
    manifest = artefact.manifest
    if runtime is None:
        runtime, precision = manifest.runtime, precision or manifest.runtime_choice.precision
    _refuse_format(manifest.format, runtime)
    precision = precision or manifest.precision
    _refuse_precision(manifest.precision, runtime, precision)
    if device is not None:
        refuse_device(runtime, device)
    file = model_file(artefact, runtime).name
    if runtime == "tensorrt":  # which reads the artefact's folder, not a private copy
        return TensorRtSession(artefact)
    with contextlib.ExitStack() as files:
        private = files.enter_context(artefact.private_copy(_files_read(artefact, file)))
        match runtime:
            case "onnxruntime":
                session = OnnxSession(
                    private / file, precision=precision, device=device or "cpu", threads=threads
                )
                if device == "cuda":  # prepare() loads the model again
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
            case never:
                assert_never(never)


def refuse_device(runtime: Runtime, device: Device) -> None:
    """Refuse a device that the runtime does not have.

    Raises:
        Unavailable: the runtime has another one only.
    """
    traits = traits_of(runtime)
    if device not in traits.devices:
        where = "GPUs" if traits.devices == ("cuda",) else "the CPU"
        raise Unavailable(
            f"{traits.title} runs on {where} only",
            got=f"device {device}",
            fix=f"use --device {traits.devices[0]}, or --runtime onnxruntime",
        )


def _files_read(artefact: Artefact, file: str) -> list[str]:
    """The files that a runtime reads: the model, its weights, and a torch artefact's plan."""
    plan = {NETWORK_FILE} & set(artefact.manifest.files)
    return list(dict.fromkeys([file, *artefact.weights(), *plan]))


def model_file(artefact: Artefact, runtime: Runtime) -> Path:
    """The model file that a runtime reads.

    Raises:
        BadArtefact: the artefact has no file for the runtime.
        Unavailable: its format is for other runtimes, or its engine is not built yet.
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
    """Name of the model file that a runtime reads, or from which its engine was built."""
    if format_ == "torch":
        return TENSORS_FILE
    return PORTABLE_FILE if format_ == "trt" or reads_portable(runtime) else MODEL_FILE


def open_path(
    path: Path,
    *,
    runtime_choice: RuntimeChoice | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> OpenedModel:
    """Open an artefact or a checkpoint; an artefact is verified and self-tested.

    Raises:
        SpdError: the path holds neither, the model is damaged, or it does not run here.
    """
    choice = runtime_choice or RuntimeChoice()
    if is_artefact(path):
        return _open_artefact(path, choice, device, threads)
    refuse_no_model(path, wanted="either")
    _refuse_runtime_of_checkpoint(choice)
    with verified_checkpoint(path) as checkpoint:
        return OpenedModel(
            session=session_from_checkpoint(checkpoint, device=device, threads=threads),
            tokenizer=tokenizer_of(checkpoint),
            task=checkpoint.task,
            source=checkpoint,
        )


def _open_artefact(
    folder: Path, choice: RuntimeChoice, device: Device | None, threads: int | None
) -> OpenedModel:
    """Verify the hashes, open the session, and run the golden inputs."""
    artefact = open_artefact(folder, weights=False)
    session = session_from_artefact(
        artefact,
        runtime=choice.runtime,
        precision=choice.precision,
        device=device,
        threads=threads,
    )
    try:
        return OpenedModel(
            session=session,
            tokenizer=artefact.tokenizer(),
            task=artefact.task,
            source=artefact,
            self_test=prove(session, artefact),
        )
    except BaseException:
        session.close()
        raise


def session_from_checkpoint(
    checkpoint: Checkpoint, *, device: Device | None = None, threads: int | None = None
) -> Session:
    """Open a checkpoint in PyTorch.

    Raises:
        SpdError: it does not run on this machine.
    """
    require_extras(
        "a checkpoint, which runs in PyTorch,",
        "torch",
        otherwise="export it elsewhere and use the artefact",
    )
    from spd_deploy.sessions.torch import TorchSession

    return TorchSession(checkpoint.folder, device=device or "cpu", threads=threads)


def _refuse_runtime_of_checkpoint(choice: RuntimeChoice) -> None:
    """Refuse every runtime but PyTorch for a checkpoint.

    Raises:
        BadSetting: another runtime was chosen.
    """
    if choice.runtime not in (None, "torch"):
        raise BadSetting(
            "a checkpoint that is not exported runs in PyTorch only",
            got=f"--runtime {choice}",
            fix="export it with spd export, or leave --runtime out",
        )


def prove(session: Session, artefact: Artefact) -> float:
    """Self-test a session: compare its logits on the golden inputs with the expected ones.

    Expected are the logits of the checkpoint or, for a graph with logits of its own, those that it
    gave at the export. Golden texts must also get their tokens, labels and scores
    (:func:`prove_texts`). A runtime that rounds to bf16 is allowed :data:`BF16_TOLERANCE`, or
    :data:`BF16_OVER_INT8` for a quantised graph.

    Returns:
        The largest difference from the checkpoint's logits, absolute for logits below 1 and
        relative above.

    Raises:
        BadArtefact: the difference exceeds the tolerance.
    """
    manifest, golden = artefact.manifest, artefact.golden()
    runtime, rounded = session.description.runtime, session.description.precision
    file = graph_file(manifest.format, runtime)
    tolerance = manifest.parity.tolerance
    many = many_rows(golden, session.description.threads or default_threads())
    if file in golden.own_BC:
        # TensorRT rounds the operators between the quantised products too.
        if rounded != manifest.precision or runtime == "tensorrt":
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
    """The short golden rows repeated, so that a session splits the batch among its threads."""
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
    """Self-test with each row alone, and with ``copies`` of one row, which threads share."""
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
    """Refuse a difference that exceeds the tolerance or is NaN."""
    if not difference <= tolerance:
        raise BadArtefact(
            f"the artefact does not give {whose} on this machine",
            got=f"a difference of {difference:.2g}, {tolerance:g} allowed",
            fix="export it again on this machine; if that fails too, please report it",
        )


def difference_between(found_BC: Logits, expected_BC: Logits) -> float:
    """Largest difference between logits, divided by max(1, largest expected logit)."""
    scale = max(1.0, float(np.abs(expected_BC).max()))
    return float(np.abs(found_BC - expected_BC).max()) / scale


def _refuse_format(format_: str, runtime: Runtime) -> None:
    """Refuse a runtime that the artefact's format is not made for."""
    if runtime not in (possible := runtimes_of(format_)):
        raise Unavailable(
            f"{runtime} does not run an artefact of format {format_}",
            got=f"--runtime {runtime}",
            fix=f"export with --format {traits_of(runtime).formats[0]}"
            + (f", or use --runtime {' or '.join(possible)}" if possible else ""),
        )


def _refuse_precision(stored: str, runtime: Runtime, precision: str) -> None:
    """Refuse a precision in which the runtime does not run files of the stored one."""
    possible = traits_of(runtime).precisions_of(stored)
    if not possible:
        raise Unavailable(
            f"{runtime} does not run {stored} artefacts", fix="use --runtime onnxruntime"
        )
    if precision not in possible:
        raise Unavailable(
            f"{runtime} runs an {stored} artefact only in {' or '.join(possible)}",
            got=precision,
            fix="choose another --runtime, or export the artefact in that precision",
        )
