"""Texts to token ids: against transformers' own tokenizer, and the laws of padding."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Fast

from spd_deploy.domain.errors import BadModel, MalformedRequest
from spd_deploy.domain.text import Batch, Side, Tokenizer, Tokens, pad
from spd_deploy.domain.text_lengths import Lengths
from tests.tiny import WORDS, tiny_tokenizer


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tiny_tokenizer(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("The film was not good.", None),
        ("the train", "is slower than the bus"),
        ("", None),
        ("a" * 500, "b " * 100),
        ("naïve café 日本", "🙂"),
    ],
)
def test_ids_are_those_of_transformers(file: Path, text: str, pair: str | None) -> None:
    """Ids, types and truncation equal those of transformers' fast tokenizer on the same file."""
    from transformers import PreTrainedTokenizerFast

    theirs: Any = PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="[PAD]")  # type: ignore[no-untyped-call]
    expected = theirs(
        text, pair, truncation="longest_first", max_length=16, return_token_type_ids=True
    )

    found = Tokenizer(file, max_tokens=16).encode(text, pair)

    assert list(found.ids) == expected["input_ids"]
    assert list(found.types) == expected["token_type_ids"]


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60), pair=st.none() | st.text(max_size=60))
def test_what_is_cut_is_counted(file: Path, text: str, pair: str | None) -> None:
    """Kept and dropped tokens add up to those of the uncut text."""
    whole = Tokenizer(file, max_tokens=1000)
    cutting = Tokenizer(file, max_tokens=10)
    try:
        expected = len(whole.encode(text, pair))
    except MalformedRequest:
        return

    found = cutting.encode(text, pair)

    assert len(found) <= 10
    assert len(found) + found.dropped == expected


def test_half_a_surrogate_pair_is_refused(file: Path) -> None:
    """Text that UTF-8 cannot carry is refused before the tokenizer sees it."""
    with pytest.raises(MalformedRequest):
        Tokenizer(file, max_tokens=16).encode("\ud800")


def test_padding_keeps_rows_as_they_are(file: Path) -> None:
    """Each row of a batch holds its tokens, then padding with mask 0."""
    tokenizer = Tokenizer(file, max_tokens=16)
    rows = [tokenizer.encode("the film"), tokenizer.encode("a", "the bus was slower than it")]

    batch = tokenizer.pad(rows)

    for i, row in enumerate(rows):
        assert batch.ids_BS[i, : len(row)].tolist() == list(row.ids)
        assert (batch.ids_BS[i, len(row) :] == tokenizer.pad_id).all()
        assert batch.mask_BS[i].tolist() == [1] * len(row) + [0] * (
            batch.ids_BS.shape[1] - len(row)
        )
    assert batch.real_share == pytest.approx(sum(map(len, rows)) / batch.ids_BS.size)
    assert batch.ids_BS.dtype == np.int64


def test_one_row_is_not_padded(file: Path) -> None:
    """A single row makes a batch of its own length."""
    row = Tokenizer(file, max_tokens=16).encode("the film")

    assert pad([row], pad_id=0).ids_BS.shape == (1, len(row))


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": {"type": "Bert"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    """A damaged or missing tokenizer.json is one clear error."""
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(BadModel, match="tokenizer"):
        Tokenizer(path, max_tokens=16)
    with pytest.raises(BadModel, match="cannot read"):
        Tokenizer(tmp_path / "missing.json", max_tokens=16)


@pytest.mark.parametrize(
    "shapes",
    [((1, 4), (1, 5), (1, 4)), ((1, 4), (1, 4), (2, 4)), ((2, 0),) * 3, ((4,),) * 3],
    ids=str,
)
def test_a_batch_that_is_none_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    """Arrays of other shapes, without a column or of one axis make no batch."""
    ids, mask, types = (np.zeros(shape, np.int64) for shape in shapes)

    with pytest.raises(MalformedRequest, match=r"three arrays of one shape.*got"):
        Batch(ids_BS=ids, mask_BS=mask, types_BS=types)


def test_texts_without_a_token_are_no_batch() -> None:
    """Rows that a tokenizer without special tokens made of nothing cannot be run."""
    with pytest.raises(MalformedRequest, match=r"got \(2, 0\)"):
        pad([Tokens(ids=(), types=())] * 2, pad_id=0)


def test_lengths_count_what_is_cut() -> None:
    """A text counts with its whole length, and as cut where it lost tokens."""
    rows = [Tokens(ids=(1,) * kept, types=(0,) * kept, dropped=lost) for kept, lost in
            ((3, 0), (8, 0), (8, 1), (8, 40), (4, 0))]  # fmt: skip

    found = Lengths.of(rows, limit=8)

    assert (found.median, found.longest, found.cut, found.texts) == (8, 48, 2, 5)
    assert str(found) == (
        "8 tokens in the median, 48 in the longest; 2 of 5 (40.0 %) are cut at 8 tokens"
    )
    assert str(Lengths.of(rows[:2], limit=8)).endswith("none is cut at 8 tokens")


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("text", "pair", "empty"),
    [
        ("a", None, False),
        ("", None, True),
        ("\u200b\0\u00ad\ufeff", None, True),
        ("\u0301", None, True),
        ("\u200b!", None, False),
        ("日", None, False),
        ("a", "\u200b", True),
        ("\u200b", "a", True),
        ("a", "b", False),
        ("a " * 90, "b", False),
        ("a", "b " * 90, False),
        ("\u200b", "b " * 90, True),
    ],
)
def test_a_text_without_tokens_is_empty(
    tmp_path: Path, architecture: str, text: str, pair: str | None, empty: bool
) -> None:
    """Whether a text, or one of a pair, has a token is told, whatever else was cut off."""
    file = tmp_path / "tokenizer.json"
    file.write_text(tiny_tokenizer(architecture), encoding="utf-8")

    for max_tokens in (5, 64):
        assert Tokenizer(file, max_tokens=max_tokens).encode(text, pair).empty is empty


def test_a_mark_of_a_space_alone_is_no_text(tmp_path: Path) -> None:
    """Where SentencePiece makes a lone space of an unseen character, the text is empty."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers

    made = Fast(models.Unigram([("<unk>", 0.0), ("\u2581", -2.0), ("a", -2.0)], unk_id=0))
    made.normalizer = normalizers.Replace("\u200b", " ")
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    file = tmp_path / "tokenizer.json"
    file.write_text(made.to_str(), encoding="utf-8")
    tokenizer = Tokenizer(file, max_tokens=8)

    assert len(tokenizer.encode("\u200b")) == 1
    assert tokenizer.encode("\u200b").empty
    assert not tokenizer.encode("\u200ba").empty


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_tokens", [4, 5, 8, 13])
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_pairs_are_cut_as_the_library_cuts_them(
    tmp_path: Path, architecture: str, max_tokens: int, side: str
) -> None:
    """For every two lengths the ids and types are those of the tokenizers library."""
    library = Fast.from_str(tiny_tokenizer(architecture))
    library.enable_truncation(max_tokens, direction=side)
    ours = Tokenizer(tmp_path / "none", max_tokens=max_tokens, content=library.to_str())

    for first, second in product(range(12), repeat=2):
        text, pair = " ".join(WORDS.split()[:first]), " ".join(WORDS.split()[20 : 20 + second])
        expected, found = library.encode(text, pair), ours.encode(text, pair)
        assert (found.ids, found.types) == (tuple(expected.ids), tuple(expected.type_ids))


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("own", Side)
@pytest.mark.parametrize("max_tokens", [3, 4, 8])
def test_the_side_of_a_request_is_the_librarys(
    tmp_path: Path, own: Side, side: Side, max_tokens: int
) -> None:
    """A text or pair that asks for a side is cut there, whatever the tokenizer's file says."""
    library = Fast.from_str(tiny_tokenizer())
    library.enable_truncation(max_tokens, direction=own.value)
    ours = Tokenizer(tmp_path / "none", max_tokens=max_tokens, content=library.to_str())
    library.enable_truncation(max_tokens, direction=side.value)

    for count in range(12):
        text, pair = " ".join(WORDS.split()[:count]), "never very good"
        for texts in ((text,), (text, pair)):
            expected, found = library.encode(*texts), ours.encode(*texts, side=side)
            assert (found.ids, found.types) == (tuple(expected.ids), tuple(expected.type_ids))


def test_two_very_long_texts_are_cut_without_combining_what_is_cut_off(tmp_path: Path) -> None:
    """A pair of 100,000 words each is read; the library alone would need many gigabytes."""
    ours = Tokenizer(tmp_path / "none", max_tokens=16, content=tiny_tokenizer())
    found = ours.encode("good film " * 50_000, "bad bus " * 50_000)

    assert len(found.ids) == 16
    assert found.dropped == 200_003 - 16


@given(st.lists(st.text(max_size=60), max_size=6), st.booleans())
def test_many_texts_are_encoded_as_one_by_one(file: Path, texts: list[str], paired: bool) -> None:
    """Ids, types, what is dropped and what is empty are those of each text alone."""
    tokenizer = Tokenizer(file, max_tokens=12)
    both = [(text, text[::-1] if paired else None) for text in texts]

    assert tokenizer.encode_all(both) == [tokenizer.encode(*one) for one in both]
