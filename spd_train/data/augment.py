"""Pairs that nobody wrote, for the teacher to answer: distillation needs no labels.

Jiao et al., "TinyBERT", 2020, section 4.3, enlarge a training set by words that a language model
and word vectors propose. A pair can be had without either: with the second text of another row of
the same batch, which keeps a batch of like lengths one. The teacher says how the two go together.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import groupby

import numpy as np

from spd_deploy.domain.text import Tokens
from spd_train.data.batching import LabelledTokens

# Keeps these draws apart from the others that are made from seed and step.
_STREAM = 0xA06


def mixed(
    rows: Sequence[LabelledTokens],
    share: float,
    *,
    special_ids: Set[int],
    seed: int,
    step: int,
) -> Sequence[LabelledTokens]:
    """The rows of a step, of whose pairs a share got the second text of another row.

    A pure function of its arguments: a resumed run and every process see the same texts. No row is
    longer than the longest was: a second text is cut to that. A row that was changed has no label
    any more (NaN).

    Args:
        rows: the whole step's, over all processes and parts.
        share: of the pairs, in [0, 1]; single texts stay as they are.
        special_ids: of the tokens that mark where texts begin and end.
        seed: the run's.
        step: counted from 0.
    """
    if share == 0:
        return rows
    places = [_second_text(row.tokens, special_ids) for row in rows]
    pairs = [i for i, place in enumerate(places) if place is not None]
    if not pairs:
        return rows
    draw = np.random.default_rng([seed, step, _STREAM])
    longest = max(len(row.tokens) for row in rows)
    found = list(rows)
    for i in pairs:
        other = pairs[draw.integers(len(pairs))]
        if draw.random() < share and other != i:
            (place, theirs) = places[i], places[other]
            assert place is not None and theirs is not None  # noqa: S101 - both are pairs
            tokens = _with_second(rows[i].tokens, place, rows[other].tokens.ids[theirs], longest)
            found[i] = LabelledTokens(tokens=tokens, label=math.nan)
    return found


def _with_second(tokens: Tokens, place: slice, second: tuple[int, ...], longest: int) -> Tokens:
    """The tokens with another second text in its ``place``, as much of it as there is room for."""
    before, after = tokens.ids[: place.start], tokens.ids[place.stop :]
    second = second[: longest - len(before) - len(after)]
    types = tokens.types
    return replace(
        tokens,
        ids=before + second + after,
        types=types[: place.start] + types[place][:1] * len(second) + types[place.stop :],
    )


def _second_text(tokens: Tokens, special_ids: Set[int]) -> slice | None:
    """Where the second of exactly two texts stands; None where there are not two."""
    runs = groupby(range(len(tokens)), key=lambda i: tokens.ids[i] in special_ids)
    texts = [list(places) for is_special, places in runs if not is_special]
    return slice(texts[1][0], texts[1][-1] + 1) if len(texts) == 2 else None
