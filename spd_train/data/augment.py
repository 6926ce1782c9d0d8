"""Text pairs that nobody wrote, for the teacher to label: distillation needs no true labels.

Jiao et al., "TinyBERT", 2020, section 4.3, enlarge a training set with words that a language model
and word vectors propose. A pair needs neither: its second text is replaced by that of another row
of the same batch, so the lengths of a batch stay similar.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import groupby

import numpy as np

from spd_deploy.domain.text import Tokens
from spd_train.data.batching import LabelledTokens

# Separates these draws from the others of the same seed and step.
_STREAM = 0xA06


def mix_pairs(
    rows: Sequence[LabelledTokens],
    share: float,
    *,
    special_ids: Set[int],
    seed: int,
    step: int,
) -> Sequence[LabelledTokens]:
    """The rows of a step; a share of its pairs gets the second text of another row.

    The result depends on the arguments alone, so a resumed run and every process see the same rows.
    A second text is cut so that no row is longer than the longest row was. A changed row has the
    label NaN. Pairs that are read in windows are not mixed.

    Args:
        rows: all rows of the step, over all processes and micro-batches.
        share: share of the pairs, in [0, 1]; single texts stay as they are.
        special_ids: ids of the tokens that mark the start and the end of a text.
        seed: seed of the run.
        step: the step, from 0.
    """
    if share == 0:
        return rows
    spans = [_second_text(row.tokens, special_ids) for row in rows]
    pairs = [i for i, span in enumerate(spans) if span is not None]
    if not pairs:
        return rows
    draw = np.random.default_rng([seed, step, _STREAM])
    longest = max(len(row.tokens) for row in rows)
    mixed = list(rows)
    for i in pairs:
        other = pairs[draw.integers(len(pairs))]
        if draw.random() < share and other != i:
            (span, theirs) = spans[i], spans[other]
            assert span is not None and theirs is not None  # noqa: S101 - both are pairs
            tokens = _with_second(rows[i].tokens, span, rows[other].tokens.ids[theirs], longest)
            mixed[i] = LabelledTokens(tokens=tokens, label=math.nan)
    return mixed


def _with_second(tokens: Tokens, span: slice, second: tuple[int, ...], longest: int) -> Tokens:
    """The tokens with another second text at ``span``, cut so that ``longest`` is kept."""
    before, after = tokens.ids[: span.start], tokens.ids[span.stop :]
    second = second[: longest - len(before) - len(after)]
    types = tokens.types
    return replace(
        tokens,
        ids=before + second + after,
        types=types[: span.start] + types[span][:1] * len(second) + types[span.stop :],
    )


def _second_text(tokens: Tokens, special_ids: Set[int]) -> slice | None:
    """The positions of the second of exactly two texts; None if there are not two, or windows."""
    if tokens.overflowing:
        return None
    runs = groupby(range(len(tokens)), key=lambda i: tokens.ids[i] in special_ids)
    texts = [list(positions) for is_special, positions in runs if not is_special]
    return slice(texts[1][0], texts[1][-1] + 1) if len(texts) == 2 else None
