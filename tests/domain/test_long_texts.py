"""Long texts in windows: against the tokenizers library, brute force, and the laws of pooling."""

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding
from tokenizers import Tokenizer as Fast

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.errors import BadSetting, OptionConflict
from spd_deploy.domain.long_texts import (
    LongTextChoice,
    LongTexts,
    TextWindows,
    WindowPooling,
    spans_of,
)
from spd_deploy.domain.tasks import task_named
from spd_deploy.domain.text import Side, Tokenizer, Tokens
from spd_deploy.domain.window_pooling import pooled, pooled_rows
from tests.tiny import WORDS, tiny_tokenizer

MAX_TOKENS = 12
CONTENT = tiny_tokenizer()
WHOLE = Tokenizer(Path("none"), max_tokens=MAX_TOKENS, content=CONTENT)


def library(stride: int, side: Side, strategy: str) -> Fast:
    """The tokenizers library as Transformers uses it for ``return_overflowing_tokens``."""
    fast = Fast.from_str(CONTENT)
    fast.enable_truncation(MAX_TOKENS, stride=stride, strategy=strategy, direction=side.value)
    return fast


def ids_of(row: Encoding | Tokens) -> list[tuple[list[int], list[int]]]:
    """Ids and types of every window."""
    if isinstance(row, Tokens):
        return [(list(one.ids), list(one.types)) for one in row.windows]
    return [(one.ids, one.type_ids) for one in (row, *row.overflowing)]


@settings(max_examples=60, deadline=None)
@given(
    words=st.integers(0, 60),
    stride=st.integers(0, MAX_TOKENS - 3),
    side=st.sampled_from(Side),
)
def test_windows_are_those_of_return_overflowing_tokens(
    words: int, stride: int, side: Side
) -> None:
    """A text alone has the library's windows, in its order; one that fits stays as it is."""
    text = " ".join((WORDS.split() * 9)[:words])
    ours = WHOLE.in_windows(TextWindows(stride=stride, most=99), pairs=False)

    found = ours.encode(text, side=side)

    assert ids_of(found) == ids_of(library(stride, side, "only_first").encode(text))
    assert found.dropped == 0 and found.n_whole == words + 2
    if not found.overflowing:
        assert found == WHOLE.encode(text, side=side)


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(0, 30),
    second=st.integers(0, 30),
    stride=st.integers(0, 3),
    side=st.sampled_from(Side),
)
def test_the_longer_text_of_a_pair_is_read_in_windows(
    first: int, second: int, stride: int, side: Side
) -> None:
    """The shorter stands whole in each window as in question answering, or its half of the room."""
    half = (MAX_TOKENS - 3) // 2
    words = WORDS.split() * 9
    shown = [first, second]
    shorter = 0 if first <= second else 1
    if first + second > MAX_TOKENS - 3:
        shown[shorter] = min(shown[shorter], half)
    texts = [words[:first], words[3 : 3 + second]]
    short = [
        text[:count] if side is Side.RIGHT else text[len(text) - count :]
        for text, count in zip(texts, shown, strict=True)
    ]
    ours = WHOLE.in_windows(TextWindows(stride=stride, most=99), pairs=True)

    found = ours.encode(" ".join(texts[0]), " ".join(texts[1]), side=side)

    strategy = "only_second" if shorter == 0 else "only_first"
    theirs = library(stride, side, strategy).encode(" ".join(short[0]), " ".join(short[1]))
    assert ids_of(found) == ids_of(theirs)
    assert (found.dropped, found.n_whole) == (first + second - sum(shown), first + second + 3)


def test_many_texts_have_the_windows_of_each_alone() -> None:
    """Texts alone and pairs are encoded together as one by one."""
    some = [" ".join(WORDS.split()[:count]) for count in (0, 3, 11, 24)]
    ours = WHOLE.in_windows(TextWindows(), pairs=True)

    for texts in ([(text, None) for text in some], [(text, text[4:]) for text in some]):
        assert ours.encode_all(texts) == [ours.encode(*both) for both in texts]


def test_what_is_behind_the_last_window_is_dropped() -> None:
    """Of a text with more windows than it may have the end that is cut off elsewhere is counted."""
    text = " ".join(WORDS.split()[:28])
    ours = WHOLE.in_windows(TextWindows(stride=2, most=2), pairs=False)

    right, left = ours.encode(text), ours.encode(text, side=Side.LEFT)

    assert (len(right.windows), right.dropped) == (2, 28 - 18)
    assert (len(left.windows), left.dropped) == (2, 28 - 18)
    assert right.windows[0].ids == WHOLE.encode(text).ids
    assert left.windows[0].ids == WHOLE.encode(text, side=Side.LEFT).ids


@given(tokens=st.integers(0, 200), room=st.integers(1, 40), stride=st.integers(0, 39), left=...)
def test_spans_cover_a_text_and_share_the_stride(
    tokens: int, room: int, stride: int, left: bool
) -> None:
    """Every token is in a window, neighbours share ``stride`` tokens, and none is in another."""
    stride = min(stride, room - 1)
    spans = spans_of(tokens, room, stride, from_left=left)

    assert set().union(*spans) == set(range(tokens))
    assert all(len(span) == room for span in spans[:-1]) and len(spans[-1]) <= room
    for one, other in pairwise(spans):
        assert len(set(one) & set(other)) == stride
    assert len(spans) == 1 or not set(spans[-1]) <= set().union(*spans[:-1])


@given(
    st.lists(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), min_size=1, max_size=6)
)
def test_a_temperature_before_pooling_is_one_after_it(rows: list[list[float]]) -> None:
    """The law by which logits are pooled: calibrated logits pool to the calibrated pooled ones."""
    logits_WC = np.array(rows, np.float32)

    for pooling in WindowPooling:
        after = pooled(logits_WC, pooling) / np.float32(2.5)
        before = pooled(logits_WC / np.float32(2.5), pooling)
        np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-6)
    mean = scores_from(task_named("mnli"), pooled(logits_WC, WindowPooling.MEAN)[None])
    geometric = np.exp(np.log(scores_from(task_named("mnli"), logits_WC)).mean(0))
    np.testing.assert_allclose(mean[0], geometric / geometric.sum(), rtol=1e-4)


def test_rows_are_pooled_text_by_text() -> None:
    """Windows of one text do not reach another, and a single window keeps its bits."""
    logits_WC = np.array([[1.0, 5.0], [3.0, 2.0], [0.1, 0.2]], np.float32)

    one = Tokens(ids=(1,), types=(0,))
    mean, most = (
        pooled_rows(logits_WC, [replace(one, overflowing=(one,), pooling=pooling), one])
        for pooling in WindowPooling
    )

    assert mean.tolist() == [[2.0, 3.5], logits_WC[2].tolist()]
    assert most.tolist() == [[3.0, 5.0], logits_WC[2].tolist()]


def test_the_default_stride_is_a_quarter_that_fits() -> None:
    """It is a quarter of the longest input, less where a pair leaves a text less room."""
    short = Tokenizer(Path("none"), max_tokens=6, content=CONTENT)

    assert WHOLE.in_windows(TextWindows(), pairs=True).windows == TextWindows(stride=3)
    assert short.in_windows(TextWindows(), pairs=False).windows == TextWindows(stride=1)
    assert short.in_windows(TextWindows(), pairs=True).windows == TextWindows(stride=0)
    assert WHOLE.in_windows(TextWindows(), pairs=True).in_windows(None, pairs=True).windows is None


@pytest.mark.parametrize(
    ("stride", "pairs", "largest"), [(10, False, 9), (512, False, 9), (4, True, 3)]
)
def test_a_stride_as_long_as_a_window_is_refused(stride: int, pairs: bool, largest: int) -> None:
    """The error names the largest stride that the model's windows can share."""
    with pytest.raises(BadSetting, match=f"give a stride of {largest} or less"):
        WHOLE.in_windows(TextWindows(stride=stride), pairs=pairs)


def test_values_that_no_text_can_have_are_refused() -> None:
    """A negative stride, no window, a model without room, and options where texts are cut."""
    nothing = Tokenizer(Path("none"), max_tokens=4, content=CONTENT)
    with pytest.raises(BadSetting, match="negative"):
        TextWindows(stride=-1)
    with pytest.raises(BadSetting, match="no window"):
        TextWindows(most=0)
    with pytest.raises(BadSetting, match="too few tokens"):
        nothing.in_windows(TextWindows(), pairs=True)
    with pytest.raises(OptionConflict, match="add --long-texts windows"):
        LongTextChoice(long_texts=LongTexts.CUT, pooling=WindowPooling.MEAN)
    with pytest.raises(OptionConflict, match="add --long-texts windows"):
        LongTextChoice(stride=3).windows(None)


def test_what_a_user_leaves_out_is_as_the_model_was_trained() -> None:
    """Windows or a cut, stride, pooling and number of windows; else the usual ones."""
    trained = TextWindows(stride=3, pooling=WindowPooling.MAX, most=5)

    assert LongTextChoice().windows(trained) == trained
    assert LongTextChoice().windows(None) is None
    assert LongTextChoice(long_texts=LongTexts.CUT).windows(trained) is None
    assert LongTextChoice(long_texts=LongTexts.WINDOWS).windows(None) == TextWindows()
    assert LongTextChoice(stride=0, most=2).windows(trained) == replace(trained, stride=0, most=2)
    assert TextWindows.from_json(asdict(trained)) == trained
