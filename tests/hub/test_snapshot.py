"""Models of a hub, as its own client reads them."""

from pathlib import Path

import pytest

import spd_deploy as spd
from spd_deploy.domain.artefact import Artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadModel, Unavailable
from spd_deploy.hub.fetch import fetch_model
from tests.cli.user_folder import mrpc_files
from tests.hub.stand_in import Hub, Repository, use_hub
from tests.tiny import tiny_checkpoint

CARD = b"---\nlicense: mit\n---\nA model.\n"


def test_a_model_is_read_at_the_commit_of_its_revision(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_checkpoint: Checkpoint
) -> None:
    """The folder has the model's name, and a model that was read needs no hub any more."""
    use_hub(monkeypatch, hub.url, tmp_path)
    first = hub.add("us/pairs", block_checkpoint.folder, "main", "v1")
    second = hub.repositories["us/pairs"].commit({"README.md": CARD}, "main")
    hub.repositories["us/pairs"].commit({"onnx/model.onnx": b"large"}, "main")

    old, new = fetch_model("hf://us/pairs@v1"), fetch_model("us/pairs", second, names="owned")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    notes: list[str] = []
    cached = fetch_model("hf://us/pairs", "v1", note=notes.append)

    assert old.origin is not None and new.origin is not None
    assert old.origin.pinned == f"hf://us/pairs@{first}"
    assert (old.origin.license, new.origin.license) == (None, "mit")
    assert (new.origin.commit, new.folder.name, new.name) == (second, "pairs", "pairs")
    assert cached == old and "does not answer" in notes[0]
    assert open_checkpoint(cached.folder).weights_sha256 == block_checkpoint.weights_sha256


def test_commands_read_models_of_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artefact: Artefact
) -> None:
    """An artefact is loaded by its address, and one that was pruned or exported says from where."""
    use_hub(monkeypatch, hub.url, tmp_path)
    hub.add("us/fast", artefact.folder, "main")
    hub.add("us/dense", tiny_checkpoint(tmp_path / "dense", task="mrpc", layers=1).folder, "v1")
    mrpc_files(tmp_path / "MRPC")

    with spd.load("hf://us/fast") as model:
        assert model.path.name == "fast"
    pruned = spd.prune(
        "us/dense", revision="v1", pattern="2:4", data=tmp_path / "MRPC", output=tmp_path / "pruned"
    )
    score = spd.evaluate("us/fast", data=tmp_path / "MRPC")
    exported = spd.export("us/dense@v1", output=tmp_path / "exported")

    assert score.rows == 32
    assert pruned.checkpoint.origins["dense"].address == "hf://us/dense"
    assert open_artefact(exported.path).manifest.origins["checkpoint"].revision == "v1"


def test_what_a_hub_refuses_is_a_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is lacking: the model, the revision, the right, a token, or an answer."""
    use_hub(monkeypatch, hub.url, tmp_path, token=None)
    hub.repositories["us/private"] = Repository(private=True)
    hub.repositories["us/gated"] = Repository(gated=True)
    for name in ("private", "gated", "empty"):
        hub.repositories.setdefault(f"us/{name}", Repository()).commit({"a.txt": b"a"})
    hub.refuse["broken"] = 500

    for reference, kind, reason in (
        ("hf://us/none", BadModel, "the Hugging Face hub has no such model; got us/none"),
        ("hf://us/private", BadModel, "hf auth login"),
        ("hf://us/gated", BadModel, "hf://us/gated is gated"),
        ("hf://us/empty@v2", BadModel, "hf://us/empty has no such revision; got v2"),
        ("hf://us/empty", BadModel, "hf://us/empty holds no model"),
        ("hf://us/broken", Unavailable, "does not answer"),
    ):
        with pytest.raises(kind) as refused:
            fetch_model(reference)
        assert reason in str(refused.value) and "\n" not in str(refused.value)
