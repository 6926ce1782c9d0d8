"""Texts that are made up of a batch's own: what may change, what may not, and from what."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer, Tokens
from spd_train.data.augment import augmented
from spd_train.data.batches import LabelledTokens
from spd_train.recipe import AugmentRecipe
from tests.tiny import tiny_tokenizer

CLS, SEP = 2, 3
SPECIAL = frozenset({CLS, SEP})
PIECES = st.lists(st.integers(5, 60), min_size=1, max_size=9)
SINGLES = st.lists(PIECES, min_size=1, max_size=8)
PAIRS = st.lists(st.tuples(PIECES, PIECES), min_size=1, max_size=8)
SHARES = st.floats(0, 1)


def single(first: Sequence[int]) -> LabelledTokens:
    """One text as BERT reads it."""
    ids = (CLS, *first, SEP)
    return LabelledTokens(tokens=Tokens(ids=ids, types=(0,) * len(ids)), label=1.0)


def pair(first: Sequence[int], second: Sequence[int]) -> LabelledTokens:
    """Two texts as BERT reads them."""
    ids = (CLS, *first, SEP, *second, SEP)
    types = (0,) * (len(first) + 2) + (1,) * (len(second) + 1)
    return LabelledTokens(tokens=Tokens(ids=ids, types=types), label=1.0)


def made(
    rows: Sequence[LabelledTokens], *, swap: float = 0.0, mix: float = 0.0, step: int = 3
) -> Sequence[LabelledTokens]:
    """The rows as they are trained on at a step."""
    recipe = AugmentRecipe(swap=swap, mix=mix)
    return augmented(rows, recipe, special_ids=SPECIAL, seed=1, step=step)


@given(texts=SINGLES, swap=SHARES, mix=SHARES)
def test_swapping_replaces_pieces_by_pieces_of_the_batch(
    texts: list[list[int]], swap: float, mix: float
) -> None:
    """Single texts keep length, types and marks, whatever the shares; no piece comes from afar."""
    rows = [single(text) for text in texts]
    known = {piece for text in texts for piece in text}

    found = made(rows, swap=swap, mix=mix)

    for row, new in zip(rows, found, strict=True):
        assert new.tokens.types == row.tokens.types
        assert (new.tokens.ids[0], new.tokens.ids[-1]) == (CLS, SEP)
        assert set(new.tokens.ids[1:-1]) <= known


@given(texts=PAIRS, mix=SHARES)
def test_mixing_changes_second_texts_alone(
    texts: list[tuple[list[int], list[int]]], mix: float
) -> None:
    """Each row keeps its first text and gets the beginning of some row's second, types to match."""
    rows = [pair(*text) for text in texts]
    longest = max(len(row.tokens) for row in rows)

    found = made(rows, mix=mix)

    for (first, _), new in zip(texts, found, strict=True):
        start = len(first) + 2
        second = list(new.tokens.ids[start:-1])
        assert new.tokens.ids[:start] == (CLS, *first, SEP) and new.tokens.ids[-1] == SEP
        assert second and any(second == other[: len(second)] for _, other in texts)
        assert new.tokens.types == (0,) * start + (1,) * (len(second) + 1)
        assert len(new.tokens) <= longest


@given(texts=PAIRS, swap=SHARES, mix=SHARES)
def test_only_what_is_as_it_was_keeps_its_label(
    texts: list[tuple[list[int], list[int]]], swap: float, mix: float
) -> None:
    """A text that nobody labelled has no label: NaN, which no loss could hide."""
    rows = [pair(*text) for text in texts]

    for row, new in zip(rows, made(rows, swap=swap, mix=mix), strict=True):
        assert new == row if new.tokens == row.tokens else math.isnan(new.label)


@given(texts=PAIRS, swap=SHARES, mix=SHARES)
def test_the_texts_of_a_step_are_a_function_of_the_step(
    texts: list[tuple[list[int], list[int]]], swap: float, mix: float
) -> None:
    """Asked again the same texts come, so that resumed runs and other processes have them too."""
    rows = [pair(*text) for text in texts]

    first, again = (made(rows, swap=swap, mix=mix) for _ in range(2))

    assert [row.tokens for row in first] == [row.tokens for row in again]


def test_no_share_is_no_change() -> None:
    """With both shares 0 the rows themselves come back."""
    rows = [pair([5, 6], [7])]

    assert made(rows) is rows


def test_shares_are_kept_on_average() -> None:
    """Of many pieces and pairs, about as many change as the shares say; other steps, others."""
    rows = [
        pair(range(100 + 40 * i, 120 + 40 * i), range(120 + 40 * i, 140 + 40 * i))
        for i in range(64)
    ]

    swapped, mixed = made(rows, swap=0.2), made(rows, mix=0.5)

    changed = sum(
        old != new
        for row, other in zip(rows, swapped, strict=True)
        for old, new in zip(row.tokens.ids, other.tokens.ids, strict=True)
    )
    assert changed / (64 * 40) == pytest.approx(0.2, abs=0.03)
    assert sum(math.isnan(row.label) for row in mixed) / 64 == pytest.approx(0.5, abs=0.15)
    assert made(rows, swap=0.2, step=4) != swapped


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_second_texts_are_found_by_the_marks_of_each_tokenizer(
    tmp_path: Path, architecture: str
) -> None:
    """With BERT's one mark between two texts and RoBERTa's two, mixed pairs are pairs encoded."""
    file = tmp_path / TOKENIZER_FILE
    file.write_text(tiny_tokenizer(architecture))
    tokenizer = Tokenizer(file, max_tokens=32)
    texts = [("a good film", "the bus"), ("the bus", "good"), ("film", "a bad bus")]
    rows = [LabelledTokens(tokens=tokenizer.encode(*text), label=0.0) for text in texts]
    possible = {tokenizer.encode(a, b).ids for a, _ in texts for _, b in texts}

    recipe = AugmentRecipe(mix=1.0)
    found = [
        row
        for step in range(20)
        for row in augmented(rows, recipe, special_ids=tokenizer.special_ids, seed=0, step=step)
    ]

    uncut = {row.tokens.ids for row in found} & possible
    assert len(uncut) > len(texts)
    assert len(tokenizer.special_ids) == 2
