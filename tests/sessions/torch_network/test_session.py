"""The session of a torch artefact: what it says, what it refuses, and, on a GPU, its graphs."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact, hashes_of, open_artefact, save_manifest
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, EngineFailed, Unavailable
from spd_deploy.domain.patterns import NM, Block
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import Batch
from spd_deploy.kernels.launch import KERNEL
from spd_deploy.sessions.device_runs import DeviceRuns
from spd_deploy.sessions.open import open_path, prove, session_from_artefact
from spd_deploy.sessions.torch_network.graphs import CudaGraphs
from spd_deploy.sessions.torch_network.layouts import TorchTokenMajor
from spd_deploy.sessions.torch_network.network_plan import PLAN_FILE, TENSORS_FILE
from spd_deploy.sessions.torch_network.session import TorchArtefactSession
from tests.tiny import tiny_checkpoint

Change = Callable[[dict[str, Any]], None]
KEY = "bert.encoder.layer.0.attention.self.key"


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Block-sparse, in fp16."""
    folder = tmp_path_factory.mktemp("torch")
    checkpoint = tiny_checkpoint(
        folder / "c", pattern=Block(rows=32, columns=1, sparsity=0.75), task="mrpc"
    )
    return torch_artefact_from_checkpoint(checkpoint, folder / "a", precision="fp16")


@pytest.fixture(scope="module")
def semi(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """2:4, in fp16."""
    folder = tmp_path_factory.mktemp("semi")
    checkpoint = tiny_checkpoint(folder / "c", pattern=NM(n=2, m=4))
    return torch_artefact_from_checkpoint(checkpoint, folder / "a", precision="fp16")


def batch_of(rows: int, tokens: int, seed: int = 0) -> Batch:
    """Random tokens, all of them real."""
    ids_BS = np.random.default_rng(seed).integers(1, 60, (rows, tokens))
    return Batch(ids_BS=ids_BS, mask_BS=np.ones_like(ids_BS), types_BS=np.zeros_like(ids_BS))


def changed(artefact: Artefact, folder: Path, *, plan: Change, tensors: Change) -> Artefact:
    """A copy with another plan or other tensors, described as if it were whole."""
    folder.mkdir()
    for file in artefact.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    document = json.loads((folder / PLAN_FILE).read_text())
    plan(document)
    (folder / PLAN_FILE).write_text(json.dumps(document))
    found = load_file(folder / TENSORS_FILE)
    tensors(found)
    save_file(found, folder / TENSORS_FILE)
    save_manifest(folder, replace(artefact.manifest, files=hashes_of(folder)))
    return open_artefact(folder)


def nothing(content: dict[str, Any]) -> None:
    """No change."""


def test_it_says_what_ran(artefact: Artefact, semi: Artefact) -> None:
    """Runtime, device, precision, and what multiplied the matrices."""
    for one, said in (
        (artefact, "12 of 12 matrices by index_select and bmm"),
        (semi, "2:4 matrices dense: a CPU has no kernel for them"),
    ):
        with session_from_artefact(one, threads=1) as session:
            found = session.description

        assert (found.runtime, found.device, found.precision) == ("torch", "cpu", "fp16")
        assert found.kernels == said
        assert str(found) == f"torch {torch.__version__} on cpu in fp16, {said}"


def test_threads_are_its_own(artefact: Artefact) -> None:
    """A session asked for two runs with two, and leaves PyTorch's number as it was."""
    before = torch.get_num_threads()

    with session_from_artefact(artefact, threads=before + 1) as session:
        session.run(batch_of(1, 4))

        assert session.description.threads == before + 1
    assert torch.get_num_threads() == before


def test_answers_are_the_callers_own(artefact: Artefact) -> None:
    """A later batch does not change what an earlier one gave."""
    with session_from_artefact(artefact) as session:
        first = session.run(batch_of(2, 5))
        kept = first.copy()
        session.run(batch_of(2, 5, seed=1))

        assert np.array_equal(first, kept)
        first[:] = 0
        assert np.array_equal(session.run(batch_of(2, 5)), kept)


def test_first_tokens_lie_close_together() -> None:
    """A 2:4 product is given no stride, so it would read the tokens that follow the first."""
    x_TH = torch.arange(24.0).reshape(6, 4)

    found_BH = TorchTokenMajor().first_tokens(x_TH, 2)

    assert found_BH.is_contiguous()
    assert torch.equal(found_BH, x_TH[[0, 3]])


def test_on_the_cpu_no_batch_is_kept_on_a_gpu(artefact: Artefact) -> None:
    """It offers what needs a GPU, says why not, and claims no kernel that skips zeros."""
    with session_from_artefact(artefact) as session:
        assert isinstance(session, DeviceRuns)
        with pytest.raises(Unavailable, match="only a session on a GPU"):
            session.prepare(batch_of(1, 4), graph=True)
        assert session.description.sparse_kernels is None


def test_a_closed_session_is_refused(artefact: Artefact) -> None:
    """Closing twice is closing once."""
    session = session_from_artefact(artefact)
    session.close()
    session.close()

    with pytest.raises(EngineFailed, match="closed"):
        session.run(batch_of(1, 3))


def test_a_batch_that_does_not_run_is_refused(artefact: Artefact) -> None:
    """More tokens than positions: an error of ours."""
    with (
        session_from_artefact(artefact) as session,
        pytest.raises(EngineFailed, match="failed on a batch"),
    ):
        session.run(batch_of(1, 65))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_refused(artefact: Artefact) -> None:
    """With what PyTorch was built for, and what to do."""
    with pytest.raises(Unavailable, match="finds no CUDA device") as refused:
        open_path(artefact.folder, device="cuda")

    assert torch.__version__ in str(refused.value)
    assert "--device cpu" in refused.value.fix


def test_a_driver_that_is_too_old_is_named(
    artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch says so in a warning, which would be lost in a log."""

    def warned() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (found 12040)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warned)

    with pytest.raises(Unavailable, match="driver on your system is too old"):
        session_from_artefact(artefact, device="cuda")


def test_a_gpu_from_before_ampere_is_refused(
    artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named, with its compute capability, before anything is loaded."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")

    with pytest.raises(Unavailable, match=r"8\.0 \(Ampere\) or later; got Tesla T4, 7\.5"):
        session_from_artefact(artefact, device="cuda")


def of_other_kind(document: dict[str, Any]) -> None:
    document["matrices"][0]["kind"] = "sparse"


def of_other_precision(document: dict[str, Any]) -> None:
    document["precision"] = "bf16"


def of_other_schema(document: dict[str, Any]) -> None:
    document["schema"] = 1


def with_more(document: dict[str, Any]) -> None:
    document["colour"] = "red"


def without_weight(tensors: dict[str, Any]) -> None:
    del tensors[f"{KEY}.weight"]


def without_norm(tensors: dict[str, Any]) -> None:
    del tensors["bert.encoder.layer.1.output.LayerNorm.bias"]


def beyond_the_inputs(tensors: dict[str, Any]) -> None:
    tensors[f"{KEY}.index"][0, 0] = 64


def narrow_table(tensors: dict[str, Any]) -> None:
    name = "bert.embeddings.position_embeddings.weight"
    tensors[name] = tensors[name][:, :32].contiguous()


@pytest.mark.parametrize(
    ("plan", "tensors", "said"),
    [
        (of_other_kind, nothing, r"network\.json is damaged"),
        (of_other_schema, nothing, r"got 1; export it again with this version"),
        (with_more, nothing, r"network\.json has an unknown field"),
        (of_other_precision, nothing, "not stored in bf16"),
        (nothing, without_weight, f"no tensor {KEY}.weight"),
        (nothing, without_norm, "no tensor bert.encoder.layer.1.output.LayerNorm.bias"),
        (nothing, beyond_the_inputs, "contradict each other"),
        (nothing, narrow_table, "no tensor bert.embeddings.position_embeddings.weight of shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    artefact: Artefact, tmp_path: Path, plan: Change, tensors: Change, said: str
) -> None:
    """Whatever the manifest vouches for: nothing is computed from half a network."""
    spoiled = changed(artefact, tmp_path / "a", plan=plan, tensors=tensors)

    with pytest.raises(BadArtefact, match=said):
        session_from_artefact(spoiled)


def test_a_changed_file_is_found_first(artefact: Artefact, tmp_path: Path) -> None:
    """By its hash, before it is read."""
    copy = changed(artefact, tmp_path / "a", plan=nothing, tensors=nothing)
    file = copy.folder / TENSORS_FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(BadArtefact, match=r"model\.safetensors was changed"):
        open_path(copy.folder)


@pytest.mark.parametrize(("runtime", "format_"), [("onnxruntime", "onnx"), ("openvino", "onnx")])
def test_other_runtimes_refuse_it(artefact: Artefact, runtime: Any, format_: str) -> None:
    """And say which format they run."""
    with pytest.raises(Unavailable, match=f"--format {format_}, or use --runtime torch"):
        session_from_artefact(artefact, runtime=runtime)


def test_another_precision_is_refused(artefact: Artefact) -> None:
    """It computes in the precision that it is stored in."""
    with pytest.raises(Unavailable, match="runs an fp16 artefact only in fp16"):
        session_from_artefact(artefact, precision="bf16")


class CompilationFailed(Exception):
    """As Triton's errors are: none of Python's RuntimeErrors."""


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (CompilationFailed("out of resource: shared memory"), EngineFailed),
        (RuntimeError("CUDA error: an illegal memory access"), EngineFailed),
        (Unavailable("no tile runs", fix="use --device cpu"), Unavailable),
    ],
)
def test_what_a_library_raises_is_an_error_of_ours(
    raised: Exception, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is, in words; what was refused in words already stays as it was."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    graphs = object.__new__(CudaGraphs)

    with pytest.raises(told, match=str(raised.args[0])), graphs._failing(Shape(batch=1, seq=16)):
        raise raised


@pytest.fixture
def on_gpu(artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The artefact on CUDA, with a memory of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with session_from_artefact(artefact, device="cuda") as session:
        yield session


@pytest.mark.gpu
def test_on_a_gpu_it_passes_its_self_test(artefact: Artefact, on_gpu: Any) -> None:
    """By the block-sparse kernel, as the description says."""
    assert prove(on_gpu, artefact) <= artefact.manifest.parity.tolerance
    assert on_gpu.description.kernels == "12 of 12 matrices by the block-sparse kernel"


@pytest.mark.gpu
def test_on_a_gpu_a_graph_gives_what_its_launches_give(on_gpu: TorchArtefactSession) -> None:
    """Replayed, the same bits as the network called directly on the bucket's own batch."""
    batch = batch_of(4, 32)
    arrays = (batch.ids_BS, batch.mask_BS, batch.types_BS)

    found = on_gpu.run(batch)

    with torch.inference_mode():
        direct = on_gpu.network.logits(*(torch.from_numpy(a).cuda() for a in arrays))
    assert np.array_equal(found, direct.cpu().numpy())


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [True, False])
def test_on_a_gpu_a_prepared_batch_gives_what_a_run_gives(
    on_gpu: TorchArtefactSession, graph: bool
) -> None:
    """By graph or launched, as often as it is enqueued."""
    batch = batch_of(3, 17)
    expected_BC = on_gpu.run(batch)

    prepared = on_gpu.prepare(batch, graph=graph)
    prepared.copy_to_device()
    prepared.enqueue()
    prepared.enqueue()
    prepared.copy_to_host()

    assert np.array_equal(prepared.logits(), expected_BC)
    assert on_gpu.description.sparse_kernels == (KERNEL,)


@pytest.mark.gpu
def test_on_a_gpu_padding_changes_nothing(artefact: Artefact, on_gpu: Any) -> None:
    """Any batch in its bucket, and each of its rows alone, gives what the CPU gives."""
    with session_from_artefact(artefact, device="cpu") as reference:
        for rows, tokens in ((1, 1), (3, 17), (5, 33), (7, 64), (33, 2)):
            batch = batch_of(rows, tokens)
            batch.mask_BS[0, tokens // 2 + 1 :] = 0
            difference = np.abs(on_gpu.run(batch) - reference.run(batch)).max()
            assert difference <= artefact.manifest.parity.tolerance


@pytest.mark.gpu
def test_on_a_gpu_graphs_are_bounded(on_gpu: TorchArtefactSession) -> None:
    """The one longest unused goes; captured again, it answers as before."""
    graphs = CudaGraphs(on_gpu.network, most=2)
    before = graphs.run(batch_of(1, 16))

    for rows in (2, 3, 4):
        graphs.run(batch_of(rows, 16))

    assert len(graphs) == 2
    assert np.array_equal(graphs.run(batch_of(1, 16)), before)


@pytest.mark.gpu
def test_on_a_gpu_a_call_allocates_nothing(on_gpu: Any) -> None:
    """Once its bucket is captured."""
    on_gpu.run(batch_of(8, 32))
    before = torch.cuda.memory_stats()["allocation.all.allocated"]

    for seed in range(5):
        on_gpu.run(batch_of(8, 32, seed=seed))

    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.gpu
@pytest.mark.parametrize("number", ["fp16", "bf16"])
def test_on_a_gpu_2_4_passes_its_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: Any
) -> None:
    """Whichever products were measured to be faster on 2:4 tensor cores."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint: Checkpoint = tiny_checkpoint(tmp_path / "c", pattern=NM(n=2, m=4))
    artefact = torch_artefact_from_checkpoint(checkpoint, tmp_path / "a", precision=number)

    with session_from_artefact(artefact, device="cuda") as session:
        prove(session, artefact)

        assert "products on 2:4 tensor cores at" in session.description.kernels
