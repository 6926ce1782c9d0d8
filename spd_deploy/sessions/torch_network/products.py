"""The products of a torch artefact: dense, on 2:4 tensor cores, or block-sparse.

Matrices that read the same activations are fused into one product where they have the same kind:
queries, keys and values then take one launch instead of three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, assert_never

from spd_deploy.kernels.backends import Backend
from spd_deploy.kernels.eager import activated
from spd_deploy.kernels.two_four import TwoFourSelector, to_two_four
from spd_deploy.kernels.weights import BlockWeight
from spd_deploy.sessions.cuda.oom import is_fault
from spd_deploy.sessions.torch_network.network_plan import MatrixPlan
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


class MatrixProduct(Protocol):
    """A product with one or several fused matrices, with bias."""

    @property
    def two_four(self) -> bool:
        """Whether the last call ran on 2:4 tensor cores."""
        ...

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """Product and bias, then the activation, then the residual, in the network's layout."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductInputs:
    """The tensors, the block-sparse backend, the 2:4 selector (or None) and the layout."""

    tensors: Tensors
    backend: Backend
    chooser: TwoFourSelector | None
    feature_major: bool


def product_of(matrices: Sequence[MatrixPlan], parts: ProductInputs) -> MatrixProduct | None:
    """One fused product for all of ``matrices``; None where they cannot be fused.

    Raises:
        BadArtefact: tensors are missing, or their shapes contradict each other.
    """
    kinds = {matrix.kind for matrix in matrices}
    if len(kinds) > 1:
        return None
    if kinds == {"blocks"}:
        joined = BlockWeight.joined([_blocks(matrix, parts.tensors) for matrix in matrices])
        return None if joined is None else BlockSparseProduct(weight=joined, backend=parts.backend)
    import torch

    weight_NK = torch.cat([_dense(matrix, parts.tensors) for matrix in matrices])
    bias_N = torch.cat([_bias(matrix, parts.tensors) for matrix in matrices]).to(weight_NK.dtype)
    if parts.feature_major:
        return FeatureMajorLinear(weight_NK=weight_NK, bias_N1=bias_N[:, None])
    if kinds == {"2:4"} and parts.chooser is not None:
        return TwoFourLinear(weight_NK, bias_N, parts.chooser)
    return TokenMajorLinear(weight_NK=weight_NK, bias_N=bias_N)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenMajorLinear:
    """A dense product ``[T, K]`` to ``[T, N]``."""

    weight_NK: "Tensor"
    bias_N: "Tensor"

    two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """``torch.nn.functional.linear``, then activation and residual."""
        from torch.nn.functional import linear

        y_TN = activated(linear(x, self.weight_NK, self.bias_N), activation)
        return y_TN if residual is None else y_TN + residual


class TwoFourLinear:
    """A product ``[T, K]`` to ``[T, N]``, dense or 2:4, whichever is faster for T tokens.

    Attributes:
        refused: why PyTorch cannot pack the weight, which then stays dense; else None.
    """

    def __init__(self, weight_NK: "Tensor", bias_N: "Tensor", chooser: TwoFourSelector) -> None:
        self.dense = TokenMajorLinear(weight_NK=weight_NK, bias_N=bias_N)
        self.sparse: TokenMajorLinear | None = None
        self.refused: str | None = None
        try:
            self.sparse = TokenMajorLinear(weight_NK=to_two_four(weight_NK), bias_N=bias_N)
        except RuntimeError as err:
            if is_fault(err):
                raise
            self.refused = str(err).splitlines()[0]
        self.chooser = chooser
        self.two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """``torch.nn.functional.linear`` with the dense or the packed weight."""
        chosen = self.dense
        if self.sparse is not None and self.chooser.wins(
            x, self.dense.weight_NK, self.sparse.weight_NK, self.dense.bias_N
        ):
            chosen = self.sparse
        self.two_four = chosen is self.sparse
        return chosen(x, activation=activation, residual=residual)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureMajorLinear:
    """``[K, T]`` to ``[N, T]``."""

    weight_NK: "Tensor"
    bias_N1: "Tensor"

    two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """``torch.addmm`` with the weight on the left, then activation and residual."""
        import torch

        y_NT = activated(torch.addmm(self.bias_N1, self.weight_NK, x), activation)
        return y_NT if residual is None else y_NT + residual


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSparseProduct:
    """A block-sparse product ``[K, T]`` to ``[N, T]``."""

    weight: BlockWeight
    backend: Backend

    two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """Product, bias, activation and residual in one launch."""
        return self.backend.block_linear(
            x, self.weight, activation=activation, residual_NT=residual
        )


def _blocks(matrix: MatrixPlan, tensors: Tensors) -> BlockWeight:
    """The block-sparse weight of one matrix."""
    return BlockWeight.of(
        tensors.get(f"{matrix.name}.weight"),
        tensors.get(f"{matrix.name}.index"),
        _bias(matrix, tensors),
        columns=matrix.columns,
        inputs=matrix.inputs,
    )


def _dense(matrix: MatrixPlan, tensors: Tensors) -> "Tensor":
    """The dense weight ``[N, K]`` that remains of one matrix."""
    match matrix.kind:
        case "dense" | "2:4":
            return tensors.get(f"{matrix.name}.weight", matrix.outputs, matrix.inputs)
        case "blocks":
            raise AssertionError(matrix)
        case never:
            assert_never(never)


def _bias(matrix: MatrixPlan, tensors: Tensors) -> "Tensor":
    """The bias ``[N]`` of one matrix, in fp32."""
    return tensors.get(f"{matrix.name}.bias", matrix.outputs)
