"""Triton's layout of a model repository: which models and versions there are, and which count."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.model_source import ModelVersion, lack_of, real_folder, version_folders
from serve.model_versions import worth_trying
from serve.open_model import ServedModel
from serve.repository import models_in, sources_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadCheckpoint, BadSetting
from tests.serve.clients import client_of
from tests.serve.repositories import FakeVersions, opened, put, versions_source


def never(folder: Path, name: str, version: str) -> ServedModel:
    """Open nothing."""
    raise AssertionError


def at(version: int) -> ModelVersion:
    """A version that is not opened."""
    return ModelVersion(
        version=str(version), fingerprint=(), lack="", open=lambda: never(Path(), "", "")
    )


def test_the_highest_version_is_served(
    tmp_path: Path, single_artefact: Artefact, pair_artefact: Artefact
) -> None:
    """Versions are numbers, so 10 comes after 9, and replies name the one that answers."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(pair_artefact.folder, model / "9")
    put(single_artefact.folder, model / "10")

    with client_of([versions_source(model)]) as client:
        found = client.get("/v2/models/reviews").json()
        assert found["versions"] == ["10"]
        assert client.get("/v2/models/reviews/versions/9").status_code == 404
        assert client.get("/v2/models/reviews/versions/10/ready").status_code == 200
        assert client.get("/info").json()["takes"] == "single"


def test_folders_that_are_no_number_are_no_versions(tmp_path: Path) -> None:
    """As in Triton: no leading zero, no sign, no text, and no file."""
    for name in ("2", "10", "0", "01", "-1", "1.5", "latest", "..data", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()

    assert [folder.name for folder in version_folders(tmp_path)] == ["10", "2"]


@given(st.lists(st.integers(1, 30), unique=True, max_size=6), st.integers(1, 30))
def test_no_version_goes_back_while_its_folder_is_there(found: list[int], serving: int) -> None:
    """Only higher versions and its own are tried; once its folder is gone, all are."""
    versions = [at(number) for number in sorted(found, reverse=True)]

    tried = [int(one.version) for one in worth_trying(versions, str(serving))]

    lowest = serving if serving in found else 0
    assert tried == [number for number in sorted(found, reverse=True) if number >= lowest]


def test_hidden_folders_are_no_models(tmp_path: Path) -> None:
    """The folders of a Kubernetes volume and of a file system are passed over."""
    for name in ("b", "a", "..data", ".git", "lost+found"):
        FakeVersions(tmp_path / name).put("1")

    assert [folder.name for folder in models_in(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "empty"),
        (lambda folder: (folder / "a").mkdir(), "has no version"),
        (lambda folder: (folder / "a" / "latest").mkdir(parents=True), "has no version"),
        (lambda folder: (folder / "a" / "1").mkdir(parents=True), "is not an artefact"),
        (lambda folder: os.rmdir(folder), "not a folder that can be read"),
        (
            lambda folder: [FakeVersions(folder / name).put("1") for name in ("a", "A")],
            "differ by case",
        ),
    ],
)
def test_a_repository_without_a_model_is_refused(tmp_path: Path, make: object, told: str) -> None:
    """What is wrong with it is said before anything is opened."""
    folder = tmp_path / "repository"
    folder.mkdir()
    make(folder)  # type: ignore[operator]

    with pytest.raises(BadSetting, match=told):
        sources_of([], folder, never)


@pytest.mark.parametrize("address", ["s3://bucket/models", "hf://owner/name", "gs://b/m/"])
def test_a_repository_at_an_address_is_refused(address: str) -> None:
    """The address is told as it was typed, with what to do."""
    with pytest.raises(BadSetting, match="not an address") as refused:
        sources_of([], Path(address), never)
    assert refused.value.got == address.rstrip("/")
    assert "NAME=s3://" in str(refused.value)


def test_models_are_named_or_in_a_repository(tmp_path: Path) -> None:
    """Both at once, none of both, and a path without a model are refused."""
    FakeVersions(tmp_path / "repository" / "a").put("1")

    with pytest.raises(BadSetting, match="exclude each other"):
        sources_of([("b", tmp_path)], tmp_path / "repository", never)
    with pytest.raises(BadSetting, match="no model to serve"):
        sources_of([], None, never)
    with pytest.raises(BadCheckpoint, match="no such folder"):
        sources_of([("b", tmp_path / "nowhere")], None, never)


def test_a_version_lacks_each_file_that_is_not_copied_yet(
    tmp_path: Path, single_artefact: Artefact
) -> None:
    """Until the last file of the manifest is there, and where the manifest is cut, it is told."""
    names = sorted(file.name for file in single_artefact.folder.iterdir())
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in names:
        assert lack_of(whole) != ""
        (whole / name).write_bytes((single_artefact.folder / name).read_bytes())
    assert lack_of(whole) == ""

    manifest = whole / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    assert lack_of(whole) == "manifest.json is not whole"


def test_a_version_that_does_not_open_leaves_the_start_to_the_next(
    tmp_path: Path, single_artefact: Artefact, caplog: pytest.LogCaptureFixture
) -> None:
    """The server starts with the highest that is whole, and tells which one it refused."""
    model = tmp_path / "reviews"
    model.mkdir()
    put(single_artefact.folder, model / "1")
    damaged = put(single_artefact.folder, model / "2")
    with (damaged / "model.onnx").open("r+b") as file:
        file.write(b"x")

    with client_of([versions_source(model)]) as client:
        assert client.get("/v2/models/reviews").json()["versions"] == ["1"]
        first, second = client.post("/v2/repository/index").json()

    assert (first["version"], first["state"], first["reason"]) == ("1", "READY", "")
    assert (second["version"], second["state"]) == ("2", "UNAVAILABLE")
    assert "model.onnx was changed" in second["reason"]
    assert "version 2 is refused, and version 1 answers" in caplog.text


def test_a_volume_of_links_is_opened_where_its_files_are(
    tmp_path: Path, single_artefact: Artefact
) -> None:
    """Links through ``..data``, as Kubernetes makes them, lead to one folder."""
    data, folder = tmp_path / "..2026_1", tmp_path / "model"
    put(single_artefact.folder, data)
    (tmp_path / "..data").symlink_to(data.name)
    folder.mkdir()
    for file in data.iterdir():
        (folder / file.name).symlink_to(tmp_path / "..data" / file.name)

    assert real_folder(folder) == data.resolve()
    opened(real_folder(folder), "model", "1").session.close()
