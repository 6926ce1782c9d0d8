"""Opens whatever a path holds: an artefact in its runtime, a checkpoint in PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spd_deploy.domain.artefact import Artefact, Golden, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import BadArtefact, BadSetting, SpdError, Unavailable
from spd_deploy.domain.runtimes import Asked, Runtime, computed_in
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.sessions.chunks import part_of
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Device, Session
from spd_deploy.sessions.torch_artefact.plan import TENSORS_FILE

# bf16 keeps 8 bits of a number, so logits move by a hundredth or two of the largest, whatever an
# export in fp32 was held to. More than this is not rounding.
BF16_TOLERANCE = 0.05
# The file that each runtime reads.
_FILES: Mapping[Runtime, str] = {
    "onnxruntime": MODEL_FILE,
    "openvino": PORTABLE_FILE,
    "torch": TENSORS_FILE,
}
# The runtimes of each format.
_FORMATS: Mapping[str, tuple[Runtime, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "torch": ("torch",),
}
# Golden rows of at most so many tokens are short.
_SHORT = 8
# What OpenVINO can make of the precision in an artefact's files.
_IN_OPENVINO = {"fp32": ("fp32", "bf16"), "int8": ("int8", "bf16")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A session with what is needed to feed it and to read its answers."""

    session: Session
    tokenizer: Tokenizer
    task: Task


def session_from_artefact(
    artefact: Artefact,
    *,
    runtime: Runtime | None = None,
    precision: str | None = None,
    device: Device = "cpu",
    threads: int | None = None,
) -> Session:
    """Open the artefact in ``runtime`` and ``precision``, or in what its manifest names.

    Raises:
        SpdError: it does not run in that here.
    """
    manifest = artefact.manifest
    if runtime is None:
        runtime, precision = manifest.runtime, precision or manifest.asked.precision
    _refuse_format(manifest.format, runtime)
    precision = precision or manifest.precision
    _refuse_precision(manifest.precision, runtime, precision)
    file = model_file(artefact, runtime)
    match runtime:
        case "onnxruntime":
            return OnnxSession(file, precision=precision, device=device, threads=threads)
        case "openvino":
            if device != "cpu":
                raise Unavailable(
                    "OpenVINO runs on the CPU here",
                    got=f"device {device}",
                    fix="use --runtime onnxruntime, or --device cpu",
                )
            precision = computed_in(manifest.precision, precision)
            positions = artefact.encoder.positions
            return OpenVinoSession(file, precision=precision, positions=positions, threads=threads)
        case "torch":
            from spd_deploy.sessions.torch_artefact.session import TorchArtefactSession

            return TorchArtefactSession(
                artefact.folder, artefact.encoder, device=device, threads=threads
            )


def model_file(artefact: Artefact, runtime: Runtime) -> Path:
    """The file that a runtime reads.

    Raises:
        BadArtefact: the artefact has none for it.
    """
    name = _FILES[runtime]
    if name not in artefact.manifest.files:
        raise BadArtefact(
            f"{artefact.folder} has no {name}, which {runtime} reads",
            got="an artefact exported by an older version",
            fix="export it again",
        )
    return artefact.folder / name


def open_path(
    path: Path, *, asked: Asked | None = None, device: Device = "cpu", threads: int | None = None
) -> Opened:
    """Open an artefact or a checkpoint, whichever ``path`` holds, self-tested where it can be.

    Raises:
        SpdError: it is neither, it is damaged, or it does not run here.
    """
    asked = asked or Asked()
    if is_artefact(path):
        artefact = open_artefact(path)
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
        return Opened(session=session, tokenizer=artefact.tokenizer(), task=artefact.task)

    from spd_deploy.sessions.torch import TorchSession

    refuse_runtime(asked)
    checkpoint = open_checkpoint(path)
    tokenizer = Tokenizer(path / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    session = TorchSession(path, device=device)
    return Opened(session=session, tokenizer=tokenizer, task=checkpoint.task)


def refuse_runtime(asked: Asked) -> None:
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
    """:func:`self_test` on the artefact's golden inputs, with :data:`BF16_TOLERANCE` for bf16.

    Raises:
        BadArtefact: the session does not give the checkpoint's logits.
    """
    manifest = artefact.manifest
    rounded = session.description.precision != manifest.precision
    tolerance = max(manifest.parity.tolerance, BF16_TOLERANCE if rounded else 0.0)
    golden = artefact.golden()
    many = many_rows(golden, session.description.threads or default_threads())
    return max(self_test(session, one, tolerance=tolerance) for one in (golden, many))


def many_rows(golden: Golden, threads: int) -> Golden:
    """The short golden rows again and again: enough for a session to share them out."""
    mask_BS = golden.batch.mask_BS
    short = np.flatnonzero(mask_BS.sum(1) <= _SHORT)
    rows = np.resize(short, 2 * threads)
    return Golden(batch=part_of(golden.batch, rows), logits_BC=golden.logits_BC[rows])


def self_test(session: Session, golden: Golden, *, tolerance: float) -> float:
    """Run the golden inputs and compare with the checkpoint's logits.

    Returns:
        The largest difference, absolute for logits below 1 and relative above.

    Raises:
        BadArtefact: the difference is larger than ``tolerance``, or not a number.
    """
    difference = difference_between(session.run(golden.batch), golden.logits_BC)
    if not difference <= tolerance:
        raise BadArtefact(
            "the artefact does not give its checkpoint's logits on this machine",
            got=f"a difference of {difference:.2g}, {tolerance:g} allowed",
            fix="export it again on this machine; if that fails too, please report it",
        )
    return difference


def difference_between(found_BC: np.ndarray, expected_BC: np.ndarray) -> float:
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
    """ONNX Runtime computes in the precision of the file; OpenVINO may round fp32 to bf16."""
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
