"""2:4 weights that the library refuses: they stay dense, with the same answers, and say so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.patterns import NM
from spd_deploy.kernels.backends import EagerBackend
from spd_deploy.kernels.two_four import TwoFourSelector
from spd_deploy.sessions.torch_network import products
from spd_deploy.sessions.torch_network import session as sessions
from spd_deploy.sessions.torch_network.load import tensors_in
from spd_deploy.sessions.torch_network.network import Network
from spd_deploy.sessions.torch_network.products import TokenMajorLinear, TwoFourLinear
from spd_deploy.sessions.torch_network.session import TorchArtefactSession
from tests.tiny import tiny_checkpoint

REFUSAL = "cuSPARSELt not supported on your machine."


def refusing(err: Exception) -> Any:
    def packs(_: torch.Tensor) -> torch.Tensor:
        raise err

    return packs


def test_a_refused_weight_stays_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives what the dense product gives, and nothing is measured."""
    monkeypatch.setattr(products, "to_two_four", refusing(RuntimeError(f"{REFUSAL}\nC++ trace")))
    weight_NK, bias_N, x_TK = torch.randn(32, 64), torch.randn(32), torch.randn(5, 64)

    selector = TwoFourSelector()
    product = TwoFourLinear(weight_NK, bias_N, selector)

    assert torch.equal(product(x_TK), TokenMajorLinear(weight_NK=weight_NK, bias_N=bias_N)(x_TK))
    assert (product.two_four, product.refused) == (False, REFUSAL)
    assert selector.known == {}


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        getattr(torch, "AcceleratorError", torch.OutOfMemoryError)("CUDA error: no device", 100),
    ],
    ids=["full", "full by CUDA", "failing"],
)
def test_a_fault_of_the_gpu_is_no_refusal(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full GPU is not worked around; whoever opens the session says so."""
    monkeypatch.setattr(products, "to_two_four", refusing(fault))

    with pytest.raises(type(fault)):
        TwoFourLinear(torch.randn(32, 64), torch.randn(32), TwoFourSelector())


def test_a_session_says_what_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of products and the library's own words."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=NM(n=2, m=4))
    artefact = torch_artefact_from_checkpoint(checkpoint, tmp_path / "a")
    monkeypatch.setattr(products, "to_two_four", refusing(RuntimeError(REFUSAL)))
    monkeypatch.setattr(sessions, "refuse_unsupported_gpu", lambda: None)
    monkeypatch.setattr(sessions, "CudaGraphs", lambda network: SimpleNamespace(last=None))

    def network(folder: Path, encoder: Any, plan: Any, device: str) -> Network:
        """On the CPU, with the products that a GPU would have."""
        tensors = tensors_in(folder, plan, "cpu")
        return Network(plan, encoder, tensors, backend=EagerBackend(), selector=TwoFourSelector())

    monkeypatch.setattr(sessions, "_network", network)

    session = TorchArtefactSession(artefact.folder, checkpoint.encoder, device="cuda")

    count = len(session.network.refused())
    assert count > 0
    assert session.description.kernels == (
        f"2:4 tensor cores where they are faster, {count} dense: {REFUSAL}"
    )


@pytest.mark.filterwarnings("ignore:.*SparseSemiStructuredTensor.*:UserWarning")
@pytest.mark.parametrize("tokens", [16, 5])
def test_the_searched_algorithm_runs_with_its_transpose_fused(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated cuSPARSELt gets the algorithm that it found, and outputs are contiguous."""
    calls: list[tuple[int, bool]] = []
    followed: list[torch.Tensor] = []

    def multiply(
        packed: Any, dense: Any, *, bias: Any, transpose_result: bool, alg_id: int
    ) -> torch.Tensor:
        calls.append((alg_id, transpose_result))
        y_NT: torch.Tensor = packed @ dense + bias[:, None]
        return y_NT.t().contiguous() if transpose_result else y_NT

    def seconds(run: Any) -> float:
        followed.append(run())
        return 1.0 if len(followed) == 1 else 0.5  # dense first

    kind: Any = torch.sparse.SparseSemiStructuredTensorCUSPARSELT
    monkeypatch.setattr(kind, "_validate_device_dim_dtype_shape", lambda *_: None)
    monkeypatch.setattr(torch.sparse.SparseSemiStructuredTensor, "_FORCE_CUTLASS", False)
    monkeypatch.setattr(torch, "_cslt_compress", torch.clone)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", multiply)
    monkeypatch.setattr(torch, "_cslt_sparse_mm_search", lambda *_, **__: 3)
    monkeypatch.setattr("spd_deploy.kernels.two_four.graph_seconds", seconds)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    weight_NK, bias_N = torch.randn(32, 64).half(), torch.randn(32).half()
    x_TK, added = torch.randn(tokens, 64).half(), torch.randn(tokens, 32).half()
    product = TwoFourLinear(weight_NK, bias_N, TwoFourSelector())

    found = product(x_TK, activation="gelu", residual=added)

    dense = TokenMajorLinear(weight_NK=weight_NK, bias_N=bias_N)
    wanted = dense(x_TK, activation="gelu", residual=added)
    assert product.two_four
    assert set(calls) == {(3, True)}
    assert found.is_contiguous()
    assert torch.allclose(found, wanted, rtol=1e-2, atol=2e-2)
    for one in followed:  # what was timed has activation and residual in it
        assert torch.allclose(one, wanted, rtol=1e-2, atol=2e-2)
