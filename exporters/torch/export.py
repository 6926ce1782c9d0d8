"""Checkpoint to torch artefact, by the steps of ``exporters.pipeline``.

The folder holds ``model.safetensors``, ``network.json`` (``torch_network.network_plan``), the
tokenizer, ``config.json``, ``golden.safetensors`` and ``manifest.json``. Nothing in it is pickled.
It is verified on the CPU, where the same tensors run in plain PyTorch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self, assert_never

import numpy as np

from exporters.artefact_folder import manifest_of, matrix_rows, refuse_unready
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.pipeline import run_export
from exporters.torch.pack import plan_of, read_constants, tensors_of, write_tensors
from exporters.torch.select_lowering import (
    TorchChoice,
    choose_torch_lowerings,
    lowering_choices,
)
from exporters.verify import refuse_broken_pattern
from spd_deploy.domain.artefact import Artefact, Manifest, Parity, hashes_of
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.number_types import FloatType
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.versions import versions_of
from spd_deploy.sessions.open import BF16_TOLERANCE
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch_network.network_plan import TENSORS_FILE, write_plan
from spd_deploy.sessions.torch_network.session import TorchArtefactSession


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rounding:
    """The differences that rounding to a precision may make.

    Attributes:
        logits: allowed difference of logits, in units of max(1, largest logit). In fp32 it covers
            another order of additions, in fp16 and bf16 the rounding of every activation.
        relative: error of a stored weight, half of its last bit, as a share of it.
        absolute: the same where numbers are so small that their step is fixed.
    """

    logits: float
    relative: float = 0.0
    absolute: float = 0.0


def _rounding_of(precision: FloatType) -> _Rounding:
    """The differences that rounding to a precision may make."""
    match precision:
        case "fp32":
            return _Rounding(logits=1e-4)
        case "fp16":
            return _Rounding(logits=2e-2, relative=2**-11, absolute=2**-24)
        case "bf16":
            return _Rounding(logits=BF16_TOLERANCE, relative=2**-8)
        case never:
            assert_never(never)


def torch_artefact_from_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    *,
    precision: FloatType = "fp16",
    lowering: LoweringName | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Artefact:
    """Export a checkpoint, sparse or dense, into the folder ``output``.

    Args:
        checkpoint: the model to export.
        output: the folder to write.
        precision: of the matrices and of all activations.
        lowering: the lowering to force on every matrix that has it; None chooses by pattern.
        overwrite: whether an artefact in ``output`` is replaced.
        progress: reports each step.

    Raises:
        NotWritten: ``output`` exists, or cannot be written.
        BadModel: the checkpoint has no tokenizer, or tensors that do not fit.
        BadSetting: the forced lowering fits no matrix.
        VerificationFailed: pattern or parity broke; nothing was written.
    """
    refuse_unready(checkpoint, output, overwrite=overwrite)
    steps = TorchExport(
        checkpoint=checkpoint,
        weights=read_weights(checkpoint),
        precision=precision,
        lowering=lowering,
    )
    return run_export(steps, output, progress=progress or Silent())


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchExport:
    """The steps of an export to a torch artefact (``exporters.pipeline.ExportSteps``).

    Attributes:
        choices: the lowering and kernel of each matrix, once chosen.
    """

    checkpoint: Checkpoint
    weights: ClassifierWeights
    precision: FloatType
    lowering: LoweringName | None
    choices: Mapping[str, TorchChoice] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """The tolerance of the precision."""
        return _rounding_of(self.precision).logits

    def choose_lowerings(self) -> Self:
        """Force the lowering that was asked for, or choose by pattern and shape."""
        return replace(
            self,
            choices=choose_torch_lowerings(
                self.checkpoint, self.weights, self.precision, self.lowering
            ),
        )

    def write_model(self, folder: Path, progress: Progress) -> Self:
        """Write the tensors, and the plan that makes a network of them."""
        tensors = tensors_of(self.weights, self.choices, self.precision)
        write_tensors(folder / TENSORS_FILE, tensors)
        write_plan(folder, plan_of(self.weights, self.choices, self.precision))
        return self

    def verify_weights(self, folder: Path) -> None:
        """Read the tensors back and compare each matrix with the checkpoint's.

        Raises:
            VerificationFailed: a matrix differs, or does not satisfy its pattern.
        """
        constants = read_constants(folder / TENSORS_FILE)
        rounding = _rounding_of(self.precision)
        for matrix in self.weights.encoder.matrices():
            restored_NK = self.choices[matrix.name].choice.lowering.restored(constants)
            weight_NK = self.weights.of(matrix)
            refuse_broken_pattern(self.checkpoint, matrix, restored_NK)
            error_NK = np.abs(restored_NK - weight_NK)
            if not bool(
                (error_NK <= rounding.relative * np.abs(weight_NK) + rounding.absolute).all()
            ):
                raise VerificationFailed(
                    f"{matrix.name} was not stored as it was",
                    got=f"a weight that is {float(error_NK.max()):.2g} off in {self.precision}",
                    fix="nothing was written; export in bf16 or fp32, which hold larger numbers",
                )

    def openers(self, folder: Path) -> Mapping[str, Callable[[], Session]]:
        """The artefact in PyTorch, on the CPU."""
        return {TENSORS_FILE: partial(TorchArtefactSession, folder, self.checkpoint.encoder)}

    def complete(self, folder: Path) -> None:
        """Write nothing more: tensors and plan are all that the format has."""

    def manifest(self, folder: Path, parity: Parity) -> Manifest:
        """The manifest; matrices for 2:4 tensor cores have the lowering ``2:4`` in it."""
        rows = matrix_rows(self.checkpoint, lowering_choices(self.choices))
        return manifest_of(
            self.checkpoint,
            format="torch",
            precision=self.precision,
            matrices=tuple(
                replace(row, lowering="2:4") if self.choices[row.name].kind == "2:4" else row
                for row in rows
            ),
            parity=parity,
            files=hashes_of(folder),
            runtime="torch",
            scores=dict(self.checkpoint.scores),
            versions=versions_of("torch", "triton"),
        )

    def select_runtime(self, artefact: Artefact) -> None:
        """Leave the manifest as it is: PyTorch alone runs the format."""
