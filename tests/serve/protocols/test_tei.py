"""Text Embeddings Inference: its paths, bodies, headers, metrics and facts."""

import json

import pytest
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.text import Side
from spd_deploy.sessions.open import open_path
from tests.serve.clients import JSON, metric
from tests.serve.fakes import FakeSession

LONG = "good film " * 40 + "bad bus"
QUERY, TEXTS = "what is a good film", ["the train", "a film", "bad", "a film"]


def logits(artefact: Artefact, text: str, side: Side) -> dict[str, float]:
    """The logits of a text that is cut at ``side``, by label, without a server."""
    opened = open_path(artefact.folder, threads=1)
    with opened.session:
        row = opened.tokenizer.encode(text, side=side)
        (logits_C,) = opened.session.run(opened.tokenizer.pad([row]))
    return dict(zip(artefact.task.labels, logits_C.tolist(), strict=True))


@pytest.mark.parametrize("path", ["/", "/invocations"])
@pytest.mark.parametrize(
    "inputs", ["a film", ["a film"], [["a film"], ["the bus"]], ["a", "b"], []]
)
def test_other_names_of_predict(single: TestClient, path: str, inputs: object) -> None:
    """The root and SageMaker's path give what /predict gives, refusals too."""
    named, other = (single.post(p, json={"inputs": inputs}) for p in ("/predict", path))

    assert other.status_code == named.status_code
    assert (
        other.json().keys() == named.json().keys()
        if named.is_error
        else other.json() == named.json()
    )


@pytest.mark.parametrize("direction", ["Left", "left", "Right", "right"])
def test_a_long_text_is_cut_where_the_request_says(
    single: TestClient, single_artefact: Artefact, direction: str
) -> None:
    """The answer is that of the first or of the last tokens of the text."""
    body = {"inputs": LONG, "raw_scores": True, "truncation_direction": direction}

    found = single.post("/predict", json=body).json()

    expected = logits(single_artefact, LONG, Side(direction.lower()))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-5)


def test_texts_are_ranked_by_the_score_of_their_pair(reranker: TestClient) -> None:
    """The ranks are the scores of the query with each text, best first; equal ones in order."""
    found = reranker.post("/rerank", json={"query": QUERY, "texts": TEXTS}).json()

    pairs = {"inputs": [[QUERY, text] for text in TEXTS]}
    scores = [row[0]["score"] for row in reranker.post("/predict", json=pairs).json()]
    order = sorted(range(len(TEXTS)), key=lambda i: -scores[i])
    assert [one["index"] for one in found] == order
    assert [one["score"] for one in found] == pytest.approx([scores[i] for i in order], abs=1e-6)
    assert all(set(one) == {"index", "score"} for one in found)


def test_ranks_may_have_their_texts_and_logits(reranker: TestClient) -> None:
    """``return_text`` gives the texts, and ``raw_scores`` numbers that are not probabilities."""
    body = {"query": QUERY, "texts": TEXTS, "return_text": True}

    ranked = reranker.post("/rerank", json=body).json()
    raw = reranker.post("/rerank", json={**body, "raw_scores": True}).json()

    assert [one["text"] for one in ranked] == [TEXTS[one["index"]] for one in ranked]
    assert [one["index"] for one in raw] == [one["index"] for one in ranked]
    assert all(0 < one["score"] < 1 for one in ranked)
    assert [one["score"] for one in raw] != [one["score"] for one in ranked]


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_a_query_is_reranked_wherever_it_is_sent(reranker: TestClient, path: str) -> None:
    """A reranker's clients may leave the path out too."""
    body = {"query": QUERY, "texts": TEXTS}

    assert reranker.post(path, json=body).json() == reranker.post("/rerank", json=body).json()


@pytest.mark.parametrize("client", ["single", "pairs"])
def test_a_model_of_labels_does_not_rerank(client: str, request: pytest.FixtureRequest) -> None:
    """Such a request says why and what to use, and the description does not offer it."""
    server: TestClient = request.getfixturevalue(client)

    answer = server.post("/rerank", json={"query": QUERY, "texts": TEXTS})

    assert answer.status_code == 422
    assert "use /predict" in answer.json()["error"]
    assert "/rerank" not in server.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": QUERY, "texts": []}, "SPD_EMPTY_TEXT"),
        ({"query": "", "texts": ["a"]}, "SPD_EMPTY_TEXT"),
        ({"query": QUERY, "texts": ["a"] * 33}, "SPD_TOO_MANY_INPUTS"),
        ({"query": QUERY}, "SPD_MALFORMED"),
        ({"query": QUERY, "texts": "a"}, "SPD_MALFORMED"),
        ({"query": QUERY, "texts": [1]}, "SPD_MALFORMED"),
        ({"query": QUERY, "texts": [LONG], "truncate": False}, "SPD_TEXT_TOO_LONG"),
    ],
)
def test_a_bad_rerank_is_refused(reranker: TestClient, body: object, code: str) -> None:
    """The limits are those of every other path."""
    answer = reranker.post("/rerank", json=body)

    assert answer.json()["code"] == code


def test_a_reranker_offers_what_it_does(reranker: TestClient) -> None:
    """Its description has /rerank with an example that works."""
    described = reranker.get("/openapi.json").json()

    (example,) = described["components"]["schemas"]["RerankRequest"]["examples"]
    assert "/rerank" in described["paths"]
    assert len(reranker.post("/rerank", json=example).json()) == len(example["texts"])


@pytest.mark.parametrize("text", ["a film", "naïve 日本 🙂 filmx", "x" * 200])
@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_the_library(
    single: TestClient, single_artefact: Artefact, text: str, special: bool
) -> None:
    """Ids are the tokenizer's, and each token names its bytes in the text; nothing is cut."""
    body = {"inputs": text, "add_special_tokens": special}
    (found,) = single.post("/tokenize", json=body).json()

    library = Tokenizer.from_file(str(single_artefact.folder / "tokenizer.json"))
    library.no_truncation()
    assert [one["id"] for one in found] == library.encode(text, add_special_tokens=special).ids
    for one in found:
        if one["special"]:
            assert (one["start"], one["stop"]) == (None, None)
        else:
            assert text.encode()[one["start"] : one["stop"]].decode() == one["text"]
    assert any(one["special"] for one in found) is special


def test_several_texts_are_tokenised_in_their_order(single: TestClient) -> None:
    """A list of texts gives a list of lists."""
    both = single.post("/tokenize", json={"inputs": ["a film", "the bus"]}).json()

    alone = [single.post("/tokenize", json={"inputs": t}).json()[0] for t in ("a film", "the bus")]
    assert both == alone


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ("", "SPD_EMPTY_TEXT"),
        ([], "SPD_EMPTY_TEXT"),
        (["a"] * 33, "SPD_TOO_MANY_INPUTS"),
        ("a" * 9000, "SPD_TEXT_TOO_LONG"),
        (4, "SPD_MALFORMED"),
        ("\ud800", "SPD_MALFORMED"),
    ],
)
def test_what_is_not_tokenised(single: TestClient, inputs: object, code: str) -> None:
    """The limits of /tokenize are those of the other paths."""
    answer = single.post("/tokenize", content=json.dumps({"inputs": inputs}), headers=JSON)

    assert answer.json()["code"] == code


def test_headers_tell_time_and_size(single: TestClient) -> None:
    """Times are whole milliseconds as in TEI; characters and tokens are those of all texts."""
    answer = single.post("/predict", json={"inputs": [["a film"], ["the bus"]]})

    times = ("compute", "total", "tokenization", "queue", "inference")
    assert all(answer.headers[f"x-{name}-time"].isdecimal() for name in times)
    assert answer.headers["x-compute-characters"] == str(len("a filmthe bus"))
    assert answer.headers["x-compute-tokens"] == str(4 + 4)
    assert answer.headers["x-compute-type"] == "cpu"
    assert "Server-Timing" in answer.headers


def test_a_failed_engine_is_424(fake: TestClient, session: FakeSession) -> None:
    """TEI has a status of its own for it, which the native protocol does not use."""

    def fail(rows: list[tuple[int, ...]]) -> None:
        raise RuntimeError("injected")

    session.fail = fail
    tei = fake.post("/predict", json={"inputs": "a"})
    native = fake.post("/v1/classify", json={"inputs": [{"text": "a"}]})

    assert (tei.status_code, native.status_code) == (424, 500)
    assert tei.json()["error_type"] == native.json()["error_type"] == "Backend"
    assert tei.json()["error"] == "inputs: the model failed on this input; read the server's log"


@pytest.mark.parametrize(
    ("client", "kind", "labels"),
    [
        ("single", "classifier", ["negative", "positive"]),
        ("pairs", "classifier", ["not_equivalent", "equivalent"]),
        ("reranker", "reranker", ["score"]),
    ],
)
def test_info_has_the_keys_of_tei(
    client: str, kind: str, labels: list[str], request: pytest.FixtureRequest
) -> None:
    """What TEI's clients look up is there, equal to what the server's own keys say."""
    info = request.getfixturevalue(client).get("/info").json()

    assert info["model_type"][kind]["id2label"] == {str(i): x for i, x in enumerate(labels)}
    assert info["model_type"][kind]["label2id"] == {x: i for i, x in enumerate(labels)}
    assert (info["model_id"], info["model_dtype"]) == (info["model"], "float32")
    assert info["model_sha"] == info["checkpoint_sha256"]
    assert info["max_input_length"] == info["max_tokens"]
    assert info["max_client_batch_size"] == info["limits"]["max_inputs"]
    assert info["max_batch_tokens"] == info["limits"]["max_batch_tokens"]


def test_metrics_have_the_names_of_tei(fake: TestClient) -> None:
    """Requests by their form, failures by their kind, and our own numbers under TEI's names."""
    fake.post("/predict", json={"inputs": "a"})
    fake.post("/predict", json={"inputs": [["a b"], ["a b c"]]})
    fake.post("/predict", json={"inputs": [["a"], [" "]]})

    assert metric(fake, 'te_request_count{method="single"}') == 1
    assert metric(fake, 'te_request_count{method="batch"}') == 2
    assert metric(fake, 'te_request_success{method="batch"}') == 1
    assert metric(fake, 'te_request_failure{err="validation"}') == 1
    assert metric(fake, "te_predict_count") == 5
    assert metric(fake, "te_predict_success") == 3
    assert metric(fake, "te_request_input_length_sum") == 3 + 4 + 5
    assert metric(fake, "te_request_duration_count") == 2
    assert metric(fake, "te_batch_next_size_sum") == 3
    assert metric(fake, "te_batch_next_tokens_sum") >= 3 + 4 + 5
    assert metric(fake, "te_queue_size") == 0
    for stage, name in (("tok", "tokenization"), ("queue", "queue"), ("run", "inference")):
        ours = metric(fake, f'spd_stage_seconds_sum{{stage="{stage}"}}')
        assert metric(fake, f"te_request_{name}_duration_sum") == ours
