"""Texts far longer than the model reads: cut like any other, at a bounded cost."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve.texts import Text, tokens_of
from spd_deploy.domain.text import Side, Tokenizer, Tokens
from tests.tiny import OF_ROBERTA, WORDS, tiny_tokenizer

MAX_TOKENS, MAX_CHARS = 9, 200
# Very long texts, each with a short one of the same row, and whether the row is all of it.
VERY_LONG: dict[str, tuple[str, str, bool]] = {
    "words": ("the film was not good . " * 20_000, "the film was not good . " * 100, True),
    "no spaces": ("日本" * 100_000, "日本" * 100, True),
    "one word": ("a" * 300_000, "a" * 101, False),
    "spaces first": (" " * 300_000 + "a good film", "a good film", False),
    "unseen first": ("\u200b" * 300_000 + "a good film", "a good film", False),
    "accents": ("e" + "\u0301" * 300_000 + " film", "e film", False),
}


@pytest.fixture(scope="module", params=["bert", OF_ROBERTA[0]])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    """A tokenizer of a model that reads few tokens."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    file.write_text(tiny_tokenizer(request.param), encoding="utf-8")
    return Tokenizer(file, max_tokens=MAX_TOKENS)


@pytest.mark.parametrize(("text", "same", "cut"), VERY_LONG.values(), ids=VERY_LONG)
def test_a_very_long_text_is_cut_and_answered(
    single: TestClient, text: str, same: str, cut: bool
) -> None:
    """A text of hundreds of thousands of characters gets the answer of the row it is cut to."""
    native = single.post("/v1/classify", json={"inputs": [{"text": text}]}).json()
    tei = single.post("/predict", json={"inputs": text, "truncate": True}).json()

    assert tei == single.post("/predict", json={"inputs": same}).json()
    (result,) = native["results"]
    assert result["truncated"] is cut
    (expected,) = single.post("/v1/classify", json={"inputs": [{"text": same}]}).json()["results"]
    assert (result["labels"], result["n_tokens"]) == (expected["labels"], expected["n_tokens"])


def test_a_very_long_text_is_refused_where_cutting_is_declined(single: TestClient) -> None:
    """Who declines truncation is told that the text is too long, before it is tokenised."""
    body = {"inputs": VERY_LONG["words"][0], "truncate": False}

    answer = single.post("/predict", content=json.dumps(body).encode(),
                         headers={"Content-Type": "application/json"})  # fmt: skip

    assert (answer.status_code, answer.json()["code"]) == (422, "SPD_TEXT_TOO_LONG")


@pytest.mark.parametrize("side", [None, *Side])
def test_only_the_kept_end_of_a_very_long_text_is_tokenised(
    tmp_path: Path, side: Side | None
) -> None:
    """What a text costs does not grow with its length once the end that is kept fills the row."""
    file = tmp_path / "tokenizer.json"
    file.write_text(tiny_tokenizer(), encoding="utf-8")
    lengths: list[int] = []

    class Counting(Tokenizer):
        def encode(self, text: str, pair: str | None = None, *, side: Side | None = None) -> Tokens:
            lengths.append(len(text))
            return super().encode(text, pair, side=side)

    text = Text(text=VERY_LONG["words"][0])
    tokens_of(Counting(file, max_tokens=8), text, max_chars=2000, side=side)

    assert max(lengths) == 2000


PIECES = st.sampled_from([*WORDS.split(), "日", "x" * 120, "é", " ", "\u200b", "e\u0301\u0301"])
TEXTS = st.lists(PIECES, max_size=400).map(" ".join) | st.lists(PIECES, max_size=400).map("".join)


@given(
    text=TEXTS,
    pair=st.none() | TEXTS,
    repeat=st.sampled_from([1, 3, 40]),
    side=st.sampled_from([None, *Side]),
)
def test_a_bounded_row_is_the_row_of_the_whole_text(
    tokenizer: Tokenizer, text: str, pair: str | None, repeat: int, side: Side | None
) -> None:
    """Ids and types are those of the whole text or pair, whatever it is made of."""
    given_text = Text(text=f"a{text * repeat}a", pair=None if pair is None else f"b{pair}b")

    found = tokens_of(tokenizer, given_text, max_chars=MAX_CHARS, side=side)

    whole = tokenizer.encode(given_text.text, given_text.pair, side=side)
    assert (found.ids, found.types) == (whole.ids, whole.types)
    assert found.dropped <= whole.dropped
    assert (found.dropped > 0) == (whole.dropped > 0)
