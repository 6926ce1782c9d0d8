"""How well a network does on rows: its logits in their order, and the task's metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spd_deploy.domain.metrics import scores_of
from spd_deploy.domain.tasks import Task
from spd_train.data.batches import LabelledTokens, by_length
from spd_train.data.tensors import TensorBatch, batch_of

Forward = Callable[[TensorBatch], Tensor]

SAMPLE_ROWS = 1000
_BATCH_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """The rows that the curves of a run are measured on: samples of train and of dev."""

    train: Sequence[LabelledTokens]
    dev: Sequence[LabelledTokens]


def sample(rows: Sequence[LabelledTokens], *, seed: int) -> list[LabelledTokens]:
    """At most ``SAMPLE_ROWS`` rows, the same ones for the same seed."""
    if len(rows) <= SAMPLE_ROWS:
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), SAMPLE_ROWS, replace=False)
    return [rows[i] for i in sorted(chosen.tolist())]


def logits_for(
    forward: Forward, rows: Sequence[LabelledTokens], *, pad_id: int, device: str
) -> NDArray[np.float32]:
    """Logits ``[rows, C]`` in the order of ``rows``, in fp32."""
    found: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for batch in by_length([len(row.tokens) for row in rows], batch_size=_BATCH_ROWS):
            logits_BC = forward(batch_of([rows[i] for i in batch], pad_id=pad_id, device=device))
            found |= dict(zip(batch, logits_BC.float().cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(rows))])


def score_rows(
    forward: Forward, task: Task, rows: Sequence[LabelledTokens], *, pad_id: int, device: str
) -> dict[str, float]:
    """The task's metrics on ``rows``."""
    logits_BC = logits_for(forward, rows, pad_id=pad_id, device=device)
    return scores_of(task, logits_BC, [row.label for row in rows])
