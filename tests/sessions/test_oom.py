"""A GPU without room for a model is told as such by every runtime; and what else differs there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.sessions import onnxruntime as onnx_sessions
from spd_deploy.sessions import torch as torch_sessions
from spd_deploy.sessions.cuda.oom import fitting
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.torch import TorchSession
from spd_deploy.sessions.torch_network import session as artefact_sessions
from spd_deploy.sessions.torch_network.session import TorchArtefactSession

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."
# As ONNX Runtime says it, by its arena and by CUDA itself.
OF_ONNX = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:376 Available memory of 0 is "
    "smaller than requested bytes; Failed to allocate memory for requested buffer of size 9437184",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
)


def raising(err: Exception) -> Callable[..., NoReturn]:
    def raises(*_: object, **__: object) -> NoReturn:
        raise err

    return raises


def onnxruntime(load: Callable[..., Any]) -> SimpleNamespace:
    """An ONNX Runtime whose CUDA provider loads models so."""
    return SimpleNamespace(
        __version__="1.30.0",
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        InferenceSession=load,
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda *_: None),
    )


@pytest.mark.parametrize("said", OF_ONNX)
def test_onnx_runtime_without_room_is_not_a_broken_file(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of memory is no reason to export again; on the CPU nothing is made of it."""
    ort = onnxruntime(raising(RuntimeError(said)))
    monkeypatch.setattr(onnx_sessions, "import_onnxruntime", lambda: ort)

    with pytest.raises(Unavailable, match=r"model\.onnx does not fit into the GPU's memory"):
        OnnxSession(Path("model.onnx"), precision="fp16", device="cuda")
    ort.get_available_providers = lambda: ["CPUExecutionProvider"]
    with pytest.raises(BadArtefact, match="cannot load"):
        OnnxSession(Path("model.onnx"), precision="fp16", device="cpu")


def test_a_file_that_no_gpu_loads_is_still_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only words of memory are of memory."""
    ort = onnxruntime(raising(RuntimeError("INVALID_PROTOBUF")))
    monkeypatch.setattr(onnx_sessions, "import_onnxruntime", lambda: ort)

    with pytest.raises(BadArtefact, match="cannot load"):
        OnnxSession(Path("model.onnx"), precision="fp16", device="cuda")


def test_threads_have_no_say_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm's description does not tell of threads that would make it unlike the others."""
    loaded = SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnx_sessions, "import_onnxruntime", lambda: onnxruntime(lambda *_, **__: loaded)
    )

    session = OnnxSession(Path("model.onnx"), precision="fp16", device="cuda", threads=2)

    assert session.description.threads is None


def faults() -> list[Exception]:
    """What PyTorch raises without memory, as its allocator, as CUDA, and as a library of CUDA's."""
    found: list[Exception] = [torch.OutOfMemoryError(FULL), RuntimeError(f"CUDA error: {FULL}")]
    kind = getattr(torch, "AcceleratorError", None)
    return found if kind is None else [*found, kind("CUDA error: out of memory", 2)]


@pytest.mark.parametrize("fault", faults(), ids=lambda err: type(err).__name__)
def test_pytorch_without_room_says_so(
    fault: Exception, dense_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that does not fit is one line, not a traceback."""
    monkeypatch.setattr(torch_sessions, "refuse_without_cuda", lambda: None)
    monkeypatch.setattr(torch.nn.Module, "to", raising(fault))

    with pytest.raises(Unavailable, match="does not fit into the GPU's memory"):
        TorchSession(dense_checkpoint.folder, device="cuda")


def test_a_torch_artefact_without_room_says_so(
    dense_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever PyTorch raises for it."""
    artefact = torch_artefact_from_checkpoint(dense_checkpoint, tmp_path / "a")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(artefact_sessions, "refuse_unsupported_gpu", lambda: None)

    for fault in faults():
        monkeypatch.setattr(artefact_sessions, "_network", raising(fault))
        with pytest.raises(Unavailable, match="does not fit into the GPU's memory"):
            TorchArtefactSession(artefact.folder, dense_checkpoint.encoder, device="cuda")


def test_another_fault_of_the_gpu_is_told_as_one() -> None:
    """It is the GPU's, and not that it was full; errors that are no GPU's stay what they are."""
    kind = getattr(torch, "AcceleratorError", None)
    if kind is not None:
        with (
            pytest.raises(Unavailable, match="the GPU failed while it was loaded"),
            fitting("it", "cuda"),
        ):
            raise kind("CUDA error: device is busy", 46)
    with pytest.raises(ValueError, match="other"), fitting("it", "cuda"):
        raise ValueError("other")
