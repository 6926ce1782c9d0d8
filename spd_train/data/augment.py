"""Texts that nobody wrote, for the teacher to answer: distillation needs no labels.

Jiao et al., "TinyBERT", 2020, section 4.3, enlarge a training set by the words that a language
model and word vectors propose. Here words and second texts come from the other rows of the same
batch: no other model is needed, words are as frequent as the task has them, and a batch of like
lengths stays one.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import groupby

import numpy as np

from spd_deploy.domain.text import Tokens
from spd_train.data.batches import LabelledTokens
from spd_train.recipe import AugmentRecipe

# Keeps these draws apart from the others that are made from seed and step.
_STREAM = 0xA06


def augmented(
    rows: Sequence[LabelledTokens],
    recipe: AugmentRecipe,
    *,
    special_ids: Set[int],
    seed: int,
    step: int,
) -> Sequence[LabelledTokens]:
    """The rows of a step with pairs mixed and words swapped; no row is longer than the longest was.

    A pure function of its arguments: a resumed run and every process see the same texts. A row
    that was changed has no label any more (NaN).

    Args:
        rows: the whole step's, over all processes and parts.
        recipe: how much is changed.
        special_ids: of the tokens that mark where texts begin and end; they stay where they are.
        seed: the run's.
        step: counted from 0.
    """
    if not recipe.is_on:
        return rows
    draw = np.random.default_rng([seed, step, _STREAM])
    texts = [row.tokens for row in rows]
    found = _swapped(_mixed(texts, recipe.mix, special_ids, draw), recipe.swap, special_ids, draw)
    return [
        row if tokens == row.tokens else LabelledTokens(tokens=tokens, label=math.nan)
        for row, tokens in zip(rows, found, strict=True)
    ]


def _mixed(
    texts: Sequence[Tokens], share: float, special_ids: Set[int], draw: np.random.Generator
) -> Sequence[Tokens]:
    """Pairs of which a share has another row's second text, cut where it would be too long."""
    places = [_second_text(tokens, special_ids) for tokens in texts]
    pairs = [i for i, place in enumerate(places) if place is not None]
    longest = max(map(len, texts))
    found = list(texts)
    for i in pairs:
        other = pairs[draw.integers(len(pairs))]
        if draw.random() >= share:
            continue
        (start, stop), (first, last) = places[i], places[other]  # type: ignore[misc]
        room = longest - (len(texts[i]) - (stop - start))
        second = texts[other].ids[first:last][:room]
        ids, types = texts[i].ids, texts[i].types
        found[i] = replace(
            texts[i],
            ids=ids[:start] + second + ids[stop:],
            types=types[:start] + (types[start],) * len(second) + types[stop:],
        )
    return found


def _swapped(
    texts: Sequence[Tokens], share: float, special_ids: Set[int], draw: np.random.Generator
) -> Sequence[Tokens]:
    """Texts of which a share of the word pieces is drawn from all pieces of the batch."""
    pieces = [i for tokens in texts for i in tokens.ids if i not in special_ids]
    if not pieces:
        return texts
    found = []
    for tokens in texts:
        chosen = draw.random(len(tokens)) < share
        drawn = draw.integers(len(pieces), size=len(tokens))
        ids = tuple(
            pieces[new] if swap and old not in special_ids else old
            for old, swap, new in zip(tokens.ids, chosen, drawn, strict=True)
        )
        found.append(replace(tokens, ids=ids))
    return found


def _second_text(tokens: Tokens, special_ids: Set[int]) -> tuple[int, int] | None:
    """Where the second of exactly two texts begins and ends; None where there are not two."""
    runs = groupby(range(len(tokens)), key=lambda i: tokens.ids[i] in special_ids)
    texts = [list(places) for is_special, places in runs if not is_special]
    return (texts[1][0], texts[1][-1] + 1) if len(texts) == 2 else None
