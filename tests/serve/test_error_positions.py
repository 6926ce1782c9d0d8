"""Where in a request the bad text stands: told by its index, as validation errors tell it."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve.settings import ServeSettings
from tests.serve.clients import JSON, client_of
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.test_bad_input import LONG, NATIVE, TEI


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"text": ""}, "a text is empty"),
        ({"text": "\u200b"}, "a text is empty; got only characters that the tokenizer drops"),
        ({"text": "\ud800"}, "the text holds half of a surrogate pair"),
        ({"text": "x", "text_pair": "y"}, "this model takes single texts, not pairs"),
        ({"text": LONG}, "a text has more tokens than the model reads"),
        ({"text": "a" * 8001}, "the text is too long to be tokenised without truncation"),
    ],
    ids=["empty", "unseen", "surrogate", "pair", "long", "very long"],
)
def test_one_bad_input_among_many_is_named(
    single: TestClient, bad: dict[str, str], told: str
) -> None:
    """Whatever is wrong with one text of a request, its index is told, in both protocols."""
    inputs = [{"text": "fine"}] * 20
    inputs[16] = bad
    native = {"inputs": inputs, "truncate": False}
    tei = {"inputs": [list(one.values()) for one in inputs], "truncate": False}

    for path, body in ((NATIVE, native), (TEI, tei)):
        answer = single.post(path, content=json.dumps(body).encode(), headers=JSON)
        assert answer.status_code in (400, 422)
        assert answer.json()["error"].startswith(f"inputs.16: {told}")


@pytest.mark.parametrize("item", ["x", [], ["a", "b", "c"], [1], None, {"text": "x"}])
def test_one_malformed_item_of_a_batch_is_named(single: TestClient, item: object) -> None:
    """An item that is no text and no pair is told by its index, and what it should be."""
    answer = single.post(TEI, json={"inputs": [*[["fine"]] * 16, item]})

    assert answer.status_code == 422
    assert answer.json()["error"].startswith("inputs.16: Input should be a list of one text")


def test_a_text_alone_has_no_index(single: TestClient) -> None:
    """A bare text is the field itself."""
    answer = single.post(TEI, json={"inputs": "\u00ad"})

    assert answer.json()["error"].startswith("inputs: a text is empty")


@pytest.mark.parametrize("of_pair", [("\u200b", "a film"), ("a film", "\0"), ("a film", " ")])
def test_both_texts_of_a_pair_need_tokens(pairs: TestClient, of_pair: tuple[str, str]) -> None:
    """A pair with a text that the tokenizer drops is refused as empty."""
    answer = pairs.post(TEI, json={"inputs": [list(of_pair)]})

    assert (answer.status_code, answer.json()["code"]) == (400, "SPD_EMPTY_TEXT")


def test_the_text_that_the_model_fails_on_is_named(fake: TestClient, session: FakeSession) -> None:
    """A fault of the model is told with the text at fault, though others ran in the same batch."""

    def fail(rows: list[tuple[int, ...]]) -> None:
        if any(len(row) == 6 for row in rows):
            raise RuntimeError("injected")

    session.fail = fail
    answer = fake.post(TEI, json={"inputs": [["a b c"], ["a b c d"], ["a"]]})

    assert (answer.status_code, answer.json()["code"]) == (424, "SPD_ENGINE_FAILED")
    assert answer.json()["error"].startswith("inputs.1: the model failed on this input")


def test_a_text_wider_than_any_batch_is_named(tmp_path: Path, session: FakeSession) -> None:
    """A row that the server's own batch limit keeps out is told by its index too."""
    with client_of(fake_served(tmp_path, session), ServeSettings(max_batch_tokens=10)) as client:
        answer = client.post(TEI, json={"inputs": [["a"], ["b " * 20]]})

    assert answer.json()["error"].startswith("inputs.1: the text has more tokens than this server")
