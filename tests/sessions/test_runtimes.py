"""Which runtime opens an artefact: the manifest's, the one asked for, or a refusal."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from exporters.export import artefact_from_checkpoint
from serve.open_model import open_served
from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact, Manifest
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.documents import with_own_hash
from spd_deploy.domain.errors import BadArtefact, BadSetting, Unavailable
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES, Runtime, RuntimeChoice
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.open import model_file, open_path, session_from_artefact
from tests.portable import with_portable


@pytest.fixture(scope="module")
def plain(block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return artefact_from_checkpoint(block_checkpoint, tmp_path_factory.mktemp("runtimes") / "a")


@pytest.fixture(scope="module")
def artefact(plain: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return with_portable(plain, tmp_path_factory.mktemp("portable") / "a")


def test_every_spelling_is_read_as_it_is_written() -> None:
    """The names on the command line are those that the values have themselves."""
    assert {name: str(asked) for name, asked in RUNTIME_CHOICES.items()} == {
        name: name for name in RUNTIME_CHOICES
    }
    assert RUNTIME_CHOICES["openvino:bf16"] == RuntimeChoice(runtime="openvino", precision="bf16")
    assert RUNTIME_CHOICES["auto"] == RuntimeChoice()


@pytest.mark.parametrize("own", ["onnxruntime", "openvino"])
def test_the_manifest_says_what_runs(own: Runtime, plain: Artefact, tmp_path: Path) -> None:
    """Nothing asked, its runtime opens; another one that is asked for opens instead."""
    artefact = with_portable(plain, tmp_path / own, runtime=own)
    other: Runtime = "onnxruntime" if own == "openvino" else "openvino"

    for asked, expected in ((None, own), (other, other)):
        with session_from_artefact(artefact, runtime=asked, threads=1) as session:
            assert session.description.runtime == expected


def test_a_manifest_names_a_known_runtime(artefact: Artefact) -> None:
    """A runtime that this version does not have is named in the refusal."""
    value = json.loads((artefact.folder / MANIFEST_FILE).read_text(encoding="utf-8"))

    with pytest.raises(BadArtefact, match="does not know; got tvm"):
        Manifest.from_json(with_own_hash({**value, "runtime": "tvm"}))


def test_an_artefact_without_a_portable_file_says_so(artefact: Artefact, tmp_path: Path) -> None:
    """One that an older version exported has none for OpenVINO, and is to be exported again."""
    (tmp_path / PORTABLE_FILE).write_bytes(b"a file that the manifest does not vouch for")
    files = {name: sha for name, sha in artefact.manifest.files.items() if name != PORTABLE_FILE}
    old = replace(artefact.manifest, files=files)

    with pytest.raises(BadArtefact, match=r"no portable\.onnx, .* older version; export it again"):
        model_file(Artefact(folder=tmp_path, manifest=old), "openvino")


@pytest.mark.parametrize(
    ("asked", "device", "said"),
    [
        (
            RuntimeChoice(runtime="onnxruntime", precision="bf16"),
            "cpu",
            "runs an fp32 artefact only in fp32",
        ),
        (
            RuntimeChoice(runtime="openvino", precision="int8"),
            "cpu",
            "fp32 artefact only in fp32 or bf16; got int8",
        ),
        (
            RuntimeChoice(runtime="openvino"),
            "cuda",
            "OpenVINO runs on the CPU only; got device cuda",
        ),
    ],
    ids=["onnxruntime in bf16", "int8 of fp32", "openvino on cuda"],
)
def test_what_a_runtime_cannot_do_is_refused(
    asked: RuntimeChoice, device: str, said: str, artefact: Artefact
) -> None:
    """A precision that the file does not give, or a device that the runtime does not run on."""
    with pytest.raises(Unavailable, match=said):
        open_path(
            artefact.folder, runtime_choice=asked, device="cuda" if device == "cuda" else "cpu"
        )


def test_a_checkpoint_runs_in_pytorch_alone(block_checkpoint: Checkpoint) -> None:
    """Asked for a runtime, neither the command line nor the server opens it in another."""
    for opening in (open_path, open_served):
        with pytest.raises(BadSetting, match="runs in PyTorch only; got --runtime openvino"):
            opening(block_checkpoint.folder, runtime_choice=RUNTIME_CHOICES["openvino"])
