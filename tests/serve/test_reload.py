"""A model is replaced while it answers: no request is lost, and nothing unproven ever answers."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from tests.serve.clients import client_of, metric
from tests.serve.fakes import PATIENCE_S
from tests.serve.repositories import FakeVersions, folder_source, put, versions_source

CONTROLLED = ServeSettings(model_control=True)
ASK = {"inputs": [{"text": "a good film"}]}


def load(client: TestClient, name: str = "reviews") -> int:
    """The status of a request to load the newest version."""
    return client.post(f"/v2/repository/models/{name}/load").status_code


def version_of(client: TestClient) -> str:
    """The version that answers."""
    version: str = client.get("/info").json()["model_version"]
    return version


@pytest.fixture
def versions(tmp_path: Path) -> FakeVersions:
    """The model ``reviews`` with version 1."""
    found = FakeVersions(tmp_path / "reviews")
    found.put("1")
    return found


def test_a_newer_version_takes_the_place_of_the_old(versions: FakeVersions) -> None:
    """It answers after the load, the old one is closed, and the counts go on."""
    with client_of([versions.source], CONTROLLED) as client:
        client.post("/v1/classify", json=ASK)
        versions.put("2")
        assert version_of(client) == "1"

        assert load(client) == 200

        assert version_of(client) == "2"
        assert client.post("/v1/classify", json=ASK).status_code == 200
        assert (len(versions.sessions["1"].batches), len(versions.sessions["2"].batches)) == (1, 1)
        assert metric(client, "spd_batch_rows_sum") == 2
        assert metric(client, 'spd_model_swaps_total{model="reviews"}') == 1
        wait_for(lambda: versions.sessions["1"].closed)


def test_a_load_without_a_change_opens_nothing(versions: FakeVersions) -> None:
    """The files are those that answer already."""
    with client_of([versions.source], CONTROLLED) as client:
        assert load(client) == 200

    assert versions.opened == ["1"]


def test_the_scores_are_those_of_the_newer_version(
    tmp_path: Path, single_artefact: Artefact, pair_artefact: Artefact
) -> None:
    """A folder whose artefact was replaced is another model after the load, and not before."""
    folder = tmp_path / "model"
    put(single_artefact.folder, folder)
    with client_of([folder_source("model", folder)], CONTROLLED) as client:
        before = client.post("/v1/classify", json=ASK).json()
        shutil.rmtree(folder)
        put(pair_artefact.folder, folder)
        assert client.post("/v1/classify", json=ASK).json() == before

        assert load(client, "model") == 200

        assert client.get("/info").json()["takes"] == "pair"
        assert client.post("/v1/classify", json=ASK).status_code == 422


def test_what_is_in_flight_finishes_on_the_old_version(versions: FakeVersions) -> None:
    """A batch that runs during the swap is answered by the session that began it."""
    with client_of([versions.source], CONTROLLED) as client, ThreadPoolExecutor() as pool:
        first = versions.sessions["1"]
        first.gate.close()
        running = pool.submit(client.post, "/v1/classify", json=ASK)
        first.gate.wait_until_reached()
        versions.put("2")
        assert load(client) == 200
        assert client.post("/v1/classify", json=ASK).status_code == 200
        assert not first.closed

        first.gate.open()

        assert running.result(PATIENCE_S).status_code == 200
        wait_for(lambda: first.closed)
        assert len(versions.sessions["2"].batches) == 1


def test_a_version_that_does_not_open_never_answers(
    versions: FakeVersions, caplog: pytest.LogCaptureFixture
) -> None:
    """The old one stays; the log, the index and a metric have the reason; a mended one is taken."""
    with client_of([versions.source], CONTROLLED) as client:
        versions.put("2", broken=True)

        assert load(client) == 400

        assert client.post("/v1/classify", json=ASK).status_code == 200
        assert version_of(client) == "1"
        assert client.get("/readyz").status_code == 200
        first, second = client.post("/v2/repository/index").json()
        assert (first["version"], first["state"], first["reason"]) == ("1", "READY", "")
        assert (second["version"], second["state"]) == ("2", "UNAVAILABLE")
        assert "version 2 is damaged" in second["reason"]
        assert "version 2 is refused, and version 1 answers" in caplog.text
        counted = 'spd_model_refused_versions_total{model="reviews",reason="BadArtefact"}'
        assert metric(client, counted) == 1

        versions.put("2")
        assert load(client) == 200
        (only,) = client.post("/v2/repository/index").json()
        assert (only["version"], only["reason"]) == ("2", "")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.safetensors"])
def test_a_damaged_artefact_never_answers(
    tmp_path: Path, single_artefact: Artefact, pair_artefact: Artefact, name: str
) -> None:
    """A real version with one changed bit is refused by name, and the old one answers on."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(single_artefact.folder, model / "1")
    with client_of([versions_source(model)], CONTROLLED) as client:
        before = client.post("/v1/classify", json=ASK).json()
        folder = put(pair_artefact.folder, model / "2")
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

        assert load(client) == 400

        assert client.post("/v1/classify", json=ASK).json() == before
        # The changed bit may leave valid JSON, which only its hash gives away.
        words = "manifest" if name == "manifest.json" else name
        assert words in client.post("/v2/repository/index").json()[1]["reason"]


def test_a_half_copied_version_is_not_opened(versions: FakeVersions) -> None:
    """Who loads it is told which file is missing, and nothing of it was read by a runtime."""
    with client_of([versions.source], CONTROLLED) as client:
        manifest = versions.put("2") / "manifest.json"
        manifest.write_text('{"files": {"weights.bin": ""}}', encoding="utf-8")

        assert load(client) == 400

        assert "no weights.bin in it" in client.post("/v2/repository/index").json()[1]["reason"]
    assert versions.opened == ["1"]


def test_a_batch_that_hangs_in_the_old_version_ends(versions: FakeVersions) -> None:
    """The watchdog looks after versions that retire, so that their requests fail in time."""
    settings = ServeSettings(model_control=True, stall_timeout_s=0.2)
    with client_of([versions.source], settings) as client, ThreadPoolExecutor() as pool:
        first = versions.sessions["1"]
        first.gate.close()
        running = pool.submit(client.post, "/v1/classify", json=ASK)
        first.gate.wait_until_reached()
        versions.put("2")
        load(client)

        assert running.result(PATIENCE_S).status_code == 500
        assert client.get("/livez").status_code == 200
        first.gate.open()


def test_the_files_of_the_version_that_answers_may_go(versions: FakeVersions) -> None:
    """Where its folder is gone the next lower one takes its place; where all are, it stays."""
    versions.put("2")
    with client_of([versions.source], CONTROLLED) as client:
        shutil.rmtree(versions.folder / "2")
        assert load(client) == 200
        assert version_of(client) == "1"

        shutil.rmtree(versions.folder / "1")
        assert load(client) == 200
        assert client.post("/v1/classify", json=ASK).status_code == 200


def test_loads_at_the_same_time_open_a_version_once(versions: FakeVersions) -> None:
    """They wait for each other, and the later ones find that nothing changed."""
    with client_of([versions.source], CONTROLLED) as client, ThreadPoolExecutor(4) as pool:
        versions.put("2")

        assert list(pool.map(lambda _: load(client), range(4))) == [200] * 4

    assert versions.opened == ["1", "2"]


def test_no_request_is_lost_while_versions_are_swapped(
    tmp_path: Path, single_artefact: Artefact, pair_artefact: Artefact
) -> None:
    """Requests go on during five swaps of a real model, and each is answered by one version."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(single_artefact.folder, model / "1")
    stop = threading.Event()
    with client_of([versions_source(model)], CONTROLLED) as client, ThreadPoolExecutor(3) as pool:
        expected = client.post("/v1/classify", json=ASK).json()

        def ask_on() -> list[tuple[int, Any]]:
            answers = []
            while not stop.is_set():
                answer = client.post("/v1/classify", json=ASK)
                answers.append((answer.status_code, answer.json()))
            return answers

        asking = [pool.submit(ask_on) for _ in range(2)]
        for number in range(2, 7):
            put(single_artefact.folder, model / str(number))
            assert load(client) == 200
        stop.set()
        answers = [one for future in asking for one in future.result(PATIENCE_S)]
        assert metric(client, 'spd_model_swaps_total{model="reviews"}') == 5

    assert len(answers) > 10
    assert all(answer == (200, expected) for answer in answers)


def wait_for(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    done = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if is_so():
            return
        done.wait(0.01)
    raise AssertionError
