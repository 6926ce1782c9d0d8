"""Sessions: they refuse what does not run, and offline batches change no answer."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import WEIGHTS_FILE, Checkpoint
from spd_deploy.domain.errors import BadArtefact, BadModel, EngineFailed, Unavailable
from spd_deploy.domain.text import Batch, Tokens, pad
from spd_deploy.sessions import onnxruntime as onnx_sessions
from spd_deploy.sessions.device_runs import DeviceRuns
from spd_deploy.sessions.offline import batches_within, logits_of
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession
from spd_deploy.sessions.open import open_path, self_test, session_from_artefact
from spd_deploy.sessions.protocol import Closing, Description
from spd_deploy.sessions.torch import TorchSession


@pytest.fixture(scope="module")
def artefact(block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return artefact_from_checkpoint(block_checkpoint, tmp_path_factory.mktemp("sessions") / "a")


class Summing(Closing):
    """Answers each row with the sum of its real ids, so that rows can be told apart."""

    description = Description(
        runtime="sum", version="1", device="cpu", precision="exact", threads=1
    )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        total_B1 = (batch.ids_BS * batch.mask_BS).sum(1, keepdims=True)
        return np.asarray(total_B1, np.float32)

    def close(self) -> None:
        pass


def test_a_session_says_how_it_runs(artefact: Artefact) -> None:
    """The description is what was asked for and what is so."""
    with session_from_artefact(artefact, threads=1) as session:
        found = session.description

    assert (found.runtime, found.device, found.precision, found.threads) == (
        "onnxruntime",
        "cpu",
        "fp32",
        1,
    )


def test_opening_runs_the_self_test(artefact: Artefact) -> None:
    """The golden logits are checked on opening; other logits are refused."""
    with open_path(artefact.folder).session as session:
        assert self_test(session, artefact.golden(), tolerance=1e-4) <= 1e-4
    with Summing() as wrong, pytest.raises(BadArtefact, match="logits on this machine"):
        self_test(wrong, artefact.golden(), tolerance=1e-4)


def test_cuda_is_never_replaced_by_the_cpu(
    artefact: Artefact, block_checkpoint: Checkpoint
) -> None:
    """Asked for CUDA where there is none, both runtimes refuse."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(Unavailable):
        session_from_artefact(artefact, device="cuda")
    with pytest.raises(Unavailable, match="CUDA"):
        TorchSession(block_checkpoint.folder, device="cuda")


def test_two_onnx_runtimes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both packages installed each has overwritten the other; nothing is run on that."""
    monkeypatch.setattr(onnx_sessions, "version_of", lambda package: "1.0")

    with pytest.raises(Unavailable, match="both installed"):
        onnx_sessions.refuse_double_install()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime's own error becomes one of ours."""
    (tmp_path / MODEL_FILE).write_bytes(b"not a model")

    with pytest.raises(BadArtefact, match="cannot load"):
        OnnxSession(tmp_path / MODEL_FILE, precision="fp32")


def test_a_batch_that_cannot_run_is_an_error(artefact: Artefact) -> None:
    """Ids outside the vocabulary fail in the runtime, and say so."""
    row = Tokens(ids=(10**6,), types=(0,))

    with session_from_artefact(artefact) as session, pytest.raises(EngineFailed):
        session.run(pad([row], pad_id=0))


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60), budget=st.integers(1, 200))
def test_offline_batches_fit_their_budget(lengths: list[int], budget: int) -> None:
    """Every row is in one batch, and only a row that is too long alone exceeds the budget."""
    found = list(batches_within(lengths, budget))

    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        padded = max(lengths[row] for row in batch) * len(batch)
        assert padded <= budget or len(batch) == 1


def test_answers_come_back_in_order(artefact: Artefact) -> None:
    """Whatever the batching, row i has the answer of row i."""
    draw = np.random.default_rng(0)
    rows = []
    for n in draw.integers(1, 30, 40).tolist():
        ids = tuple(draw.integers(1, 40, n).tolist())
        rows.append(Tokens(ids=ids, types=(0,) * n))
    tokenizer = artefact.tokenizer()

    with Summing() as session:
        found = logits_of(session, tokenizer, rows)

    assert found[:, 0].tolist() == [float(sum(row.ids)) for row in rows]


def test_a_checkpoint_and_its_artefact_agree(
    artefact: Artefact, block_checkpoint: Checkpoint
) -> None:
    """The same texts through PyTorch and ONNX Runtime give the same logits."""
    texts = [("The film was not good", "a great plot"), ("I hate it", "I love it , it is great !")]
    found = []
    for path in (artefact.folder, block_checkpoint.folder):
        opened = open_path(path)
        with opened.session:
            rows = [opened.tokenizer.encode(a, b) for a, b in texts]
            found.append(logits_of(opened.session, opened.tokenizer, rows))

    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_cuda_gives_the_checkpoints_logits(artefact: Artefact) -> None:
    """On a GPU the artefact runs there and passes its self-test."""
    with session_from_artefact(artefact, device="cuda") as session:
        assert self_test(session, artefact.golden(), tolerance=1e-3) <= 1e-3
        assert session.description.device == "cuda"


def test_a_classifier_is_never_made_up(dense_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """PyTorch refuses an encoder without a classifier, whose answers would be random."""
    folder = Path(shutil.copytree(dense_checkpoint.folder, tmp_path / "encoder"))
    weights = load_file(folder / WEIGHTS_FILE)
    encoder = {name: value for name, value in weights.items() if name.startswith("bert.")}
    save_file(encoder, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    with pytest.raises(BadModel, match=r"lack 2 tensors; got classifier\.bias; use a fine-tuned"):
        TorchSession(folder)


def test_a_session_on_the_cpu_keeps_nothing_on_a_gpu(artefact: Artefact) -> None:
    """Asked to, it refuses, by whatever way."""
    with session_from_artefact(artefact, threads=1) as session:
        assert isinstance(session, DeviceRuns)
        for graph in (False, True):
            with pytest.raises(Unavailable, match="runs on the CPU"):
                session.prepare(artefact.golden().batch, graph=graph)
