"""The dense baselines of a checkpoint on a GPU, by name, each as fast as its makers make it.

    eager               PyTorch with its fused attention, in fp16, by CUDA graph or launched
    compile             torch.compile, in fp16, likewise
    torch               this project's own network in PyTorch, as torch artefacts have it, in fp16
    onnxruntime         this project's own dense export in fp16, in ONNX Runtime's CUDA provider
    onnxruntime-fused   ONNX Runtime's own transformer optimiser, in fp16, in the same provider

Our own two compute the last layer for the first token alone, and the network reads queries, keys
and values in one product: what a sparse artefact gains by that is no gain of its zeros.

A dense engine of TensorRT is an artefact that is built beforehand, on this GPU, and is named beside
the others: every dense artefact counts as a baseline too. ``tensorrt-fp16`` and ``tensorrt-int8``
stand in the report with that reason where no such artefact was named.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast, get_args

import numpy as np

from spd_deploy.benchmark.cuda.dense_torch import DenseTorchSession, Way
from spd_deploy.benchmark.cuda.entrants import Entrant, entrant_of
from spd_deploy.benchmark.cuda.fused import fused_from_checkpoint
from spd_deploy.benchmark.gpu_values import Absent, Ran
from spd_deploy.benchmark.records import ArmFacts, Memory, Settings
from spd_deploy.benchmark.run import as_dense
from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, BadSetting, reason_of
from spd_deploy.domain.files import bytes_of, sha256_of
from spd_deploy.domain.roofline import Work, encoder_work
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession, onnxruntime_for
from spd_deploy.sessions.open import difference_between
from spd_deploy.sessions.protocol import Description, Session

ENGINES = ("tensorrt-fp16", "tensorrt-int8")
NAMES = (*get_args(Way), "torch", "onnxruntime", "onnxruntime-fused", *ENGINES)
_FP16_TOLERANCE = 2e-2
_PROOF = Shape(batch=4, seq=16)
_SIZES = ("layers", "hidden", "heads", "intermediate", "vocabulary")


def parse_dense(text: str) -> tuple[str, ...]:
    """The names in ``all``, ``none``, or a list with commas, each once, in the order of a report.

    Raises:
        BadSetting: a name that is none.
    """
    asked = [part.strip() for part in text.split(",")]
    if asked == ["all"]:
        return NAMES
    if asked == ["none"]:
        return ()
    if unknown := [name for name in asked if name not in NAMES]:
        raise BadSetting(
            "no dense baseline has such a name",
            got=unknown[0] or "nothing",
            fix=f"name all, none, or some of {', '.join(NAMES)}",
        )
    return tuple(name for name in NAMES if name in asked)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseModel:
    """A checkpoint as a dense model, with what all its baselines share.

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
        """Run it once, as the reference, with some padding in the batch; zeros are run as any."""
        from spd_deploy.sessions.torch import TorchSession

        checkpoint = as_dense(checkpoint)
        scratch.mkdir(parents=True, exist_ok=True)

        proof = proof_batch(checkpoint.encoder.vocabulary)
        with TorchSession(checkpoint.folder) as session:
            expected_BC = session.run(proof)
        return cls(checkpoint=checkpoint, proof=proof, expected_BC=expected_BC, scratch=scratch)

    def difference(self, session: Session, *, tolerance: float) -> float:
        """How far a session's logits are from the model's.

        Raises:
            BadArtefact: further than ``tolerance``.
        """
        found = difference_between(session.run(self.proof), self.expected_BC)
        if not found <= tolerance:
            raise BadArtefact(
                "a dense baseline does not give its model's logits",
                got=f"a difference of {found:.2g}, {tolerance:g} allowed",
                fix="leave it out with --dense; please report it",
            )
        return found


def proof_batch(vocabulary: int) -> Batch:
    """A few rows of random ids, of which every other is half padding."""
    ids_BS = np.random.default_rng(1).integers(1, vocabulary, (_PROOF.batch, _PROOF.seq))
    mask_BS = np.ones_like(ids_BS)
    mask_BS[::2, _PROOF.seq // 2 :] = 0
    return Batch(ids_BS=ids_BS * mask_BS, mask_BS=mask_BS, types_BS=np.zeros_like(ids_BS))


def dense_entrants(
    model: DenseModel, names: Iterable[str], settings: Settings, *, engines: Iterable[str] = ()
) -> tuple[tuple[Entrant, ...], tuple[Absent, ...]]:
    """The baselines of these names, and those that nothing here can make.

    ``engines`` are the precisions of the dense TensorRT artefacts that take part by themselves.
    """
    there = {f"tensorrt-{precision}" for precision in engines}
    found, absent = [], []
    for name in names:
        if name in ENGINES:
            if name not in there:
                absent.append(Absent(name=f"dense {name}", reason=_NO_ENGINE))
            continue
        try:
            found.append(_named(model, name, settings))
        except Exception as err:  # noqa: BLE001 - the other baselines are there all the same
            absent.append(Absent(name=f"dense {name}", reason=reason_of(err)))
    return tuple(found), tuple(absent)


_NO_ENGINE = (
    "an engine is built beforehand: export the dense model with --format trt, build it here, and "
    "name its folder beside the others"
)


def _named(model: DenseModel, name: str, settings: Settings) -> Entrant:
    """The baseline of a name that is no engine's."""
    match name:
        case "torch" | "onnxruntime":
            return _own_export(model, name, settings)
        case "onnxruntime-fused":
            return _fused(model, name)
        case _:
            return _of_torch(model, cast(Way, name))


def _of_torch(model: DenseModel, way: Way) -> Entrant:
    """PyTorch, in one of its ways."""
    return _entrant(
        model,
        way,
        open_session=partial(DenseTorchSession, model.checkpoint.folder, way=way),
        check=partial(model.difference, tolerance=_FP16_TOLERANCE),
        model_file=partial(_stored_at, model.checkpoint),
        first_only=False,
    )


def _stored_at(checkpoint: Checkpoint) -> Path:
    """The checkpoint's weights: one file, or the folder of its shards."""
    return checkpoint.weights if checkpoint.weights.is_file() else checkpoint.folder


def _fused(model: DenseModel, name: str) -> Entrant:
    """What ONNX Runtime's own tools make of the checkpoint, when it is opened first."""
    file = model.scratch / "fused.onnx"

    def opened() -> Session:
        """Made where it is not there yet, and can run."""
        onnxruntime_for("cuda")
        if not file.exists():
            fused_from_checkpoint(model.checkpoint.folder, model.checkpoint.encoder, file)
        return OnnxSession(file, precision="fp16", device="cuda")

    return _entrant(
        model,
        name,
        open_session=opened,
        check=partial(model.difference, tolerance=_FP16_TOLERANCE),
        model_file=lambda: file,
        first_only=False,
    )


def _own_export(model: DenseModel, name: str, settings: Settings) -> Entrant:
    """The dense export that ``spd export`` makes in fp16 for a runtime, once for all runs.

    Raises:
        Unavailable: the runtime has no CUDA here.
    """
    from exporters.export import artefact_from_checkpoint
    from exporters.precision import Precision
    from exporters.torch.export import torch_artefact_from_checkpoint
    from spd_deploy.benchmark.arms import Arm

    if name == "onnxruntime":
        onnxruntime_for("cuda")  # before a model is exported for nothing
    folder = model.scratch / name
    if is_artefact(folder):
        artefact = open_artefact(folder)
    elif name == "torch":
        artefact = torch_artefact_from_checkpoint(model.checkpoint, folder, number="fp16")
    else:
        artefact = artefact_from_checkpoint(model.checkpoint, folder, precision=Precision.FP16)
    arm = Arm(name=f"dense {name}", artefact=artefact)
    return entrant_of(arm, settings, weigh=_unweighed)


def _entrant(
    model: DenseModel,
    name: str,
    *,
    open_session: Callable[[], Session],
    check: Callable[[Session], float],
    model_file: Callable[[], Path],
    first_only: bool,
) -> Entrant:
    """A baseline that has no artefact."""
    checkpoint, encoder = model.checkpoint, model.checkpoint.encoder

    def facts(runtime: Description, parity: float) -> ArmFacts:
        """Of the checkpoint, as this baseline ran it."""
        return dense_facts(checkpoint, f"dense {name}", runtime, parity, model_file())

    def work(ran: Ran, number_bytes: int) -> Work:
        """Of all multiplications."""
        return encoder_work(encoder, ran.shape, number_bytes=number_bytes, first_only=first_only)

    return Entrant(
        name=f"dense {name}",
        dense=True,
        encoder=encoder,
        longest=min(checkpoint.max_tokens, encoder.positions),
        open=open_session,
        check=check,
        facts=facts,
        work=work,
    )


def dense_facts(
    checkpoint: Checkpoint, name: str, runtime: Description, parity: float, file: Path
) -> ArmFacts:
    """What the report says of a baseline without an artefact."""
    sizes = asdict(checkpoint.encoder)
    return ArmFacts(
        name=name,
        format="checkpoint",
        precision=runtime.precision,
        pattern=None,
        sparsity=None,
        task=checkpoint.task.name,
        sizes={name: sizes[name] for name in _SIZES},
        models={file.name: sha256_of(file)},
        model_bytes=bytes_of(file),
        folder_bytes=bytes_of(file),
        runtime=runtime,
        lowered=(),
        score=dict(checkpoint.scores.get("dense", {})),
        split=checkpoint.split,
        parity=parity,
        memory=None,
    )


def _unweighed(*_: object) -> Memory | None:
    """Baselines are not weighed on the host: what counts here is the GPU's memory."""
    return None
