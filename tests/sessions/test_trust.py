"""What was verified is what runs: links, changed files, flipped bits, and contradicting files."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.export import artefact_from_checkpoint
from exporters.torch.export import torch_artefact_from_checkpoint
from serve.open_model import open_served
from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.documents import with_own_hash
from spd_deploy.domain.errors import BadArtefact, BadModel, SpdError, Unavailable
from spd_deploy.domain.files import bytes_of, sha256_of
from spd_deploy.domain.golden import ANSWERS_FILE
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.sessions.open import open_path, session_from_artefact
from tests.tiny import tiny_checkpoint

RUNTIMES = ("onnxruntime", "openvino", "torch", "auto")
WEIGHTS = ("weights.bin", "model.safetensors")
# Of longer files not every byte is flipped.
_MAX_FLIPS = 100


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """An artefact of one narrow layer."""
    folder = tmp_path_factory.mktemp("smallest")
    checkpoint = tiny_checkpoint(
        folder / "m", layers=1, hidden=8, heads=2, intermediate=8, positions=32
    )
    return artefact_from_checkpoint(checkpoint, folder / "a")


@pytest.fixture(scope="module")
def models(
    dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder for each runtime on the CPU; a checkpoint runs in PyTorch as it is."""
    folder = tmp_path_factory.mktemp("models")
    onnx = artefact_from_checkpoint(dense_checkpoint, folder / "onnx").folder
    torch = torch_artefact_from_checkpoint(
        dense_checkpoint, folder / "torch", precision="fp32"
    ).folder
    return {"onnxruntime": onnx, "openvino": onnx, "torch": torch, "auto": dense_checkpoint.folder}


@pytest.fixture
def copy(smallest: Artefact, tmp_path: Path) -> Path:
    """An artefact that a test may change."""
    return Path(shutil.copytree(smallest.folder, tmp_path / "artefact"))


def volume(artefact: Path, folder: Path) -> Path:
    """The artefact as Kubernetes mounts it: links to a folder that a link leads to."""
    data = folder / "..2026_11_30"
    shutil.copytree(artefact, data)
    (folder / "..data").symlink_to(data.name)
    for file in data.iterdir():
        (folder / file.name).symlink_to(Path("..data") / file.name)
    return folder


def hub_cache(artefact: Path, folder: Path) -> Path:
    """The artefact as a hub's cache keeps it: links to files that are named by their hash."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in artefact.iterdir():
        shutil.copyfile(file, blobs / sha256_of(file))
        (snapshot / file.name).symlink_to(Path("../../blobs") / sha256_of(file))
    return snapshot


@pytest.mark.parametrize("laid_out", [volume, hub_cache])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_an_artefact_of_links_is_served(
    models: dict[str, Path], tmp_path: Path, runtime: str, laid_out: Callable[[Path, Path], Path]
) -> None:
    """The content of files counts, not where they lie; a file that is linked to counts once."""
    folder = laid_out(models[runtime], tmp_path)

    with open_served(folder, runtime_choice=RUNTIME_CHOICES[runtime]).session as session:
        assert session.description.runtime == runtime
    assert bytes_of(folder) == bytes_of(models[runtime])


@pytest.mark.parametrize("laid_out", [volume, hub_cache])
def test_a_link_to_other_content_is_refused(
    copy: Path, tmp_path: Path, laid_out: Callable[[Path, Path], Path]
) -> None:
    """A linked file is hashed as any other."""
    folder = laid_out(copy, tmp_path / "volume")
    target = (folder / "weights.bin").resolve()
    target.write_bytes(bytes(target.stat().st_size))

    with pytest.raises(BadArtefact, match=r"weights\.bin was changed after the export"):
        open_served(folder)


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere", "."])
def test_a_link_to_no_file_is_refused(copy: Path, target: str) -> None:
    """Devices, folders and nothing at all are told, and not read."""
    (copy / "config.json").unlink()
    (copy / "config.json").symlink_to(target)

    with pytest.raises(BadArtefact, match=rf"config\.json is missing; got a link to {target}"):
        open_artefact(copy)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_running_session_keeps_its_files(
    models: dict[str, Path], tmp_path: Path, runtime: str
) -> None:
    """Weights that are overwritten in place under a session change none of its answers."""
    folder = Path(shutil.copytree(models[runtime], tmp_path / "m"))
    opened = open_path(folder, runtime_choice=RUNTIME_CHOICES[runtime], threads=2)
    batch = opened.tokenizer.pad([opened.tokenizer.encode("the film was great"), *_rows(opened, 8)])
    with opened.session as session:
        before_BC = session.run(batch)
        for name in WEIGHTS:
            if (file := folder / name).exists():
                with file.open("r+b") as stream:
                    stream.write(random.Random(0).randbytes(file.stat().st_size))

        np.testing.assert_array_equal(session.run(batch), before_BC)


def test_a_running_session_survives_a_truncated_file(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """Weights that are cut short under a session of any runtime kill no process."""
    for runtime in RUNTIMES:
        shutil.copytree(models[runtime], tmp_path / runtime)
    script = f"""
import os
from pathlib import Path
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.sessions.open import open_path
for runtime in {list(RUNTIMES)}:
    folder = Path({str(tmp_path)!r}) / runtime
    opened = open_path(folder, runtime_choice=RUNTIME_CHOICES[runtime], threads=1)
    for name in {WEIGHTS}:
        if (folder / name).exists():
            os.truncate(folder / name, 0)
    batch = opened.tokenizer.pad([opened.tokenizer.encode("great")])
    print(runtime, *opened.session.run(batch).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    told = [line for line in done.stdout.splitlines() if line.endswith(" 1 2")]
    assert (done.returncode, told) == (0, [f"{runtime} 1 2" for runtime in RUNTIMES]), done.stderr


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_weights_that_change_before_they_are_loaded_are_refused(
    models: dict[str, Path], tmp_path: Path, runtime: str
) -> None:
    """What is loaded is verified when it is loaded, however long ago the artefact was opened."""
    folder = Path(shutil.copytree(models[runtime], tmp_path / "m"))
    artefact = open_artefact(folder)
    (name,) = artefact.weights()
    (folder / name).write_bytes(bytes((folder / name).stat().st_size))

    with pytest.raises(BadArtefact, match=rf"{folder / name} was changed after the export"):
        session_from_artefact(artefact, runtime=RUNTIME_CHOICES[runtime].runtime)


def test_private_copies_are_deleted(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy outlives the opening, and a place without room is told with the remedy."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for runtime in RUNTIMES:
        with open_path(models[runtime], runtime_choice=RUNTIME_CHOICES[runtime]).session:
            assert not list(tmp_path.iterdir())

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    for runtime in RUNTIMES:
        with pytest.raises(Unavailable, match=r"No such file or directory.*; set TMPDIR"):
            open_path(models[runtime], runtime_choice=RUNTIME_CHOICES[runtime])


def flips(file: Path) -> Iterator[bytes]:
    """The file's content with one bit flipped: in each byte, or in many places of a long file."""
    content, draw = file.read_bytes(), random.Random(0)
    for place in range(0, len(content), max(1, len(content) // _MAX_FLIPS)):
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        yield bytes(changed)


def test_every_flipped_bit_of_a_file_is_found(copy: Path, smallest: Artefact) -> None:
    """Whatever bit of whatever file changes, the artefact is refused, and the file is named."""
    for name in smallest.manifest.files:
        original = (copy / name).read_bytes()
        for changed in flips(copy / name):
            (copy / name).write_bytes(changed)
            with pytest.raises(BadArtefact, match=f"{name} was changed after the export"):
                open_artefact(copy)
        (copy / name).write_bytes(original)
    assert open_artefact(copy).manifest == smallest.manifest


def test_every_flipped_bit_of_the_manifest_is_found(copy: Path, smallest: Artefact) -> None:
    """Each byte of the manifest matters: one changed bit is refused, or says the same as before."""
    file = copy / MANIFEST_FILE
    content, draw = file.read_bytes(), random.Random(1)
    refused = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        try:
            assert open_artefact(copy).manifest == smallest.manifest
        except BadArtefact:
            refused += 1
    assert refused > 0.9 * len(content)


def resealed(
    folder: Path, change: Callable[[dict[str, Any]], None], **files: dict[str, Any]
) -> Path:
    """The artefact with another manifest and other JSON files, all hashes of which fit."""
    value = json.loads((folder / MANIFEST_FILE).read_text())
    for name, document in files.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **document}))
        value["files"][file.name] = sha256_of(file)
    change(value)
    (folder / MANIFEST_FILE).write_text(json.dumps(with_own_hash(value)))
    return folder


def _swap_labels(value: dict[str, Any]) -> None:
    value["task"]["labels"].reverse()


def _multi_label(value: dict[str, Any]) -> None:
    value["task"]["problem_type"] = "multi_label_classification"


def _cut_later(value: dict[str, Any]) -> None:
    value["max_tokens"] += 1


@pytest.mark.parametrize(
    ("change", "said"),
    [(_swap_labels, "labels"), (_multi_label, "problem_type"), (_cut_later, "max_tokens")],
)
def test_the_manifest_and_the_config_must_agree(
    copy: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    """A manifest whose own hash fits is still held to what ``config.json`` says."""
    with pytest.raises(BadArtefact, match=rf"config\.json disagree about {said}"):
        open_artefact(resealed(copy, change))


def test_labels_that_transformers_cannot_read_are_refused(copy: Path) -> None:
    """Outputs that ``config.json`` does not number from 0 make no artefact, whatever the hashes."""
    gap = {"id2label": {"0": "negative", "2": "positive"}}

    with pytest.raises(BadArtefact, match="does not number the outputs"):
        open_artefact(resealed(copy, lambda _: None, config=gap))


@pytest.mark.parametrize(
    ("change", "config"),
    [
        (_swap_labels, {"id2label": {"0": "positive", "1": "negative"}}),
        (_multi_label, {"problem_type": "multi_label_classification"}),
    ],
)
def test_golden_texts_prove_labels_and_scores(
    copy: Path, change: Callable[[dict[str, Any]], None], config: dict[str, Any]
) -> None:
    """Other labels or scores are refused even where the manifest and ``config.json`` agree."""
    folder = resealed(copy, change, config=config)

    open_artefact(folder)
    with pytest.raises(BadArtefact, match="a golden text gets other labels or scores"):
        open_path(folder)


def test_golden_texts_prove_the_tokenizer(copy: Path) -> None:
    """A tokenizer that splits a text otherwise is refused, though its hash fits."""
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    folder = resealed(
        copy,
        lambda value: None,
        tokenizer={"normalizer": tokenizer["normalizer"] | {"lowercase": False}},
    )

    with pytest.raises(BadArtefact, match="a golden text is split into other tokens"):
        open_path(folder)


def test_golden_texts_are_the_checkpoints_answers(
    dense_checkpoint: Checkpoint, models: dict[str, Path]
) -> None:
    """The scores in ``golden.json`` are the softmax of the logits that PyTorch gives."""
    told = json.loads((models["onnxruntime"] / ANSWERS_FILE).read_text())["texts"]
    opened = open_path(dense_checkpoint.folder)

    with opened.session as session:
        for text in told:
            row = opened.tokenizer.encode(text["text"], text["pair"])
            logits_C = session.run(opened.tokenizer.pad([row]))[0].astype(np.float64)
            expected_C = np.exp(logits_C) / np.exp(logits_C).sum()
            found = [text["scores"][label] for label in dense_checkpoint.task.labels]
            np.testing.assert_allclose(found, expected_C, rtol=1e-5)


def test_an_older_artefact_says_to_export_again(copy: Path) -> None:
    """One of an earlier schema is refused in one line with the remedy."""
    value = json.loads((copy / MANIFEST_FILE).read_text())
    (copy / MANIFEST_FILE).write_text(json.dumps({**value, "schema": 1}))

    with pytest.raises(BadArtefact, match=r"got 1; export it again with this version.* schema 3"):
        open_artefact(copy)


def test_a_checkpoint_that_contradicts_its_config_is_not_exported(tmp_path: Path) -> None:
    """Labels that ``config.json`` has in another order are not guessed."""
    checkpoint = tiny_checkpoint(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    labels = {"id2label": {"0": "positive", "1": "negative"}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | labels))

    with pytest.raises(BadModel, match="described with other labels than its config"):
        artefact_from_checkpoint(checkpoint, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_errors_of_a_copy_name_the_original(models: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint that is damaged is told by the path that the user gave."""
    folder = Path(shutil.copytree(models["auto"], tmp_path / "m"))
    (folder / "model.safetensors").write_bytes(b"none")

    with pytest.raises(SpdError) as caught:
        open_path(folder)

    assert str(folder) in str(caught.value)
    assert "spd-private" not in str(caught.value)


def _rows(opened: Any, count: int) -> list[Any]:
    """Rows enough to be shared out among threads."""
    return [opened.tokenizer.encode("not very good " * n) for n in range(1, count)]
