"""Watching folders: a change counts once it is whole and settled, and counts once."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

import serve.watch
from serve.model_source import Look
from serve.watch import Watched, step
from spd_deploy.domain.artefact import Artefact
from tests.serve.clients import client_of, metric
from tests.serve.repositories import FakeVersions, put, versions_source
from tests.serve.test_reload import ASK, version_of, wait_for

SWAPS = 'spd_model_swaps_total{{model="{}"}}'
TICK_S = 0.02


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look fifty times a second."""
    monkeypatch.setattr(serve.watch, "LOOK_EVERY_S", TICK_S)
    yield


def some_looks() -> None:
    """Wait for a number of looks."""
    threading.Event().wait(15 * TICK_S)


def look(state: int) -> Look:
    """What a look finds in this state of the disk."""
    return (("1", (("file", 1, state, 0),)),)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_a_change_counts_once_and_only_when_it_has_settled(states: list[int]) -> None:
    """It is acted upon at the second look in a row that finds it, against a plain account."""
    watched = Watched(seen=look(0), done=look(0))
    done, before, acted, expected = 0, 0, [], []
    for now in states:
        watched, acts = step(watched, look(now))
        acted.append(acts)
        expected.append(now == before and now != done)
        done, before = (now if expected[-1] else done), now

    assert acted == expected


def test_a_new_version_is_served_without_being_asked(tmp_path: Path) -> None:
    """A folder that appears whole is opened, once."""
    versions = FakeVersions(tmp_path / "reviews")
    versions.put("1")
    with client_of([versions.source], watch=True) as client:
        versions.put("2")
        wait_for(lambda: version_of(client) == "2")
        some_looks()

        assert versions.opened == ["1", "2"]
        assert metric(client, SWAPS.format("reviews")) == 1


def test_a_version_that_is_being_copied_is_not_opened(
    tmp_path: Path, single_artefact: Artefact, caplog: pytest.LogCaptureFixture
) -> None:
    """With the manifest first and a file missing it waits, and serves once the last is there."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(single_artefact.folder, model / "1")
    with client_of([versions_source(model)], watch=True) as client:
        (model / "2").mkdir()
        for name in ("manifest.json", *sorted(os.listdir(single_artefact.folder))[:-1]):
            shutil.copy(single_artefact.folder / name, model / "2" / name)
        some_looks()
        assert version_of(client) == "1"
        assert len(client.post("/v2/repository/index").json()) == 1
        assert "version 2 is not complete yet: no weights.bin in it" in caplog.text

        shutil.copy(single_artefact.folder / "weights.bin", model / "2" / "weights.bin")
        wait_for(lambda: version_of(client) == "2")


def test_a_copy_that_stands_still_is_refused_once_and_taken_when_whole(
    tmp_path: Path, single_artefact: Artefact
) -> None:
    """Half of the last file has the wrong hash; it never answers, and the rest of it heals it."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(single_artefact.folder, model / "1")
    weights = (single_artefact.folder / "weights.bin").read_bytes()
    counted = 'spd_model_refused_versions_total{model="reviews",reason="BadArtefact"}'
    with client_of([versions_source(model)], watch=True) as client:
        shutil.copytree(single_artefact.folder, tmp_path / "half")
        (tmp_path / "half" / "weights.bin").write_bytes(weights[: len(weights) // 2])
        (tmp_path / "half").rename(model / "2")
        wait_for(lambda: counted in client.get("/metrics").text)
        some_looks()
        assert metric(client, counted) == 1
        assert client.post("/v1/classify", json=ASK).status_code == 200
        assert version_of(client) == "1"

        (model / "2" / "weights.bin").write_bytes(weights)
        wait_for(lambda: version_of(client) == "2")


def test_a_version_beside_one_that_is_being_copied_is_served(
    tmp_path: Path, single_artefact: Artefact
) -> None:
    """The copy waits, is not refused, and does not hold up what is whole."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(single_artefact.folder, model / "1")
    with client_of([versions_source(model)], watch=True) as client:
        (model / "3").mkdir()
        shutil.copy(single_artefact.folder / "manifest.json", model / "3" / "manifest.json")
        put(single_artefact.folder, model / "2")
        wait_for(lambda: version_of(client) == "2")

        (only,) = client.post("/v2/repository/index").json()
        assert only["version"] == "2"


def test_a_volume_whose_link_is_swapped_is_one_event(tmp_path: Path) -> None:
    """Kubernetes swaps ``..data``: both models that lie behind it are replaced once."""
    volume = tmp_path / "volume"
    volume.mkdir()
    for state in ("..2026_1", "..2026_2"):
        for name in ("first", "second"):
            FakeVersions(volume / state / name).put("1")
    (volume / "..data").symlink_to("..2026_1")
    for name in ("first", "second"):
        (volume / name).symlink_to(f"..data/{name}")
    models = [FakeVersions(volume / name) for name in ("first", "second")]
    with client_of([one.source for one in models], watch=True) as client:
        (volume / "..data_tmp").symlink_to("..2026_2")
        (volume / "..data_tmp").rename(volume / "..data")
        shutil.rmtree(volume / "..2026_1")

        for one in ("first", "second"):
            wait_for(lambda one=one: swaps(client, one) == 1)  # type: ignore[misc]
        some_looks()

        assert [swaps(client, one) for one in ("first", "second")] == [1, 1]
        assert [one.opened for one in models] == [["1", "1"]] * 2


def swaps(client: TestClient, model: str) -> float:
    """How often a model was replaced."""
    return metric(client, SWAPS.format(model))
