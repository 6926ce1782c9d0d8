"""Long texts in windows at the server: every protocol, the limits, and what is told and counted."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from starlette.testclient import TestClient

import spd_deploy as spd
from serve.classifier import Classifier
from serve.metrics import Metrics
from serve.open_model import open_served
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.long_texts import TextWindows, WindowPooling
from spd_deploy.domain.text import Side
from tests.serve.clients import client_of, metric
from tests.serve.fakes import FakeSession, fake_served, formula
from tests.serve.protocols.test_same_numbers import PROTOCOLS, native
from tests.serve.test_request_log import Lines
from tests.tiny import WORDS

WORD = WORDS.split()
LONG = " ".join(WORD[i * 7 % len(WORD)] for i in range(90))
TEXTS = ["a good film", LONG, LONG[:260]]
WINDOWS = ServeSettings(long_texts="windows", window_stride=4, window_pooling="max", max_windows=9)


@pytest.fixture(scope="module")
def windowed(single_artefact: Artefact) -> Iterator[TestClient]:
    """A client of a server that reads long texts in windows."""
    with client_of(lambda: open_served(single_artefact.folder, threads=1), WINDOWS) as client:
        yield client


@pytest.fixture
def fake(session: FakeSession, tmp_path: Path) -> Iterator[TestClient]:
    """A server of the fake session with small batches and a queue of ten rows."""
    settings = ServeSettings(max_batch_tokens=70, max_queue_items=10, max_windows=4)
    with client_of(fake_served(tmp_path, session), settings) as client:
        yield client


def classify(client: TestClient, *texts: str, **fields: Any) -> Any:
    """The reply of ``/v1/classify``."""
    body = {"inputs": [{"text": text} for text in texts], **fields}
    return client.post("/v1/classify", json=body).json()


def results(client: TestClient, *texts: str, **fields: Any) -> list[dict[str, Any]]:
    """Its results."""
    found: list[dict[str, Any]] = classify(client, *texts, **fields)["results"]
    return found


@pytest.fixture(scope="module")
def expected(single_artefact: Artefact) -> spd.Predictions:
    """The answers of the Python API, which another test compares with Transformers."""
    with spd.load(single_artefact.folder, threads=1) as model:
        return model.predict(
            TEXTS, long_texts="windows", window_stride=4, window_pooling="max", max_windows=9
        )


@pytest.mark.parametrize("protocol", ["native", *(p for p in PROTOCOLS if p != "oip_ids")])
def test_every_protocol_pools_windows(
    windowed: TestClient, expected: spd.Predictions, protocol: str
) -> None:
    """A server that reads windows gives the scores of the API, however the texts came."""
    ask: Callable[..., Any] = {**PROTOCOLS, "native": native}[protocol]

    for found, answer in zip(ask(windowed, TEXTS), expected, strict=True):
        assert found == pytest.approx(dict(answer.scores), abs=1e-5)


@pytest.mark.parametrize("protocol", ["native", "kserve", "oip"])
def test_a_request_may_ask_for_windows(
    single: TestClient, expected: spd.Predictions, protocol: str
) -> None:
    """A server that cuts reads windows where a request has the fields, with its own stride."""
    fields = {"long_texts": "windows", "window_stride": 4, "window_pooling": "max"}
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}
    path, body = {
        "native": ("/v1/classify", {"inputs": [{"text": text} for text in TEXTS], **fields}),
        "kserve": ("/v1/models/single:predict", {"instances": TEXTS, "parameters": fields}),
        "oip": ("/v2/models/single/infer", {"inputs": [tensor], "parameters": fields}),
    }[protocol]

    reply = single.post(path, json=body).json()

    if protocol == "oip":
        scores = np.reshape(reply["outputs"][1]["data"], (3, -1)).max(1)
    else:
        rows = reply.get("predictions") or [row["labels"] for row in reply["results"]]
        scores = [row[0]["score"] for row in rows]
    assert list(scores) == pytest.approx(expected.scores, abs=1e-5)


def test_each_result_tells_its_windows(
    windowed: TestClient, single: TestClient, single_artefact: Artefact
) -> None:
    """Windows, tokens and what is dropped are the tokenizer's; a request may cut all the same."""
    found = results(windowed, *TEXTS)
    windows = TextWindows(stride=4, most=9)
    reader = single_artefact.tokenizer().in_windows(windows, pairs=False)

    for text, result in zip(TEXTS, found, strict=True):
        row = reader.encode(text)
        assert (result["windows"], result["n_tokens"]) == (len(row.windows), row.n_read)
        assert (result["truncated"], result["dropped_tokens"]) == (False, 0)
    assert results(windowed, *TEXTS, long_texts="cut") == results(single, *TEXTS)
    assert windowed.get("/info").json()["limits"]["long_texts"] == "windows"


@pytest.fixture
def windowed_fake(session: FakeSession, tmp_path: Path) -> Iterator[TestClient]:
    """A server of the fake session that reads windows, two of which fill a batch."""
    settings = ServeSettings(max_batch_tokens=70, long_texts="windows")
    with client_of(fake_served(tmp_path, session), settings) as client:
        yield client


def test_windows_run_in_several_batches_and_are_pooled(
    windowed_fake: TestClient, session: FakeSession, tmp_path: Path
) -> None:
    """From either side, the logits are the mean of the formula over the windows of a text."""
    reader = fake_served(tmp_path, session).tokenizer.in_windows(TextWindows(), pairs=False)

    for side in Side:
        rows = reader.encode(LONG, side=side).windows
        mean_C = np.mean([formula(row.ids) for row in rows], axis=0)
        body = {"input": LONG, "truncation_side": side.value, "use_activation": False}
        found = windowed_fake.post("/classify", json={**body, "truncate_prompt_tokens": -1}).json()
        assert found["data"][0]["probs"] == pytest.approx(mean_C.tolist())
        assert len(rows) == 4
    assert max(map(len, session.batches)) == 2


def test_windows_count_in_log_and_metrics(tmp_path: Path, session: FakeSession) -> None:
    """A line tells windows and tokens; the counter has the windows of texts with several."""
    lines = Lines()
    with client_of(fake_served(tmp_path, session), observers=(lines.log,)) as client:
        found = results(client, "a film", LONG, long_texts="windows")
        assert metric(client, "spd_windows_total") == found[1]["windows"] == 4
        assert metric(client, "spd_truncated_total") == 0

    (line,) = lines.read()
    assert (line["rows"], line["windows"], line["truncated"]) == (2, 5, 0)
    assert line["tokens"] == sum(one["n_tokens"] for one in found)


def test_a_text_with_more_windows_is_cut_or_refused(fake: TestClient) -> None:
    """Behind the last window tokens are dropped and told; who declines that is refused."""
    longer = f"{LONG} {LONG}"

    (found,) = results(fake, longer, long_texts="windows")
    refused = classify(fake, longer, long_texts="windows", truncate=False)

    assert (found["windows"], found["truncated"], found["dropped_tokens"]) == (4, True, 180 - 96)
    assert refused["code"] == "SPD_TEXT_TOO_LONG"
    assert "84 behind 4 windows of 32" in refused["error"]
    (whole,) = results(fake, LONG, long_texts="windows", truncate=False)
    assert not whole["truncated"]


def test_windows_beyond_the_queue_are_refused_by_an_idle_server(fake: TestClient) -> None:
    """Ten rows may be queued: three texts of four windows are twelve, and none of them runs."""
    refused = classify(fake, LONG, LONG, LONG, long_texts="windows")

    assert refused["code"] == "SPD_TEXT_TOO_LONG"
    assert "12 windows of" in refused["error"]
    assert len(results(fake, LONG, LONG, LONG)) == 3
    assert len(results(fake, LONG, LONG, long_texts="windows")) == 2


def test_the_text_of_a_window_that_fails_is_named(fake: TestClient, session: FakeSession) -> None:
    """Only the request of that text fails, and its position is told."""
    first = fake_ids(session, fake, LONG)

    def fail(rows: list[tuple[int, ...]]) -> None:
        if first in rows:
            raise RuntimeError("injected")

    session.fail = fail
    failed = classify(fake, "a film", LONG, long_texts="windows")

    assert failed["code"] == "SPD_ENGINE_FAILED"
    assert failed["error"].startswith("inputs.1: ")
    assert results(fake, "a film", long_texts="windows")[0]["windows"] == 1


def fake_ids(session: FakeSession, client: TestClient, text: str) -> tuple[int, ...]:
    """The ids of the last window of a text, as they reached the session."""
    session.batches.clear()
    results(client, text, long_texts="windows")
    return session.batches[-1][-1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"long_texts": "split"}, "long_texts: Input should be 'cut' or 'windows'"),
        ({"window_stride": 3}, "window_stride and window_pooling go with windows"),
        ({"long_texts": "windows", "window_stride": 30}, "give a stride of 29 or less"),
        ({"long_texts": "windows", "window_stride": -1}, "greater than or equal to 0"),
        ({"long_texts": "windows", "window_pooling": "median"}, "'mean' or 'max'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    fake: TestClient, fields: dict[str, Any], said: str
) -> None:
    """The refusal is 422 with the field, in the native protocol and as parameters."""
    native_reply = classify(fake, "a film", **fields)
    kserve = fake.post("/v1/models/fake:predict", json={"instances": ["a"], "parameters": fields})
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    oip = fake.post("/v2/models/fake/infer", json={"inputs": [tensor], "parameters": fields})

    assert native_reply["code"] == "SPD_MALFORMED"
    assert said in native_reply["error"]
    for reply in (kserve, oip):
        assert reply.status_code == 400
        assert said.rpartition(": ")[2] in reply.text


def test_a_shadow_reads_as_the_request_asked(tmp_path: Path) -> None:
    """The shadow of the same formula never disagrees, though the server cuts by default."""
    from serve.shadow import ShadowSpec
    from tests.serve.test_reload import wait_for
    from tests.serve.test_shadow import counted, fakes

    sources = fakes(tmp_path, first=FakeSession(), second=FakeSession())
    shadows = [ShadowSpec(model="first", other="second", share=1.0)]
    with client_of(sources, shadows=shadows) as client:
        results(client, LONG, long_texts="windows")
        wait_for(lambda: counted(client, "texts_total") == 1)
        assert counted(client, "score_distance_sum") == 0


@pytest.mark.parametrize("kind", ["cut", "windows"])
def test_a_server_whose_stride_fits_no_window_does_not_open(
    tmp_path: Path, session: FakeSession, kind: Literal["cut", "windows"]
) -> None:
    """The model is refused with the largest stride, and its session is closed."""
    served = fake_served(tmp_path, session)
    settings = ServeSettings(long_texts=kind, window_stride=31)

    with pytest.raises(BadSetting, match="give a stride of 29 or less"):
        Classifier(served, settings, Metrics())
    with client_of(served, settings) as client:
        assert client.get("/readyz").status_code == 503
    assert session.closed


@pytest.mark.parametrize("wrong", [{"long_texts": "split"}, {"window_pooling": ""}])
def test_words_of_settings_are_checked(wrong: dict[str, Any]) -> None:
    """A word that is none of the allowed ones is refused when the settings are made."""
    with pytest.raises(BadSetting, match=" or "):
        ServeSettings(**wrong)


def test_a_model_that_was_trained_with_windows_is_served_with_them(
    tmp_path: Path, session: FakeSession
) -> None:
    """Without an option its windows are those of training, in the answer and in ``/info``."""
    served = fake_served(tmp_path, session)
    trained = TextWindows(stride=3, pooling=WindowPooling.MAX, most=5)
    served = replace(served, task=replace(served.task, windows=trained))

    with client_of(served) as client:
        (own,) = results(client, LONG)
        (same,) = results(client, LONG, long_texts="windows", window_stride=3, window_pooling="max")
        (cut,) = results(client, LONG, long_texts="cut")
        limits = client.get("/info").json()["limits"]

    assert own == same and own["windows"] > 1
    assert cut["windows"] == 1 and cut["truncated"]
    assert (limits["long_texts"], limits["window_stride"]) == ("windows", 3)
    assert (limits["window_pooling"], limits["max_windows"]) == ("max", 5)
