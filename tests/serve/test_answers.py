"""Good requests: both forms of the API, and answers equal to those without a server."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.testclient import TestClient

from serve.protocols.native import ClassifyReply
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from spd_deploy.sessions.offline import logits_of
from spd_deploy.sessions.open import open_path
from tests.serve.clients import Exchange, ready, until
from tests.serve.fakes import FakeSession, fake_served, formula
from tests.tiny import WORDS

CLOSE = 1e-5  # single rows and batches take different kernels, so their last bits differ
LONG = "the film was not good and the train was never late " * 5
TEXTS = ["a good film", "the bus", LONG, "it is not very bad , but dull !", "x", "naïve 日本 🙂"]
SENTENCES = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=40).map(" ".join)
MANY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Pair = tuple[str, str | None]


def offline(artefact: Artefact, texts: Sequence[Pair]) -> NDArray[np.float32]:
    """Logits by label in the artefact's order, by the code that ``spd evaluate`` uses."""
    opened = open_path(artefact.folder, threads=1)
    with opened.session:
        rows = [opened.tokenizer.encode(*pair) for pair in texts]
        return logits_of(opened.session, opened.tokenizer, rows)


def served(client: TestClient, texts: Sequence[Pair], labels: Sequence[str]) -> NDArray[np.float64]:
    """Logits from one request, in the order of ``labels``."""
    inputs = [{"text": text, "text_pair": pair} for text, pair in texts]
    answer = client.post("/v1/classify", json={"inputs": inputs, "raw_scores": True})
    assert answer.status_code == 200, answer.text
    scores = [{one["label"]: one["score"] for one in r["labels"]} for r in answer.json()["results"]]
    return np.asarray([[row[label] for label in labels] for row in scores])


def test_served_logits_are_the_offline_ones(single: TestClient, single_artefact: Artefact) -> None:
    """A model of single texts gives the same logits over HTTP as without a server."""
    texts: list[Pair] = [(text, None) for text in TEXTS]

    found = served(single, texts, single_artefact.task.labels)

    np.testing.assert_allclose(found, offline(single_artefact, texts), atol=CLOSE, rtol=0)


def test_served_logits_of_pairs_are_the_offline_ones(
    pairs: TestClient, pair_artefact: Artefact
) -> None:
    """A block-sparse model of pairs gives the same logits over HTTP as without a server."""
    texts: list[Pair] = list(zip(TEXTS, reversed(TEXTS), strict=True))

    found = served(pairs, texts, pair_artefact.task.labels)

    np.testing.assert_allclose(found, offline(pair_artefact, texts), atol=CLOSE, rtol=0)


@MANY
@given(st.lists(SENTENCES, min_size=1, max_size=12))
def test_a_batched_row_is_the_row_alone(single: TestClient, texts: list[str]) -> None:
    """A text's logits do not depend on what it is batched with, nor on its place."""
    labels = single.get("/info").json()["labels"]
    pairs: list[Pair] = [(text, None) for text in texts]

    together = served(single, pairs, labels)

    alone = np.concatenate([served(single, [pair], labels) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=CLOSE, rtol=0)
    backwards = served(single, pairs[::-1], labels)
    np.testing.assert_allclose(together, backwards[::-1], atol=CLOSE, rtol=0)


def test_clients_at_once_get_their_own_answers(single: TestClient) -> None:
    """Requests that are batched with those of others are answered as if they were alone."""
    labels = single.get("/info").json()["labels"]
    texts = [f"{word} film" for word in WORDS.split()]
    alone = [served(single, [(text, None)], labels) for text in texts]

    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda text: served(single, [(text, None)], labels), texts))

    np.testing.assert_allclose(found, alone, atol=CLOSE, rtol=0)


def test_requests_that_wait_share_a_batch(tmp_path: Path, session: FakeSession) -> None:
    """What different clients sent while the model was busy runs at once, and is told apart."""
    served = fake_served(tmp_path, session)
    texts = ["a b c", "d e f", "g h i"]

    async def story() -> list[Any]:
        async with ready(served) as (app, state):
            session.gate.close()
            first = Exchange(app, "/predict", {"inputs": "x"})
            await asyncio.to_thread(session.gate.wait_until_reached)
            others = [
                Exchange(app, "/predict", {"inputs": text, "raw_scores": True}) for text in texts
            ]
            await until(lambda: state.classifier().admission.held.tokens == 3 + 3 * 5)
            session.gate.open()
            await first.answer()
            return [await other.answer() for other in others]

    answers = asyncio.run(story())

    ids = [served.tokenizer.encode(text).ids for text in texts]
    assert [len(rows) for rows in session.batches] == [1, 3]
    assert sorted(session.batches[1]) == sorted(ids)
    for row, answer in zip(ids, answers, strict=True):
        assert sorted(one["score"] for one in answer) == sorted(formula(row))


def test_the_native_form(single: TestClient) -> None:
    """Labels come best first with probabilities that add up to 1, and the cut is reported."""
    answer = single.post("/v1/classify", json={"inputs": [{"text": "a film"}, {"text": LONG}]})

    reply = ClassifyReply.model_validate_json(answer.content, strict=True)
    short, long = reply.results
    for result in reply.results:
        scores = [one.score for one in result.labels]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
        assert {one.label for one in result.labels} == {"negative", "positive"}
    assert (short.n_tokens, short.truncated, short.dropped_tokens) == (4, False, 0)
    whole = 5 * (10 + 4) + 2  # "late" is in four pieces; and [CLS] and [SEP]
    assert (long.n_tokens, long.truncated, long.dropped_tokens) == (32, True, whole - 32)


def test_only_the_best_labels_where_so_asked(single: TestClient) -> None:
    """``top_k`` gives as many labels as there are, at most."""
    body = {"inputs": [{"text": "a film"}]}
    full = single.post("/v1/classify", json=body).json()["results"][0]["labels"]

    for top_k in (1, 2, 3):
        found = single.post("/v1/classify", json={**body, "top_k": top_k}).json()
        assert found["results"][0]["labels"] == full[:top_k]


@pytest.mark.parametrize("inputs", ["a film", ["a film"]])
def test_tei_one_text(single: TestClient, inputs: object) -> None:
    """A text, bare or alone in a list, is answered with one list of predictions."""
    answer = single.post("/predict", json={"inputs": inputs}).json()

    assert [set(one) for one in answer] == [{"score", "label"}] * 2
    assert answer[0]["score"] >= answer[1]["score"]


def test_tei_batch(single: TestClient) -> None:
    """A nested list is a batch, answered with a list of lists in its order."""
    texts = ["a good film", "the bus"]

    batch = single.post("/predict", json={"inputs": [[text] for text in texts]}).json()

    alone = [single.post("/predict", json={"inputs": text}).json() for text in texts]
    assert [[one["label"] for one in row] for row in batch] == [
        [one["label"] for one in row] for row in alone
    ]
    np.testing.assert_allclose(
        [[one["score"] for one in row] for row in batch],
        [[one["score"] for one in row] for row in alone],
        atol=CLOSE,
    )


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {}},
        {"parameters": {"top_k": 1, "function_to_apply": "none"}},
        {"options": {"wait_for_model": True}},
        {"normalize": True, "prompt_name": None},
        {"foo": [1]},
    ],
)
def test_tei_unknown_fields_are_ignored(single: TestClient, more: dict[str, object]) -> None:
    """As in TEI, a field that the form does not have changes nothing."""
    body = {"inputs": "a film"}

    found = single.post("/predict", json={**body, **more})

    assert found.status_code == 200
    assert found.json() == single.post("/predict", json=body).json()


def test_tei_flat_list_is_one_pair(pairs: TestClient) -> None:
    """A flat list of two gives one answer, that of the pair in our own form."""
    body = {"inputs": [{"text": "a film", "text_pair": "the movie"}]}

    found = pairs.post("/predict", json={"inputs": ["a film", "the movie"]}).json()

    expected = pairs.post("/v1/classify", json=body).json()["results"][0]["labels"]
    assert found == expected
    nested = pairs.post("/predict", json={"inputs": [["a film", "the movie"]]}).json()
    assert nested == [expected]


def test_a_pairs_order_matters(pairs: TestClient) -> None:
    """The two texts of a pair are told apart."""
    there = pairs.post("/predict", json={"inputs": ["a film", "the slow bus"]}).json()
    back = pairs.post("/predict", json={"inputs": ["the slow bus", "a film"]}).json()

    assert there != back


@pytest.mark.parametrize("truncate", [None, True])
def test_tei_null_truncates(single: TestClient, truncate: bool | None) -> None:
    """As in TEI, null means that a long text may be cut."""
    assert single.post("/predict", json={"inputs": LONG, "truncate": truncate}).status_code == 200


def test_a_text_that_fits_may_decline_truncation(single: TestClient) -> None:
    """Who does not want a text cut gets its answer where there is nothing to cut."""
    body = {"inputs": [{"text": "a film"}], "truncate": False}

    assert single.post("/v1/classify", json=body).status_code == 200


def test_a_text_alone_is_refused_by_a_model_of_pairs(pairs: TestClient) -> None:
    """A missing second text is not taken for an empty one."""
    for path, inputs in (("/v1/classify", [{"text": "x"}]), ("/predict", "x")):
        assert pairs.post(path, json={"inputs": inputs}).status_code == 422


def test_an_answer_tells_where_its_time_went(single: TestClient) -> None:
    """``Server-Timing`` has the milliseconds of tokenising, waiting and running."""
    answer = single.post("/predict", json={"inputs": "a film"})

    stages = [stage.split(";dur=") for stage in answer.headers["Server-Timing"].split(", ")]
    assert [name for name, _ in stages] == ["tok_queue", "tok", "queue", "run"]
    assert all(float(duration) >= 0 for _, duration in stages)


def test_a_text_that_fits_no_batch_is_refused(tmp_path: Path, session: FakeSession) -> None:
    """A row wider than the batch limit is refused instead of waiting for ever."""

    async def story() -> int | None:
        async with ready(fake_served(tmp_path, session), ServeSettings(max_batch_tokens=10)) as (
            app,
            _,
        ):
            exchange = Exchange(app, "/predict", {"inputs": "x " * 20})
            await exchange.answer()
            return exchange.status

    assert asyncio.run(story()) == 422
