"""From start to ready: what is proven before the server says yes, and what it says until then."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient

from serve.app import create_app
from serve.open_model import ServedModel, open_served
from serve.settings import ServeSettings
from serve.state import Phase, ServerState
from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.documents import with_own_hash
from spd_deploy.domain.errors import BadArtefact, BadSetting, SpdError, Unavailable
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.golden import GOLDEN_FILE
from tests.serve.clients import wait_until_settled
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served

FILES = [
    "config.json",
    "golden.json",
    "golden.safetensors",
    "model.onnx",
    "portable.onnx",
    "tokenizer.json",
    "tokenizer_config.json",
    "weights.bin",
]


@pytest.fixture
def copy(single_artefact: Artefact, tmp_path: Path) -> Path:
    """An artefact that a test may damage."""
    return shutil.copytree(single_artefact.folder, tmp_path / "artefact")


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def assert_never_ready(open_model: Callable[[], ServedModel], error: type[SpdError]) -> SpdError:
    """An app of that model lives, is not ready, answers nothing, and holds the error."""
    state = ServerState()
    with TestClient(create_app(open_model, ServeSettings(), state=state)) as client:
        wait_until_settled(state)
        assert client.get("/livez").status_code == 200
        for answer in (
            client.get("/readyz"),
            client.get("/info"),
            client.post("/predict", json={"inputs": "x"}),
            client.post("/v1/classify", json={"inputs": [{"text": "x"}]}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "SPD_NOT_READY")
    assert state.phase is Phase.FAILED
    assert isinstance(state.error, error)
    return state.error


def test_the_damaged_files_are_all_files(single_artefact: Artefact) -> None:
    """The files that are damaged below are all that the manifest lists."""
    assert sorted(single_artefact.manifest.files) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_never_gets_ready(copy: Path, name: str) -> None:
    """An artefact with one changed bit in any of its files is refused, and the file is named."""
    flip_a_byte(copy / name)

    error = assert_never_ready(lambda: open_served(copy, threads=1), BadArtefact)

    assert f"{name} was changed" in str(error)


def test_an_artefact_with_other_logits_never_gets_ready(copy: Path) -> None:
    """Where all hashes fit, but the golden logits do not come out, the artefact is refused."""
    golden = copy / GOLDEN_FILE
    arrays = load_file(golden)
    save_file({**arrays, "logits": np.ascontiguousarray(arrays["logits"] + 0.01)}, golden)
    manifest = json.loads((copy / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["files"][GOLDEN_FILE] = sha256_of(golden)
    (copy / MANIFEST_FILE).write_text(json.dumps(with_own_hash(manifest)), encoding="utf-8")

    error = assert_never_ready(lambda: open_served(copy, threads=1), BadArtefact)

    assert "logits" in str(error)


def test_a_missing_file_never_gets_ready(copy: Path) -> None:
    """An artefact without one of its files is refused."""
    (copy / "tokenizer.json").unlink()

    assert_never_ready(lambda: open_served(copy, threads=1), BadArtefact)


def test_a_bug_while_opening_never_gets_ready(caplog: pytest.LogCaptureFixture) -> None:
    """An error nobody thought of ends the start like any other, with its cause in the log."""

    def open_model() -> ServedModel:
        raise ZeroDivisionError("a bug")

    assert_never_ready(open_model, Unavailable)
    assert "a bug" in caplog.text


def test_a_dead_engine_is_neither_ready_nor_alive(tmp_path: Path, session: FakeSession) -> None:
    """A server whose engine has ended takes no requests, and says that only a new one will."""
    state = ServerState()
    app = create_app(lambda: fake_served(tmp_path, session), ServeSettings(), state=state)
    with TestClient(app) as client:
        wait_until_settled(state)
        assert state.classifier().engine.close(PATIENCE_S)

        assert client.get("/livez").status_code == 503
        assert client.get("/readyz").status_code == 503


def test_the_server_answers_before_it_is_ready(tmp_path: Path, session: FakeSession) -> None:
    """While the model is opened the server lives and says 503; then it is ready."""
    may_open = threading.Event()

    def open_model() -> ServedModel:
        assert may_open.wait(PATIENCE_S)
        return fake_served(tmp_path, session)

    state = ServerState()
    with TestClient(create_app(open_model, ServeSettings(), state=state)) as client:
        assert client.get("/livez").status_code == 200
        starting = client.get("/readyz")
        assert starting.status_code == 503
        assert starting.headers["Retry-After"] == "1"
        assert client.post("/predict", content=b"not even JSON").status_code == 503
        may_open.set()
        wait_until_settled(state)
        assert client.get("/readyz").json() == {"status": "ready"}
        assert not session.closed
    assert session.closed


def test_a_server_told_to_stop_while_it_starts_never_gets_ready(
    tmp_path: Path, session: FakeSession
) -> None:
    """A model that opens after the signal to stop is closed and never asked."""
    may_open = threading.Event()

    def open_model() -> ServedModel:
        assert may_open.wait(PATIENCE_S)
        return fake_served(tmp_path, session)

    state = ServerState()
    with TestClient(create_app(open_model, ServeSettings(), state=state)) as client:
        state.drain()
        may_open.set()
        assert client.get("/readyz").status_code == 503
    assert state.phase is Phase.DRAINING
    assert session.closed
    assert session.batches == []


def test_a_checkpoint_is_served_too(dense_checkpoint: Checkpoint) -> None:
    """A model folder that was not exported runs in PyTorch, and says so."""
    state = ServerState()
    app = create_app(lambda: open_served(dense_checkpoint.folder), ServeSettings(), state=state)
    with TestClient(app) as client:
        wait_until_settled(state)
        info = client.get("/info").json()
        assert (info["format"], info["runtime"]["runtime"]) == ("checkpoint", "torch")
        assert client.post("/predict", json={"inputs": "a film"}).status_code == 200


@pytest.mark.parametrize("name", [field.name for field in fields(ServeSettings)])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_lets_nothing_through_is_refused(name: str, value: float) -> None:
    """Every limit must be positive; a stride may be 0."""
    if (name, value) == ("window_stride", 0):
        assert ServeSettings(window_stride=0).window_stride == 0
        return
    with pytest.raises(BadSetting, match=name):
        ServeSettings(**{name: value})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def imported() -> Iterator[set[str]]:
    """Every module in a fresh Python that has imported the whole server."""
    code = "import sys, serve.app, serve.server, spd_deploy.cli.serve; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    yield set(done.stdout.split())


@pytest.mark.parametrize(
    "name", ["torch", "transformers", "onnx", "onnxruntime", "tensorrt", "exporters", "spd_train"]
)
def test_importing_the_server_is_free_of(imported: set[str], name: str) -> None:
    """The server imports no runtime and no trainer until it opens a model."""
    assert "serve.app" in imported
    assert name not in imported
