"""Models that come and go in a repository while the server runs."""

import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import serve.watch
from serve.model_plan import RuntimeSettings, models_from
from serve.open_model import ServedModel
from serve.repository import Repository, sources_of
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.folders import MANIFEST_FILE
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.repositories import FakeVersions, put
from tests.serve.test_reload import wait_for

TICK_S = 0.005
CONTROLLED = ServeSettings(model_control=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look many times a second."""
    monkeypatch.setattr(serve.watch, "LOOK_EVERY_S", TICK_S)
    yield


def open_fake(folder: Path, name: str, version: str) -> ServedModel:
    """A fake of a version, as far as its manifest lets it open."""
    if json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))["broken"]:
        raise BadArtefact(f"version {version} is damaged", fix="export it again")
    scratch = folder.parents[2]
    return replace(fake_served(scratch, FakeSession()), name=name, version=version)


def client_at(folder: Path, *, watch: bool = True) -> AbstractContextManager[TestClient]:
    """A client of a server of the fakes in a repository."""
    return client_of(
        sources_of([], folder, open_fake),
        CONTROLLED,
        repository=Repository(folder, open_fake),
        watch=watch,
    )


def answer(client: TestClient, name: str) -> int:
    """The status of a text for this model."""
    body = {"model": name, "inputs": [{"text": "a film"}]}
    return client.post("/v1/classify", json=body).status_code


def index(client: TestClient) -> dict[str, tuple[str, str]]:
    """State and reason of each model of the repository."""
    found = client.post("/v2/repository/index").json()
    return {one["name"]: (one["state"], one["reason"]) for one in found}


def remove(folder: Path, name: str) -> None:
    """Take a model away in one step."""
    (folder / name).rename(folder / f".{name}")
    shutil.rmtree(folder / f".{name}")


def add(folder: Path, name: str, *, broken: bool = False) -> None:
    """Put a model there in one step."""
    FakeVersions(folder / f".{name}").put("1", broken=broken)
    (folder / f".{name}").rename(folder / name)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.sets(st.sampled_from("bcd")), min_size=1, max_size=3))
def test_what_answers_is_what_is_there(
    steps: list[set[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After any additions and removals each folder's model answers, and no other does."""
    folder = tmp_path_factory.mktemp("law") / "repository"
    FakeVersions(folder / "a").put("1")
    with client_at(folder) as client:
        there: set[str] = set()
        for wanted in steps:
            for name in wanted - there:
                add(folder, name)
            for name in there - wanted:
                remove(folder, name)
            there = wanted
            expected = {name: 200 if name in {"a", *wanted} else 404 for name in "abcd"}

            wait_for(lambda: {name: answer(client, name) for name in "abcd"} == expected)  # noqa: B023

            assert index(client) == {name: ("READY", "") for name in {"a", *wanted}}
            assert client.get("/readyz").status_code == 200


def test_a_real_model_is_added_and_removed(tmp_path: Path, single_artefact: Artefact) -> None:
    """An artefact that is copied into the folder answers as the first does, and is then let go."""
    folder = tmp_path / "repository"
    (folder / "first").mkdir(parents=True)
    put(single_artefact.folder, folder / "first" / "1")
    runtime = RuntimeSettings(choice=RUNTIME_CHOICES["auto"], threads=1)
    plan = models_from([], folder, [], runtime)
    with client_of(plan.sources, repository=plan.repository, watch=True) as client:
        body = {"inputs": [{"text": "a good film"}]}
        expected = client.post("/v1/classify", json=body).json()["results"]

        shutil.copytree(folder / "first", folder / "second")
        wait_for(lambda: answer(client, "second") == 200)
        found = client.post("/v1/classify", json={**body, "model": "second"}).json()

        assert (found["model"], found["results"]) == ("second", expected)
        assert client.post("/v1/classify", json=body).json()["model"] == "first"
        remove(folder, "second")
        wait_for(lambda: answer(client, "second") == 404)
        assert client.get("/readyz").status_code == 200


def test_a_model_that_does_not_open_is_not_served_until_it_is_mended(tmp_path: Path) -> None:
    """It is listed with its reason, the server stays ready, and mended files are taken."""
    folder = tmp_path / "repository"
    FakeVersions(folder / "a").put("1")
    with client_at(folder) as client:
        add(folder, "b", broken=True)
        wait_for(lambda: "damaged" in index(client).get("b", ("", ""))[1])
        assert (answer(client, "b"), client.get("/readyz").status_code) == (404, 200)
        assert index(client)["b"][0] == "UNAVAILABLE"

        FakeVersions(folder / "b").put("1")

        wait_for(lambda: answer(client, "b") == 200)
        assert index(client)["b"] == ("READY", "")


def test_a_model_that_is_moved_away_and_back_answers_again(tmp_path: Path) -> None:
    """The same files are opened anew, although nothing of them changed."""
    folder = tmp_path / "repository"
    for name in "ab":
        FakeVersions(folder / name).put("1")
    with client_at(folder) as client:
        (folder / "b").rename(tmp_path / "b")
        wait_for(lambda: answer(client, "b") == 404)
        (tmp_path / "b").rename(folder / "b")

        wait_for(lambda: answer(client, "b") == 200)


def test_a_repository_that_is_gone_takes_no_model_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A volume that is not mounted looks empty, and every model answers on."""
    folder = tmp_path / "repository"
    for name in "ab":
        FakeVersions(folder / name).put("1")
    with client_at(folder) as client:
        folder.rename(tmp_path / "elsewhere")
        wait_for(lambda: "is not a folder that can be read" in caplog.text)
        folder.mkdir()
        wait_for(lambda: "the model repository is empty" in caplog.text)

        assert [answer(client, name) for name in "ab"] == [200, 200]


def test_the_last_model_stays_until_another_answers(tmp_path: Path) -> None:
    """Where one folder takes the place of the only other, there is no time without a model."""
    folder = tmp_path / "repository"
    FakeVersions(folder / "a").put("1")
    with client_at(folder) as client:
        add(folder, "b")
        remove(folder, "a")
        wait_for(lambda: answer(client, "b") == 200)
        wait_for(lambda: answer(client, "a") == 404)

        assert client.post("/predict", json={"inputs": "a film"}).status_code == 200


def test_without_watching_a_client_loads_what_is_new(tmp_path: Path) -> None:
    """The index lists it as not loaded; the load opens it, and says where there is none."""
    folder = tmp_path / "repository"
    FakeVersions(folder / "a").put("1")
    load = "/v2/repository/models/{}/load"
    with client_at(folder, watch=False) as client:
        add(folder, "b")
        assert index(client)["b"] == ("UNAVAILABLE", "not loaded")
        assert answer(client, "b") == 404

        assert client.post(load.format("b")).status_code == 200
        assert client.post(load.format("c")).status_code == 404

        assert answer(client, "b") == 200
        assert index(client)["b"] == ("READY", "")


@pytest.mark.parametrize("name", ["A", "\x07bell", ".hidden", "lost+found"])
def test_a_folder_that_can_be_no_model_is_passed_over(tmp_path: Path, name: str) -> None:
    """A name that is another's but for case, or that no URL can have, is left alone."""
    folder = tmp_path / "repository"
    FakeVersions(folder / "a").put("1")
    with client_at(folder) as client:
        FakeVersions(folder / name).put("1")
        add(folder, "b")
        wait_for(lambda: answer(client, "b") == 200)

        assert set(index(client)) == {"a", "b"}
