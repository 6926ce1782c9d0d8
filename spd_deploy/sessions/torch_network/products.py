"""The products of a torch artefact: dense, on 2:4 tensor cores, or block-sparse.

Matrices that read the same activations are fused into one product where they have the same kind:
queries, keys and values then take one launch instead of three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, assert_never

from spd_deploy.kernels.backends import Backend
from spd_deploy.kernels.eager import activated
from spd_deploy.kernels.two_four import (
    TwoFourSelector,
    to_two_four,
    two_four_linear,
    with_algorithm,
)
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
    selector: TwoFourSelector | None
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
    if kinds == {"2:4"} and parts.selector is not None:
        return TwoFourLinear(weight_NK, bias_N, parts.selector)
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

    def __init__(self, weight_NK: "Tensor", bias_N: "Tensor", selector: TwoFourSelector) -> None:
        self.weight_NK, self.bias_N = weight_NK, bias_N
        self.refused: str | None = None
        self._packed: dict[int, Tensor] = {}  # by cuSPARSELt's algorithm, on the same memory
        try:
            self._packed[0] = to_two_four(weight_NK)
        except RuntimeError as err:
            if is_fault(err):
                raise
            self.refused = str(err).splitlines()[0]
        self.selector = selector
        self.two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """``torch.nn.functional.linear`` with the dense or the packed weight."""
        from torch.nn.functional import linear

        def then(y_TN: "Tensor") -> "Tensor":
            """Activation and residual, which are timed with the product."""
            y_TN = activated(y_TN, activation)
            return y_TN if residual is None else y_TN + residual

        self.two_four = False
        if self._packed:
            named = f"{activation}, {'residual' if residual is not None else 'no residual'}"
            times = self.selector.times(
                x, self.weight_NK, self._packed[0], self.bias_N, then=then, named=named
            )
            self.two_four = times.wins
            if times.wins:
                return then(two_four_linear(x, self._weight_for(times.algorithm), self.bias_N))
        return then(linear(x, self.weight_NK, self.bias_N))

    def _weight_for(self, algorithm: int) -> "Tensor":
        """The packed weight with an algorithm."""
        if algorithm not in self._packed:
            self._packed[algorithm] = with_algorithm(self._packed[0], algorithm)
        return self._packed[algorithm]


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
