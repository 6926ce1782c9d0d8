"""Pairs that are made up of a batch's own: what may change, what may not, and from what."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer, Tokens
from spd_train.data.augment import mix_pairs
from spd_train.data.batching import LabelledTokens
from tests.tiny import tiny_tokenizer

CLS, SEP = 2, 3
SPECIAL = frozenset({CLS, SEP})
PIECES = st.lists(st.integers(5, 60), min_size=1, max_size=9)
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


def made(rows: Sequence[LabelledTokens], share: float, step: int = 3) -> Sequence[LabelledTokens]:
    """The rows as they are trained on at a step."""
    return mix_pairs(rows, share, special_ids=SPECIAL, seed=1, step=step)


@given(texts=PAIRS, share=SHARES)
def test_second_texts_alone_change(texts: list[tuple[list[int], list[int]]], share: float) -> None:
    """Each row keeps its first text and gets the beginning of some row's second, types to match."""
    rows = [pair(*text) for text in texts]
    longest = max(len(row.tokens) for row in rows)

    found = made(rows, share)

    for (first, _), new in zip(texts, found, strict=True):
        start = len(first) + 2
        second = list(new.tokens.ids[start:-1])
        assert new.tokens.ids[:start] == (CLS, *first, SEP) and new.tokens.ids[-1] == SEP
        assert second and any(second == other[: len(second)] for _, other in texts)
        assert new.tokens.types == (0,) * start + (1,) * (len(second) + 1)
        assert len(new.tokens) <= longest


@given(texts=PAIRS, share=SHARES)
def test_only_what_is_as_it_was_keeps_its_label(
    texts: list[tuple[list[int], list[int]]], share: float
) -> None:
    """A pair that nobody labelled has no label: NaN, which no loss could hide."""
    rows = [pair(*text) for text in texts]

    for row, new in zip(rows, made(rows, share), strict=True):
        assert new is row or new.label is math.nan


@given(texts=PAIRS, share=SHARES)
def test_the_pairs_of_a_step_are_a_function_of_the_step(
    texts: list[tuple[list[int], list[int]]], share: float
) -> None:
    """Asked again the same pairs come, so that resumed runs and other processes have them too."""
    rows = [pair(*text) for text in texts]

    first, again = (made(rows, share) for _ in range(2))

    assert [row.tokens for row in first] == [row.tokens for row in again]


@given(texts=st.lists(PIECES, min_size=1, max_size=8), share=SHARES)
def test_single_texts_stay(texts: list[list[int]], share: float) -> None:
    """What has no second text is trained on as it is."""
    rows = [single(text) for text in texts]

    assert made(rows, share) is rows


def test_the_share_is_kept_on_average() -> None:
    """Of many pairs about as many change as the share says; another step changes others."""
    rows = [pair([5, 6, 7], [100 + i]) for i in range(400)]

    found = made(rows, 0.3)

    assert sum(row.label is math.nan for row in found) / 400 == pytest.approx(0.3, abs=0.06)
    assert [r.tokens for r in made(rows, 0.3, step=4)] != [r.tokens for r in found]


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_second_texts_are_found_by_the_marks_of_each_tokenizer(
    tmp_path: Path, architecture: str
) -> None:
    """With BERT's one mark between two texts and RoBERTa's two, made-up pairs are pairs encoded."""
    file = tmp_path / TOKENIZER_FILE
    file.write_text(tiny_tokenizer(architecture))
    tokenizer = Tokenizer(file, max_tokens=32)
    texts = [("a good film", "the bus"), ("the bus was", "a film"), ("film is it", "bad bus")]
    rows = [LabelledTokens(tokens=tokenizer.encode(*text), label=0.0) for text in texts]
    expected = {tokenizer.encode(first, second).ids for first, _ in texts for _, second in texts}

    found = {
        row.tokens.ids
        for step in range(60)
        for row in mix_pairs(rows, 1.0, special_ids=tokenizer.special_ids, seed=0, step=step)
    }

    assert found == expected
