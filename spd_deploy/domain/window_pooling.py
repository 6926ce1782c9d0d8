"""The logits of a text, of those of its windows.

Logits are pooled, and not probabilities. The logits of a calibrated model are divided by its
temperature, and mean and maximum of logits stay the same whether that comes before or after them.
The pooled logits then go the way of any other: activation, thresholds, the bound to abstain.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.long_texts import WindowPooling


def pooled(logits_WC: NDArray[np.float32], pooling: WindowPooling) -> NDArray[np.float32]:
    """The logits ``[C]`` of a text, of those of its windows; those of one window are kept."""
    if len(logits_WC) == 1:
        return np.asarray(logits_WC[0])
    match pooling:
        case WindowPooling.MEAN:
            return np.asarray(logits_WC.mean(axis=0, dtype=np.float64), np.float32)
        case WindowPooling.MAX:
            return np.asarray(logits_WC.max(axis=0))


def pooled_rows(
    logits_WC: NDArray[np.float32], counts: Sequence[int], pooling: WindowPooling
) -> NDArray[np.float32]:
    """The logits ``[B, C]`` of texts whose windows follow each other; ``counts`` add up to W."""
    ends = np.cumsum(counts)[:-1]
    return np.stack([pooled(part, pooling) for part in np.split(logits_WC, ends)])
