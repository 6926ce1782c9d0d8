"""Models at URLs: copied once, whole and verified, or not at all."""

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

import spd_deploy as spd
from spd_deploy.cli.options.model_options import named_paths
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import (
    BadArtefact,
    BadCheckpoint,
    BadModel,
    BadSetting,
    SpdError,
    Unavailable,
)
from spd_deploy.hub import url_copy
from spd_deploy.hub.cache import new_folder
from spd_deploy.hub.fetch import fetch_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a memory without files."""
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setattr(url_copy, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "copies"


def put(folder: Path, url: str) -> str:
    """Store a folder's files at a URL of the memory."""
    for file in folder.iterdir():
        with fsspec.open(f"{url}/{file.name}", "wb") as stream:
            stream.write(file.read_bytes())
    return url


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server, and the folder that it offers."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    root = tmp_path / "web"
    root.mkdir()
    handler = functools.partial(Quiet, directory=root)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", root
        server.shutdown()
        thread.join()


def test_an_artefact_is_copied_once_and_served_under_its_name(
    artefact: Artefact, cache: Path
) -> None:
    """The second time only the manifest is read; without an answer the copy is used, and told."""
    url = put(artefact.folder, "memory://bucket/models/pairs")
    notes: list[str] = []

    first = fetch_model(url, note=notes.append)
    system = fsspec.filesystem("memory")
    for name in list(system.store):
        if not name.endswith("manifest.json"):
            del system.store[name]
    again = fetch_model(url, note=notes.append)
    served = named_paths([url, f"other={url}"], notes.append)
    with spd.load(url) as model:
        assert model.predict("a film", "a plot").label in model.labels

    assert (first.folder.name, first.name) == ("pairs", "pairs")
    assert again == first and len(notes) == 1 and notes[0].startswith(f"copying {url} into {cache}")
    assert served == [("pairs", first.folder), ("other", first.folder)]
    assert first.origin is not None and first.origin.pinned == url


def test_a_checkpoint_is_read_over_http(
    web: tuple[str, Path], block_checkpoint: Checkpoint
) -> None:
    """A changed one is copied anew, and the earlier copy stands in for a server that is gone."""
    address, root = web
    folder = root / "pairs"
    shutil.copytree(block_checkpoint.folder, folder)
    url = f"{address}/pairs?signature=secret"
    notes: list[str] = []

    first = fetch_model(url, note=notes.append)
    (folder / "spd.json").unlink()
    plain = fetch_model(url, note=notes.append)

    assert open_checkpoint(first.folder).pattern == block_checkpoint.pattern
    assert plain.folder != first.folder
    assert open_checkpoint(plain.folder).detected is not None
    assert "secret" not in "".join(notes) and "secret" not in str(first.origin)


def test_a_server_that_is_gone_is_replaced_by_the_copy(
    artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is told; without a copy there is one line."""
    url = put(artefact.folder, "memory://bucket/pairs")
    first = fetch_model(url)
    notes: list[str] = []

    def gone(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", gone)

    assert fetch_model(url, note=notes.append) == first
    assert notes == [
        f"{url} does not answer (no route to host): the copy in {first.folder} is used"
    ]
    with pytest.raises(Unavailable, match="memory://bucket/other does not answer; got no route"):
        fetch_model("memory://bucket/other")


@pytest.mark.parametrize(
    ("spoilt", "error", "reason"),
    [
        ("weights.bin", BadArtefact, "weights.bin of memory://bucket/m is not the file that its"),
        ("-weights.bin", Unavailable, "memory://bucket/m did not give weights.bin"),
        ("manifest.json", BadModel, "memory://bucket/m is damaged"),
    ],
)
def test_a_damaged_artefact_leaves_no_copy(
    artefact: Artefact, cache: Path, spoilt: str, error: type[SpdError], reason: str
) -> None:
    """A changed, a missing and a cut file are found before anything can use them."""
    url = put(artefact.folder, "memory://bucket/m")
    name = spoilt.removeprefix("-")
    store = fsspec.filesystem("memory").store
    content = store[f"/bucket/m/{name}"].getvalue()
    fsspec.filesystem("memory").rm(f"/bucket/m/{name}")
    if name == spoilt:
        with fsspec.open(f"{url}/{name}", "wb") as stream:
            stream.write(content[: len(content) // 2])

    with pytest.raises(error) as refused:
        fetch_model(url, note=lambda text: None)

    assert reason in str(refused.value)
    assert not list(cache.rglob("config.json"))


def test_a_copy_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    """Its files may be in use, so they are not replaced by equal ones."""
    with new_folder(tmp_path / "m") as draft:
        (draft / "late").touch()
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "first").touch()

    assert [file.name for file in tmp_path.rglob("*")] == ["m", "first"]


def test_names_of_files_stay_in_the_folder(artefact: Artefact) -> None:
    """A manifest cannot name a file elsewhere."""
    url = put(artefact.folder, "memory://bucket/m")
    manifest = {"files": {"../../m": "0"}}
    with fsspec.open(f"{url}/manifest.json", "w") as stream:
        stream.write(json.dumps(manifest))

    with pytest.raises(BadArtefact, match=r"names a file outside of it; got \.\./\.\./m"):
        fetch_model(url)


def test_the_weights_of_a_checkpoint_are_those_of_its_record(block_checkpoint: Checkpoint) -> None:
    """A folder without weights, and one with others, are no checkpoints."""
    url = put(block_checkpoint.folder, "memory://bucket/m")
    with fsspec.open(f"{url}/model.safetensors", "ab") as stream:
        stream.write(b"more")
    with pytest.raises(BadCheckpoint, match=r"are not those that its spd\.json describes"):
        fetch_model(url, note=lambda text: None)

    fsspec.filesystem("memory").rm("/bucket/m/model.safetensors")
    with pytest.raises(BadModel, match="has no safetensors of a whole model"):
        fetch_model(url)


@pytest.mark.parametrize(
    ("url", "error", "reason"),
    [
        ("memory://bucket/none", BadModel, "memory://bucket/none holds no model"),
        ("s3://bucket/m", Unavailable, "not installed: s3fs; pip install s3fs"),
        ("gs://bucket/m", Unavailable, "not installed: gcsfs; pip install gcsfs"),
        ("nowhere://bucket/m", BadSetting, "nowhere:// is no kind of address that is known"),
        ("http://127.0.0.1:9/m", Unavailable, "http://127.0.0.1:9/m does not answer"),
    ],
)
def test_an_address_that_cannot_be_read_is_a_line(
    url: str, error: type[SpdError], reason: str
) -> None:
    """It names the package to install, or what is not there."""
    with pytest.raises(error) as refused:
        fetch_model(url)

    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_a_url_without_the_right_to_read_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier copy is not used then."""

    def forbidden(*args: object, **kwargs: object) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", forbidden)

    with pytest.raises(BadModel, match="memory://b/m may not be read; got Forbidden; give the"):
        fetch_model("memory://b/m")
