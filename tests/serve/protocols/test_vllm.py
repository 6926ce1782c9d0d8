"""vLLM's pooling API, asked in the shape that vLLM documents."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.protocols.vllm.vllm_bodies import (
    ModelList,
    OpenAIErrorBody,
    VllmClassifyReply,
    VllmScoreReply,
)
from spd_deploy.domain.artefact import Artefact
from tests.serve.fakes import FakeSession

LONG = "good film " * 40
PATHS = ["/classify", "/v1/classify"]


def native(client: TestClient, *texts: str, raw: bool = False) -> list[dict[str, float]]:
    """The scores of the native protocol by label."""
    body = {"inputs": [{"text": text} for text in texts], "raw_scores": raw}
    results = client.post("/v1/classify", json=body).json()["results"]
    return [{one["label"]: one["score"] for one in result["labels"]} for result in results]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", ["a good film", ["a good film", "the bus"]])
def test_texts_are_classified(
    single: TestClient, single_artefact: Artefact, path: str, given: str | list[str]
) -> None:
    """``probs`` are the native scores in the order of the outputs, with the best one's label."""
    answer = single.post(path, json={"model": "single", "input": given})

    reply = VllmClassifyReply.model_validate_json(answer.content, strict=True)
    texts = [given] if isinstance(given, str) else given
    for i, (one, expected) in enumerate(zip(reply.data, native(single, *texts), strict=True)):
        assert (one.index, one.num_classes) == (i, 2)
        assert one.probs == pytest.approx([expected[x] for x in single_artefact.task.labels])
        assert one.label == max(expected, key=lambda label: expected[label])
    assert (reply.model, reply.object) == ("single", "list")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens == 5 + 4 * (len(texts) - 1)
    assert "tok;dur=" in answer.headers["Server-Timing"]


@pytest.mark.parametrize("path", PATHS)
def test_token_ids_are_classified_as_they_are(
    single: TestClient, single_artefact: Artefact, path: str
) -> None:
    """Ids of a text give the text's own scores, alone and as one of several."""
    tokens = single.post("/tokenize", json={"inputs": ["a good film", "the bus"]}).json()
    rows = [[one["id"] for one in row] for row in tokens]
    text = single.post(path, json={"input": ["a good film", "the bus"]}).json()["data"]

    several = single.post(path, json={"input": rows}).json()["data"]
    alone = single.post(path, json={"input": rows[0]}).json()["data"]

    assert [one["probs"] for one in several] == [pytest.approx(one["probs"]) for one in text]
    assert alone[0]["probs"] == pytest.approx(text[0]["probs"])


def test_logits_where_no_activation_is_wanted(
    single: TestClient, single_artefact: Artefact
) -> None:
    """``use_activation: false`` gives the model's outputs."""
    (found,) = single.post("/classify", json={"input": "a film", "use_activation": False}).json()[
        "data"
    ]

    (expected,) = native(single, "a film", raw=True)
    assert found["probs"] == pytest.approx([expected[x] for x in single_artefact.task.labels])


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_a_long_text_is_cut_only_where_asked(single: TestClient, side: str | None) -> None:
    """As in vLLM null refuses it and -1 cuts it, at the side that is asked for."""
    body: dict[str, Any] = {"input": LONG + "bad bus", "truncation_side": side}

    refused = single.post("/classify", json=body)
    cut = single.post("/classify", json={**body, "truncate_prompt_tokens": -1})

    assert refused.status_code == 400
    assert "more tokens than the model reads" in refused.json()["error"]["message"]
    tei = {"inputs": body["input"], "truncation_direction": side or "right"}
    best = single.post("/predict", json=tei).json()[0]["score"]
    assert max(cut.json()["data"][0]["probs"]) == pytest.approx(best)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"input": ""}, 400, "BadRequestError"),
        ({"input": []}, 400, "BadRequestError"),
        ({"input": [[]]}, 400, "BadRequestError"),
        ({"input": 4}, 400, "BadRequestError"),
        ({"input": ["a", 4]}, 400, "BadRequestError"),
        ({"input": [4, "a"]}, 400, "BadRequestError"),
        ({"input": [[4], "a"]}, 400, "BadRequestError"),
        ({"input": [True]}, 400, "BadRequestError"),
        ({"input": [-1]}, 400, "BadRequestError"),
        ({"input": [10**9]}, 400, "BadRequestError"),
        ({"input": [1] * 33}, 400, "BadRequestError"),
        ({"input": ["a"] * 33}, 400, "BadRequestError"),
        ({"input": "a", "model": "other"}, 404, "NotFoundError"),
        ({"input": "a", "add_special_tokens": False}, 400, "BadRequestError"),
        ({"input": "a", "truncate_prompt_tokens": 5}, 400, "BadRequestError"),
        ({"input": "a", "truncation_side": "middle"}, 400, "BadRequestError"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_refusals_are_openais(
    single: TestClient, path: str, body: object, status: int, kind: str
) -> None:
    """An error is an object with message, type, param and code, on both paths."""
    answer = single.post(path, json=body)

    told = OpenAIErrorBody.model_validate_json(answer.content, strict=True).error
    assert (answer.status_code, told.type, told.code) == (status, kind, status)
    assert len(answer.content) < 600


def test_an_unknown_field_is_ignored(single: TestClient) -> None:
    """As in vLLM; its clients send fields such as ``user`` and ``priority``."""
    body = {"input": "a", "user": "x", "priority": 0, "request_id": "mine"}

    assert single.post("/classify", json=body).json()["id"] == "classify-mine"


def test_a_body_that_is_not_json_is_openais_error_too(single: TestClient) -> None:
    """The form does not depend on how far the request came."""
    answer = single.post("/classify", content=b"{", headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert OpenAIErrorBody.model_validate_json(answer.content).error.code == 400


def test_a_failed_engine_is_an_internal_error(fake: TestClient, session: FakeSession) -> None:
    """Its status is vLLM's, 500."""

    def fail(rows: list[tuple[int, ...]]) -> None:
        raise RuntimeError("injected")

    session.fail = fail
    answer = fake.post("/classify", json={"input": "a"})

    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalServerError"


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"),
              ("data_1", "data_2")]
)  # fmt: skip
@pytest.mark.parametrize("first", ["a good film", ["a good film"], ["a good film", "the bus"]])
def test_pairs_are_scored(
    reranker: TestClient, path: str, names: tuple[str, str], first: str | list[str]
) -> None:
    """One text goes with each of the other side, or the lists go together; the scores are TEI's."""
    second = ["a film", "bad"]

    answer = reranker.post(path, json={names[0]: first, names[1]: second})

    reply = VllmScoreReply.model_validate_json(answer.content, strict=True)
    firsts = [first] * 2 if isinstance(first, str) else (first * 2)[: max(2, len(first))]
    pairs = {"inputs": [list(pair) for pair in zip(firsts, second, strict=True)]}
    expected = [row[0]["score"] for row in reranker.post("/predict", json=pairs).json()]
    assert [one.score for one in reply.data] == pytest.approx(expected)
    assert [one.index for one in reply.data] == [0, 1]


@pytest.mark.parametrize(
    ("first", "second"), [(["a", "b"], ["c"]), ("a", []), ([], "a"), (4, "a"), ("a", [4]),
                          ("a", ["b"] * 33)]
)  # fmt: skip
def test_what_makes_no_pairs_is_refused(
    reranker: TestClient, first: object, second: object
) -> None:
    """Lists of different lengths, empty ones and too long ones are 400."""
    answer = reranker.post("/score", json={"text_1": first, "text_2": second})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "BadRequestError"


def test_a_model_of_labels_does_not_score(pairs: TestClient) -> None:
    """Such a request says why and what to use."""
    answer = pairs.post("/score", json={"text_1": "a", "text_2": "b"})

    assert answer.status_code == 400
    assert "use /classify" in answer.json()["error"]["message"]


def test_the_served_model_is_listed(single: TestClient) -> None:
    """``/v1/models`` has the one model, with the longest input that it reads."""
    listed = ModelList.model_validate_json(single.get("/v1/models").content, strict=True)

    (model,) = listed.data
    assert (model.id, model.root, model.max_model_len) == ("single", "single", 32)
