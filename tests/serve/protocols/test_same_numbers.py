"""The law of all protocols: the same texts have the same scores."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve.protocols import registry
from tests.tiny import WORDS

Scores = list[dict[str, float]]
SENTENCES = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=60).map(" ".join)
LABELS = ("negative", "positive")


def _by_label(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {one["label"]: one["score"] for one in answers}


def native(client: TestClient, texts: list[str]) -> Scores:
    """``/v1/classify``."""
    body = {"inputs": [{"text": text} for text in texts]}
    results = client.post("/v1/classify", json=body).json()["results"]
    return [_by_label(result["labels"]) for result in results]


def tei(client: TestClient, texts: list[str]) -> Scores:
    """``/predict``."""
    rows = client.post("/predict", json={"inputs": [[text] for text in texts]}).json()
    return [_by_label(row) for row in rows]


def vllm(client: TestClient, texts: list[str]) -> Scores:
    """``/classify``, told to cut."""
    body = {"input": texts, "truncate_prompt_tokens": -1}
    data = client.post("/classify", json=body).json()["data"]
    return [dict(zip(LABELS, one["probs"], strict=True)) for one in data]


def kserve(client: TestClient, texts: list[str]) -> Scores:
    """``:predict``."""
    body = {"instances": texts}
    rows = client.post("/v1/models/single:predict", json=body).json()["predictions"]
    return [_by_label(row) for row in rows]


def _rows(output: dict[str, Any]) -> list[list[Any]]:
    width = output["shape"][1]
    return [output["data"][i : i + width] for i in range(0, len(output["data"]), width)]


def oip_texts(client: TestClient, texts: list[str]) -> Scores:
    """``/v2/models/single/infer`` with texts."""
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    reply = client.post("/v2/models/single/infer", json={"inputs": [tensor]}).json()
    labels, scores, _ = map(_rows, reply["outputs"])
    return [dict(zip(*row, strict=True)) for row in zip(labels, scores, strict=True)]


def oip_ids(client: TestClient, texts: list[str]) -> Scores:
    """The same with token ids that the client has cut and padded itself."""
    tokens = client.post("/tokenize", json={"inputs": texts}).json()
    rows = [[one["id"] for one in row] for row in tokens]
    limit = client.get("/info").json()["max_tokens"]
    rows = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
    width = max(map(len, rows))
    tensors = {
        "input_ids": [row + [0] * (width - len(row)) for row in rows],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
    }
    inputs = [
        {"name": name, "shape": [len(rows), width], "datatype": "INT64", "data": values}
        for name, values in tensors.items()
    ]
    reply = client.post("/v2/models/single/infer", json={"inputs": inputs}).json()
    labels, scores, _ = map(_rows, reply["outputs"])
    return [dict(zip(*row, strict=True)) for row in zip(labels, scores, strict=True)]


PROTOCOLS: dict[str, Callable[[TestClient, list[str]], Scores]] = {
    "tei": tei,
    "vllm": vllm,
    "kserve": kserve,
    "oip_texts": oip_texts,
    "oip_ids": oip_ids,
}


def test_every_protocol_is_compared() -> None:
    """Each protocol with answers of its own is in the table of this law."""
    with_answers = {protocol.name for protocol in registry.PROTOCOLS} - {"native", "operations"}

    assert {name.split("_")[0] for name in PROTOCOLS} == with_answers


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(SENTENCES, min_size=1, max_size=6))
def test_the_same_texts_have_the_same_scores(
    single: TestClient, protocol: str, texts: list[str]
) -> None:
    """Each label of each text has the score of the native protocol, long texts too."""
    found = PROTOCOLS[protocol](single, texts)

    for row, expected in zip(found, native(single, texts), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)


PAIRS = [
    ["a good film", "the bus"],
    ["x", "naïve 日本 🙂"],
    ["not very good " * 30, "bad film " * 9],
]


def _pair_scores(client: TestClient, name: str) -> dict[str, Scores]:
    """The scores of the pairs by protocol."""
    native_inputs = [{"text": first, "text_pair": second} for first, second in PAIRS]
    results = client.post("/v1/classify", json={"inputs": native_inputs}).json()["results"]
    predicted = client.post("/predict", json={"inputs": PAIRS}).json()
    instances = client.post(f"/v1/models/{name}:predict", json={"instances": PAIRS}).json()
    tensors = [
        {"name": key, "shape": [len(PAIRS)], "datatype": "BYTES", "data": list(side)}
        for key, side in zip(("text", "text_pair"), zip(*PAIRS, strict=True), strict=True)
    ]
    reply = client.post(f"/v2/models/{name}/infer", json={"inputs": tensors}).json()
    labels, scores, _ = map(_rows, reply["outputs"])
    return {
        "native": [_by_label(row["labels"]) for row in results],
        "tei": [_by_label(row) for row in predicted],
        "kserve": [_by_label(row) for row in instances["predictions"]],
        "oip": [dict(zip(*row, strict=True)) for row in zip(labels, scores, strict=True)],
    }


@pytest.mark.parametrize(("client", "name"), [("pairs", "pair"), ("reranker", "reranker")])
def test_the_same_pairs_have_the_same_scores(
    request: pytest.FixtureRequest, client: str, name: str
) -> None:
    """So have a model of labels and one that reranks, in every protocol that knows pairs."""
    found = _pair_scores(request.getfixturevalue(client), name)

    for protocol, scores in found.items():
        for row, expected in zip(scores, found["native"], strict=True):
            assert row == pytest.approx(expected, abs=1e-6), protocol


def test_a_reranked_pair_has_the_same_score(reranker: TestClient) -> None:
    """TEI's /rerank and vLLM's /score give what the native protocol gives."""
    found = _pair_scores(reranker, "reranker")["native"]

    for (first, second), row in zip(PAIRS, found, strict=True):
        (rank,) = reranker.post("/rerank", json={"query": first, "texts": [second]}).json()
        score = {"text_1": first, "text_2": second, "truncate_prompt_tokens": -1}
        (scored,) = reranker.post("/score", json=score).json()["data"]
        assert [rank["score"], scored["score"]] == pytest.approx([row["score"]] * 2, abs=1e-6)
