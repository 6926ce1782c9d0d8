"""Batches as tensors on the device that trains."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spd_deploy.domain.text import pad
from spd_train.data.batches import LabelledTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBatch:
    """B rows padded to S tokens, with their labels: all of a step's batch, or a part of it.

    Attributes:
        step_rows, step_tokens: rows and real tokens of the whole step. Losses are sums over the
            part divided by these, so the parts' losses add up to the whole step's, whatever
            processes and accumulation split it into.
    """

    ids_BS: Tensor
    mask_BS: Tensor
    types_BS: Tensor
    labels_B: Tensor
    step_rows: int
    step_tokens: int

    @property
    def real_share(self) -> float:
        """Share of the padded tokens that is real."""
        return float(self.mask_BS.float().mean())


def batch_of(
    rows: Sequence[LabelledTokens],
    *,
    pad_id: int,
    device: str,
    step: Sequence[LabelledTokens] | None = None,
) -> TensorBatch:
    """The rows as one batch on ``device``; ``step`` is the whole that they are a part of."""
    whole = rows if step is None else step
    batch = pad([row.tokens for row in rows], pad_id=pad_id)
    return TensorBatch(
        ids_BS=torch.from_numpy(batch.ids_BS).to(device),
        mask_BS=torch.from_numpy(batch.mask_BS).to(device),
        types_BS=torch.from_numpy(batch.types_BS).to(device),
        labels_B=torch.tensor([row.label for row in rows], dtype=torch.float32, device=device),
        step_rows=len(whole),
        step_tokens=sum(len(row.tokens) for row in whole),
    )
