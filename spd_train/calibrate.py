"""Temperature scaling of a classifier: fitted on rows that it was not trained on, kept in its head.

The last layer of the head is divided by the temperature. What reads the weights, here or elsewhere,
then gives calibrated scores. A student is distilled from logits as they were trained, so the head
of a calibrated teacher is multiplied by its temperature first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.calibration_error import Reliability
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.metrics import truth_of
from spd_deploy.domain.models.known import ARCHITECTURES
from spd_deploy.domain.plot_style import save_png
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import (
    FittedTemperature,
    TemperatureScaling,
    calibration_of_answers,
    fit_temperature,
)
from spd_train.data.batching import LabelledTokens
from spd_train.plots.reliability import reliability_figure
from spd_train.training.scoring import Forward, logits_of


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredRows:
    """The answers of a model to labelled rows.

    Attributes:
        logits_BC: the answers.
        truth: index of the true label of each row; of a multi-label task ``[B, C]``.
    """

    logits_BC: NDArray[np.float32]
    truth: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        forward: Forward,
        task: Task,
        rows: Sequence[LabelledTokens],
        *,
        pad_id: int,
        device: str,
    ) -> "AnsweredRows":
        """The answers of ``forward``, which maps a batch to logits, to at least one row."""
        logits_BC = logits_of(forward, rows, pad_id=pad_id, device=device)
        return cls(logits_BC=logits_BC, truth=truth_of(task, [row.label for row in rows]))

    @classmethod
    def joined(cls, parts: Iterable["AnsweredRows"]) -> "AnsweredRows":
        """The rows of all parts, one after another."""
        logits, truth = zip(*((part.logits_BC, part.truth) for part in parts), strict=True)
        return cls(logits_BC=np.concatenate(logits), truth=np.concatenate(truth))

    def temperature(self, task: Task) -> FittedTemperature:
        """The temperature that fits the rows."""
        return fit_temperature(task, self.logits_BC, self.truth)

    def calibration(
        self, task: Task, fitted: FittedTemperature, *, split: str, before: float = 1.0
    ) -> TemperatureScaling:
        """The errors before and after, as ``calibration_of_answers`` measures them."""
        return calibration_of_answers(
            task, self.logits_BC, self.truth, fitted, split=split, before=before
        )

    def draw(
        self, task: Task, found: TemperatureScaling, file: Path, *, before: float = 1.0
    ) -> None:
        """Draw the reliability before and after; the answers are of the model before."""
        trained = self.logits_BC * before
        panels = [
            (f"{name}: calibration error {error.expected:.3f}", reliability)
            for name, error, reliability in (
                ("as trained", found.before, self._reliability(task, trained)),
                (
                    f"temperature {found.temperature:.2f}",
                    found.after,
                    self._reliability(task, trained / found.temperature),
                ),
            )
        ]
        save_png(reliability_figure(f"{task.name}, {found.split}", panels), file)

    def _reliability(self, task: Task, logits_BC: NDArray[np.floating]) -> Reliability:
        """Confidence and accuracy by bin."""
        return Reliability.of(scores_from(task, logits_BC), self.truth)


def scaled_head(state: Mapping[str, Tensor], encoder: Encoder, factor: float) -> dict[str, Tensor]:
    """A classifier's tensors, its logits multiplied by a factor: weight and bias of the last layer.

    Args:
        state: the tensors by name.
        encoder: tells the architecture, and so what the last layer is called.
        factor: above 0; 1 changes no bit.
    """
    scaled = {name: state[name] * factor for name in _head_tensors(encoder) if name in state}
    return {**state, **scaled}


def scale_head(model: nn.Module, encoder: Encoder, factor: float) -> None:
    """Multiply a model's logits by a factor, in place."""
    with torch.no_grad():
        for parameter in head_parameters(model, encoder).values():
            parameter.mul_(factor)


def head_parameters(model: nn.Module, encoder: Encoder) -> dict[str, nn.Parameter]:
    """``weight`` and ``bias`` of the layer that gives the logits, as far as it has them."""
    parameters = dict(model.named_parameters())
    names = _head_tensors(encoder)
    return {n.rpartition(".")[2]: parameters[n] for n in names if n in parameters}


def _head_tensors(encoder: Encoder) -> tuple[str, str]:
    """The tensors of the layer that gives the logits."""
    layer = ARCHITECTURES[encoder.base].head[-1].name
    return f"{layer}.weight", f"{layer}.bias"
