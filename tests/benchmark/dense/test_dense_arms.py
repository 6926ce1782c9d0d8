"""The dense baselines by name, and how they are held to their model's logits."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from spd_deploy.benchmark.dense import dense_arms as dense
from spd_deploy.benchmark.dense.dense_arms import (
    ENGINES,
    NAMES,
    DenseModel,
    DenseName,
    SpdExport,
    dense_arms,
    parse_dense,
    proof_batch,
)
from spd_deploy.benchmark.dense.fused import fused_from_checkpoint
from spd_deploy.benchmark.dense.torch_dense import TorchMode, forward_of, padded
from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, BadSetting, Unavailable
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.open import difference_between, session_from_artefact
from spd_deploy.sessions.protocol import Closing, Description
from spd_deploy.sessions.torch import TorchSession
from tests.tiny import tiny_checkpoint

SETTINGS = BenchmarkSettings(shapes=(Shape(batch=1, seq=8),), device="cuda")


class Shifted(Closing):
    """Gives the model's logits moved by so much."""

    description = Description(
        runtime="shifted", version="1", device="cuda", precision="fp16", threads=None
    )

    def __init__(self, model: DenseModel, by: float) -> None:
        self.model, self.by = model, by

    def run(self, batch: Batch) -> NDArray[np.float32]:
        assert np.array_equal(batch.ids_BS, self.model.proof.ids_BS)
        return np.asarray(self.model.expected_BC + self.by, np.float32)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def model(dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> DenseModel:
    return DenseModel.of(dense_checkpoint, tmp_path_factory.mktemp("forms"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", NAMES),
        ("none", ()),
        ("torch-compile, torch-eager,torch-compile", ("torch-eager", "torch-compile")),
        ("tensorrt-int8", ("tensorrt-int8",)),
    ],
)
def test_names_come_once_in_the_order_of_a_report(text: str, names: tuple[str, ...]) -> None:
    """All, none, or a list in any order."""
    assert parse_dense(text) == names


@pytest.mark.parametrize("text", ["", "all,torch-eager", "fast"])
def test_an_unknown_name_is_refused(text: str) -> None:
    """With the names there are."""
    with pytest.raises(BadSetting, match="onnxruntime-fused"):
        parse_dense(text)


def test_the_proof_has_padding_and_none() -> None:
    """A baseline is held to rows of either kind, with real ids wherever there is a token."""
    batch = proof_batch(50)

    assert padded(batch)
    assert set(batch.mask_BS.sum(1)) == {8, 16}
    assert batch.ids_BS.max() < 50
    assert (batch.ids_BS > 0).sum() == batch.mask_BS.sum()


def test_other_logits_are_refused(model: DenseModel) -> None:
    """Within the tolerance of its precision a baseline is taken, beyond it not, nor is NaN."""
    assert 0 < model.difference(Shifted(model, 1e-3), tolerance=2e-2) <= 1.1e-3
    for wrong in (10.0, float("nan")):
        with pytest.raises(BadArtefact, match="does not give its model's logits"):
            model.difference(Shifted(model, wrong), tolerance=2e-2)


def test_each_name_is_an_arm_or_has_a_reason(model: DenseModel) -> None:
    """Engines are named as absent unless one takes part; all others can be tried."""
    ours = ("torch-spd", "onnxruntime-spd")  # which are exported at once
    names = [name for name in NAMES if name not in ours]
    found, absent = dense_arms(model, names, engines=["fp16"])

    assert [one.name for one in found] == [f"dense {name}" for name in names if name not in ENGINES]
    assert all(one.dense for one in found)
    assert [one.name for one in absent] == ["dense tensorrt-int8"]
    assert "--format trt" in absent[0].reason


@pytest.mark.parametrize("name", ["torch-spd", "onnxruntime-spd"])
def test_exports_of_this_project_are_arms(
    name: SpdExport, model: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is the dense artefact in fp16, gives the model's logits, and counts one last token."""
    monkeypatch.setattr(dense, "onnxruntime_for", lambda device: None)
    ((found,), absent) = dense_arms(model, [name])
    ((eager,), _) = dense_arms(model, ["torch-eager"])

    assert (found.name, found.dense, absent) == (f"dense {name}", True, ())
    artefact = open_artefact(model.scratch / name)
    assert artefact.manifest.runtime_choice.runtime == name.removesuffix("-spd")
    with session_from_artefact(artefact, device="cpu") as session:
        assert model.difference(session, tolerance=2e-2) < 2e-2
        assert found.check(session) < 2e-2
    ran = KernelTrace(shape=Shape(batch=2, seq=8), kernels=None)
    assert found.work(ran, 2).flops < eager.work(ran, 2).flops


@pytest.mark.parametrize("name", ["onnxruntime-spd", "onnxruntime-fused"])
def test_nothing_is_exported_for_a_runtime_without_cuda(
    name: DenseName, model: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export of a large model takes minutes, and the reason is known before it."""

    def refused(device: str) -> None:
        raise Unavailable("no provider for it", got=device, fix="install one")

    monkeypatch.setattr(dense, "onnxruntime_for", refused)
    here = replace(model, scratch=tmp_path)

    found, absent = dense_arms(here, [name])
    reasons = [one.reason for one in absent]
    for one in found:
        with pytest.raises(Unavailable) as told:
            one.open(SETTINGS)
        reasons.append(str(told.value))

    assert reasons == ["no provider for it; got cuda; install one"]
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_a_session_says_so(model: DenseModel) -> None:
    """PyTorch's baselines refuse with the reason."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ((found,), _) = dense_arms(model, ["torch-eager"])
    with pytest.raises(Unavailable, match="PyTorch finds no CUDA device"):
        found.open(SETTINGS)


def test_what_pytorch_runs_is_the_model(dense_checkpoint: Checkpoint) -> None:
    """Eager, without a mask where nothing is padded, gives the reference's logits."""
    import torch

    with TorchSession(dense_checkpoint.folder) as reference:
        forward = forward_of(reference.model, "eager")
        for batch in (proof_batch(50), Batch(**_unpadded())):
            expected_BC = reference.run(batch)
            ids_BS, mask_BS, types_BS = map(
                torch.from_numpy, (batch.ids_BS, batch.mask_BS, batch.types_BS)
            )
            found_BC = forward(ids_BS, mask_BS if padded(batch) else None, types_BS)
            assert difference_between(found_BC.numpy(), expected_BC) < 1e-5


@pytest.mark.parametrize("mode", ["eager", "compile"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_no_mask_is_made_where_nothing_is_padded(
    mode: TorchMode, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention gets a mask for padding alone, also where Transformers makes a mask of ones."""
    import torch
    from transformers import masking_utils

    # As before 5.23, while a graph is captured or a model is compiled.
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_, **__: False)
    backend = partial(torch.compile, backend="eager")  # traced, and not compiled to machine code
    monkeypatch.setattr(torch, "compile", backend)
    seen: list[bool] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Any, key: Any, value: Any, attn_mask: Any = None, **rest: Any) -> Any:
        seen.append(attn_mask is not None)
        return attend(query, key, value, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    checkpoint = tiny_checkpoint(tmp_path / "c", architecture=architecture)
    with TorchSession(checkpoint.folder) as session:
        forward = forward_of(session.model, mode)
    types = getattr(session_config(checkpoint), "type_vocab_size", 0) > 1
    ids_BS = torch.ones(2, 8, dtype=torch.long)

    for mask_BS, masked in ((None, False), (torch.tensor([[1] * 8, [1] * 4 + [0] * 4]), True)):
        seen.clear()
        forward(ids_BS, mask_BS, ids_BS * 0 if types else None)
        assert len(seen) >= checkpoint.encoder.layers
        assert set(seen) == {masked}


def session_config(checkpoint: Checkpoint) -> Any:
    """The model's configuration, as Transformers reads it."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(checkpoint.folder)


def _unpadded() -> dict[str, NDArray[np.int64]]:
    ids_BS = np.random.default_rng(0).integers(1, 50, (3, 8))
    return {"ids_BS": ids_BS, "mask_BS": np.ones_like(ids_BS), "types_BS": np.zeros_like(ids_BS)}


def test_the_fused_form_is_fused_and_the_model(
    dense_checkpoint: Checkpoint, model: DenseModel, tmp_path: Path
) -> None:
    """ONNX Runtime's optimiser fuses attention in it, and it gives the logits in fp16."""
    file = fused_from_checkpoint(
        dense_checkpoint.folder, dense_checkpoint.encoder, tmp_path / "fused.onnx"
    )

    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("Attention") == dense_checkpoint.encoder.layers
    with OnnxSession(file, precision="fp16", threads=1) as session:
        model.difference(session, tolerance=2e-2)


def test_a_fused_form_without_fused_attention_is_refused(
    dense_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that the optimiser left as it was is no fused one, and no file stays of it."""
    from onnxruntime.transformers import optimizer  # noqa: F401 - puts its folder on the path

    monkeypatch.setattr("fusion_attention.FusionAttention.fuse", lambda *_: None)
    file = tmp_path / "fused.onnx"

    with pytest.raises(Unavailable, match="0 fused attention nodes for 2 layers"):
        fused_from_checkpoint(dense_checkpoint.folder, dense_checkpoint.encoder, file)

    assert not file.exists()
