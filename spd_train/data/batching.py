"""Rows to token ids, token ids to batches of similar length, batches to tensors.

Rows of similar length share a batch, so little of what is computed is padding.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spd_deploy.domain.long_texts import WindowPooling
from spd_deploy.domain.metrics import Label
from spd_deploy.domain.model_config import has_token_types
from spd_deploy.domain.text import Tokenizer, Tokens, pad
from spd_train.data.examples import Example

# Rows are sorted by length within sections of this many batches, so that the batches are still
# random: two rows share a batch in some epochs and not in others.
SECTION_BATCHES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTokens:
    """One example as token ids.

    Attributes:
        tokens: ids and token types.
        label: class index, the number of a regression, or a number for each label (as an
            ``Example`` has it); NaN if only the teacher can label the row.
    """

    tokens: Tokens
    label: Label


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBatch:
    """B rows padded to S tokens, with their labels: all rows of a step, or a micro-batch of it.

    A row is a text, or one window of a text that is read in windows. Windows of a text follow each
    other.

    Attributes:
        ids_BS: token ids.
        mask_BS: 1 at real tokens, 0 at padding.
        types_BS: token types.
        labels_B: labels of the texts in fp32; of several labels, or of soft ones, ``[B, C]``.
        step_rows, step_tokens: texts and real tokens of the whole step. A loss is a sum over the
            micro-batch divided by these, so the losses of all micro-batches add up to that of the
            step.
        windows: number of windows of each text; empty where every text is one row.
        pooling: how the logits of a text's windows become its own.
    """

    ids_BS: Tensor
    mask_BS: Tensor
    types_BS: Tensor
    labels_B: Tensor
    step_rows: int
    step_tokens: int
    windows: tuple[int, ...] = ()
    pooling: WindowPooling = WindowPooling.MEAN

    @property
    def real_share(self) -> float:
        """Share of the B x S padded tokens that is real, in (0, 1]."""
        return float(self.mask_BS.float().mean())

    def model_inputs(self, config: Any) -> dict[str, Tensor]:
        """Keyword arguments of a Transformers forward pass; labels are not among them.

        Args:
            config: the model's configuration. Token types are passed only to a model that has more
                than one.
        """
        inputs = {"input_ids": self.ids_BS, "attention_mask": self.mask_BS}
        if has_token_types(config):
            inputs["token_type_ids"] = self.types_BS
        return inputs

    def pooled(self, logits_BC: Tensor) -> Tensor:
        """The logits of each text, of those of its windows, as a server pools them."""
        if not self.windows:
            return logits_BC
        parts = torch.split(logits_BC.float(), list(self.windows))
        match self.pooling:
            case WindowPooling.MEAN:
                return torch.stack([part_WC.mean(0) for part_WC in parts])
            case WindowPooling.MAX:
                return torch.stack([part_WC.amax(0) for part_WC in parts])


def tokenise(examples: Sequence[Example], tokenizer: Tokenizer) -> list[LabelledTokens]:
    """The examples as token ids, of which the tokenizer cuts long ones or makes windows."""
    return [
        LabelledTokens(
            tokens=tokenizer.encode(example.text, example.pair),
            label=math.nan if example.label is None else example.label,
        )
        for example in examples
    ]


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Row indices of each batch of an epoch: every row once, rows of similar length together.

    The result depends on seed and epoch alone, so a resumed run sees the same batches. Only the
    last batch of a section may be smaller than ``batch_size``.

    Args:
        lengths: number of tokens of each row, in all its windows.
        batch_size: rows of a batch.
        seed: seed of the run.
        epoch: the epoch, from 0.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    batches: list[list[int]] = []
    section = batch_size * SECTION_BATCHES
    for start in range(0, len(order), section):
        rows = sorted(order[start : start + section].tolist(), key=lambda row: lengths[row])
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """The number of batches that :func:`epoch_batches` makes."""
    return -(-rows // batch_size)


def by_length(rows: Sequence[LabelledTokens], *, batch_size: int) -> list[list[int]]:
    """Row indices of batches for evaluation, the longest first: too little memory shows at once.

    A batch has no more windows than ``batch_size``, unless a single text has.
    """
    lengths = [row.tokens.n_read for row in rows]
    order = sorted(range(len(rows)), key=lambda row: -lengths[row])
    return bounded(order, window_counts(rows), batch_size)


def window_counts(rows: Sequence[LabelledTokens]) -> list[int]:
    """How many windows each row is read in; 1 where it is a row of a batch itself."""
    return [len(row.tokens.windows) for row in rows]


def bounded(order: Iterable[int], windows: Sequence[int], most: int) -> list[list[int]]:
    """Rows in groups, in order, of ``most`` windows together; a row with more is alone.

    Args:
        order: indices of rows.
        windows: how many windows each row of the data has.
        most: windows of a group.
    """
    groups: list[list[int]] = []
    room = 0
    for row in order:
        if windows[row] > room or not groups:
            groups.append([])
            room = most
        groups[-1].append(row)
        room -= windows[row]
    return groups


def batch_of(
    rows: Sequence[LabelledTokens],
    *,
    pad_id: int,
    device: str,
    step: Sequence[LabelledTokens] | None = None,
) -> TensorBatch:
    """The rows as tensors.

    Args:
        rows: the rows, at least one.
        pad_id: id of the padding token.
        device: device of the tensors.
        step: all rows of the step if ``rows`` are a part of it.
    """
    whole = rows if step is None else step
    batch = pad([window for row in rows for window in row.tokens.windows], pad_id=pad_id)
    counts = window_counts(rows)
    return TensorBatch(
        ids_BS=torch.from_numpy(batch.ids_BS).to(device),
        mask_BS=torch.from_numpy(batch.mask_BS).to(device),
        types_BS=torch.from_numpy(batch.types_BS).to(device),
        labels_B=labels_tensor([row.label for row in rows]).to(device),
        step_rows=len(whole),
        step_tokens=sum(row.tokens.n_read for row in whole),
        windows=tuple(counts) if len(batch) > len(rows) else (),
        pooling=rows[0].tokens.pooling,
    )


def labels_tensor(labels: Sequence[Label]) -> Tensor:
    """Labels in fp32: ``[B]``, or ``[B, C]`` if any row has a number for each of C labels.

    In the second case a class index becomes 1 for its class and 0 for the others.
    """
    width = max((len(label) for label in labels if isinstance(label, tuple)), default=0)
    if not width:
        return torch.tensor(labels, dtype=torch.float32)
    rows = [label if isinstance(label, tuple) else _one_hot(label, width) for label in labels]
    return torch.tensor(rows, dtype=torch.float32)


def _one_hot(label: float, width: int) -> tuple[float, ...]:
    """1 for the class and 0 for the others; NaN for all where the row has no label."""
    if math.isnan(label):
        return (math.nan,) * width
    return tuple(float(i == label) for i in range(width))
