"""Scores of a network on labelled rows: the task's metrics, and the loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spd_deploy.domain.metrics import Label, scores_of
from spd_deploy.domain.tasks import Task
from spd_train.data.batching import LabelledTokens, TensorBatch, batch_of, by_length, labels_tensor
from spd_train.training.losses import label_losses

Forward = Callable[[TensorBatch], Tensor]
SampleScores = dict[str, dict[str, float]]

# Largest number of training rows that are scored during training.
_SAMPLE_ROWS = 1000
_BATCH_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """The rows that are scored during training.

    Attributes:
        train: a sample of the training rows.
        holdout: the validation rows, taken from train; may be empty.
    """

    train: Sequence[LabelledTokens]
    holdout: Sequence[LabelledTokens]

    @classmethod
    def of(cls, train: Sequence[LabelledTokens], holdout: Sequence[LabelledTokens]) -> "Samples":
        """As many training rows as validation rows, at most 1000, the same ones every time."""
        count = min(len(train), len(holdout) or _SAMPLE_ROWS, _SAMPLE_ROWS)
        chosen = np.random.default_rng(0).choice(len(train), count, replace=False)
        return cls(train=[train[i] for i in sorted(chosen.tolist())], holdout=holdout)

    def parts(self) -> Mapping[str, Sequence[LabelledTokens]]:
        """The samples that have rows, by name."""
        named = {"train": self.train, "holdout": self.holdout}
        return {name: rows for name, rows in named.items() if rows}


def logits_of(
    forward: Forward, rows: Sequence[LabelledTokens], *, pad_id: int, device: str
) -> NDArray[np.float32]:
    """Logits ``[rows, C]`` in fp32, in the order of ``rows``.

    Args:
        forward: maps a batch to the logits of its texts ``[B, C]``, pooled over their windows.
        rows: the rows.
        pad_id: id of the padding token.
        device: device of the batches.
    """
    by_row: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for batch in by_length(rows, batch_size=_BATCH_ROWS):
            logits_BC = forward(batch_of([rows[i] for i in batch], pad_id=pad_id, device=device))
            by_row |= dict(zip(batch, logits_BC.float().cpu().numpy(), strict=True))
    return np.stack([by_row[i] for i in range(len(rows))])


def score_rows(
    forward: Forward, task: Task, rows: Sequence[LabelledTokens], *, pad_id: int, device: str
) -> dict[str, float]:
    """The task's metrics on ``rows``, and under ``loss`` the loss to their labels."""
    logits_BC = logits_of(forward, rows, pad_id=pad_id, device=device)
    labels = [row.label for row in rows]
    return {**scores_of(task, logits_BC, labels), "loss": _loss(task, logits_BC, labels)}


def _loss(task: Task, logits_BC: NDArray[np.float32], labels: Sequence[Label]) -> float:
    """The mean of :func:`label_losses`."""
    return float(label_losses(torch.from_numpy(logits_BC), labels_tensor(labels), task).mean())
