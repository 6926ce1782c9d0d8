"""The logits of a text, of those of its windows.

Logits are pooled, and not probabilities. The logits of a calibrated model are divided by its
temperature, and mean and maximum of logits stay the same whether that comes before or after them.
The pooled logits then go the way of any other: activation, thresholds, the bound to abstain; those
of a regression are its number. The mean of probabilities gave the same labels on texts put together
of SST-2's sentences, but for chance, and was less sure of itself where sentences disagreed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.long_texts import WindowPooling
from spd_deploy.domain.text import Tokens


def pooled(logits_WC: NDArray[np.float32], pooling: WindowPooling) -> NDArray[np.float32]:
    """The logits ``[C]`` of a text, of those of its windows; those of one window are kept."""
    if len(logits_WC) == 1:
        return np.asarray(logits_WC[0])
    match pooling:
        case WindowPooling.MEAN:
            return np.asarray(logits_WC.mean(axis=0, dtype=np.float64), np.float32)
        case WindowPooling.MAX:
            return np.asarray(logits_WC.max(axis=0))


def pooled_rows(logits_WC: NDArray[np.float32], rows: Sequence[Tokens]) -> NDArray[np.float32]:
    """The logits ``[B, C]`` of rows, of those of all their windows, which follow each other."""
    if len(logits_WC) == len(rows):
        return logits_WC
    ends = np.cumsum([len(row.windows) for row in rows])[:-1]
    parts = zip(np.split(logits_WC, ends), rows, strict=True)
    return np.stack([pooled(part_WC, row.pooling) for part_WC, row in parts])
