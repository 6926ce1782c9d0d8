"""KServe V1, asked in the shape that it documents."""

import pytest
from starlette.testclient import TestClient

from serve.http_errors import ErrorBody

PREDICT = "/v1/models/{}:predict"


@pytest.mark.parametrize("instance", ["a good film", {"text": "a good film"}])
def test_instances_are_classified(single: TestClient, instance: object) -> None:
    """Each prediction has every label best first, with the scores of the native protocol."""
    body = {"instances": [instance, "the bus"], "signature_name": "ignored"}
    found = single.post(PREDICT.format("single"), json=body)

    native = {"inputs": [{"text": "a good film"}, {"text": "the bus"}]}
    results = single.post("/v1/classify", json=native).json()["results"]
    assert [[one["label"] for one in row] for row in found.json()["predictions"]] == [
        [one["label"] for one in row["labels"]] for row in results
    ]
    assert [row[0]["score"] for row in found.json()["predictions"]] == pytest.approx(
        [row["labels"][0]["score"] for row in results]
    )
    assert "Server-Timing" in found.headers


@pytest.mark.parametrize("instance", [["a", "b"], {"text": "a", "text_pair": "b"}])
def test_pairs_are_lists_or_objects(pairs: TestClient, instance: object) -> None:
    """Both forms of a pair are the same pair."""
    found = pairs.post(PREDICT.format("pair"), json={"instances": [instance]}).json()

    (expected,) = pairs.post("/predict", json={"inputs": [["a", "b"]]}).json()
    assert found["predictions"][0] == [
        {"label": one["label"], "score": pytest.approx(one["score"])} for one in expected
    ]


def test_parameters_are_those_of_the_native_protocol(single: TestClient) -> None:
    """Logits, and a text that may not be cut."""
    raw = {"instances": ["a film"], "parameters": {"raw_scores": True}}
    long = {"instances": ["a " * 40], "parameters": {"truncate": False}}

    found = single.post(PREDICT.format("single"), json=raw).json()["predictions"][0]

    native = {"inputs": [{"text": "a film"}], "raw_scores": True}
    (expected,) = single.post("/v1/classify", json=native).json()["results"]
    assert found[0]["score"] == pytest.approx(expected["labels"][0]["score"])
    assert single.post(PREDICT.format("single"), json=long).json()["code"] == "SPD_TEXT_TOO_LONG"


@pytest.mark.parametrize(
    ("instances", "code"),
    [
        ([], "SPD_EMPTY_TEXT"),
        ([""], "SPD_EMPTY_TEXT"),
        (["a"] * 33, "SPD_TOO_MANY_INPUTS"),
        ("a", "SPD_MALFORMED"),
        (None, "SPD_MALFORMED"),
        ([4], "SPD_MALFORMED"),
        ([["a"]], "SPD_MALFORMED"),
        ([["a", "b", "c"]], "SPD_MALFORMED"),
        ([{"text": "a", "x": 1}], "SPD_MALFORMED"),
        ([{"text_pair": "a"}], "SPD_MALFORMED"),
        ([["a", "b"]], "SPD_MALFORMED"),
    ],
)
def test_a_refusal_is_400(single: TestClient, instances: object, code: str) -> None:
    """KServe knows 400 for what a client did wrong; the body has the text of the error."""
    answer = single.post(PREDICT.format("single"), json={"instances": instances})

    assert answer.status_code == 400
    assert ErrorBody.model_validate_json(answer.content, strict=True).code == code


@pytest.mark.parametrize("name", ["other", "single2", "..%2f..%2fetc", "%20", "single:x", "日本"])
def test_another_model_is_not_found(single: TestClient, name: str) -> None:
    """Only the name that is served exists, and the error tells it."""
    for answer in (
        single.get(f"/v1/models/{name}"),
        single.post(PREDICT.format(name), json={"instances": ["a"]}),
    ):
        assert answer.status_code == 404
        assert answer.json()["code"] in ("SPD_UNKNOWN_MODEL", "SPD_NOT_FOUND")


def test_a_model_is_ready(single: TestClient) -> None:
    """The status is KServe's, and a path with a verb takes no GET."""
    assert single.get("/v1/models/single").json() == {"name": "single", "ready": True}
    assert single.get(PREDICT.format("single")).status_code == 405
