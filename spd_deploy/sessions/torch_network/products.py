"""How a matrix of a torch artefact is multiplied: dense, on 2:4 tensor cores, or by its blocks.

Matrices that read the same activations run as one product where they are run alike: queries, keys
and values in one launch instead of three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, assert_never

from spd_deploy.kernels.backends import Backend
from spd_deploy.kernels.plain import activated
from spd_deploy.kernels.two_four import Chooser, packed
from spd_deploy.kernels.weights import BlockWeight
from spd_deploy.sessions.cuda.room import is_fault
from spd_deploy.sessions.torch_network.plan import MatrixPlan
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


class MatrixProduct(Protocol):
    """A matrix with its bias."""

    @property
    def two_four(self) -> bool:
        """Whether the last run was on 2:4 tensor cores."""
        ...

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """The product of activations in the layout it was made for, then activation, residual."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What products are made from: tensors, who runs blocks, and who chooses 2:4, if anyone."""

    tensors: Tensors
    backend: Backend
    chooser: Chooser | None
    feature_major: bool


def product_of(matrices: Sequence[MatrixPlan], parts: Parts) -> MatrixProduct | None:
    """One product for all of ``matrices``; None where they are not run alike.

    Raises:
        BadArtefact: their tensors are missing, or do not fit together.
    """
    kinds = {matrix.kind for matrix in matrices}
    if len(kinds) > 1:
        return None
    if kinds == {"blocks"}:
        joined = BlockWeight.joined([_blocks(matrix, parts.tensors) for matrix in matrices])
        return None if joined is None else Blocks(weight=joined, backend=parts.backend)
    import torch

    weight_NK = torch.cat([_dense(matrix, parts.tensors) for matrix in matrices])
    bias_N = torch.cat([_bias(matrix, parts.tensors) for matrix in matrices]).to(weight_NK.dtype)
    if parts.feature_major:
        return DenseFeatures(weight_NK=weight_NK, bias_N1=bias_N[:, None])
    if kinds == {"2:4"} and parts.chooser is not None:
        return TwoFourTokens(weight_NK, bias_N, parts.chooser)
    return DenseTokens(weight_NK=weight_NK, bias_N=bias_N)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseTokens:
    """``[T, K]`` to ``[T, N]``."""

    weight_NK: "Tensor"
    bias_N: "Tensor"

    two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """PyTorch's linear layer."""
        from torch.nn.functional import linear

        y_TN = activated(linear(x, self.weight_NK, self.bias_N), activation)
        return y_TN if residual is None else y_TN + residual


class TwoFourTokens:
    """``[T, K]`` to ``[T, N]``, dense or on 2:4 tensor cores, whichever is faster for T tokens.

    Attributes:
        refused: why the library does not take the weight, which then stays dense; else None.
    """

    def __init__(self, weight_NK: "Tensor", bias_N: "Tensor", chooser: Chooser) -> None:
        self.dense = DenseTokens(weight_NK=weight_NK, bias_N=bias_N)
        self.sparse: DenseTokens | None = None
        self.refused: str | None = None
        try:
            self.sparse = DenseTokens(weight_NK=packed(weight_NK), bias_N=bias_N)
        except RuntimeError as err:
            if is_fault(err):
                raise
            self.refused = str(err).splitlines()[0]
        self.chooser = chooser
        self.two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """PyTorch's linear layer, over one form of the weight or the other."""
        chosen = self.dense
        if self.sparse is not None and self.chooser.wins(
            x, self.dense.weight_NK, self.sparse.weight_NK, self.dense.bias_N
        ):
            chosen = self.sparse
        self.two_four = chosen is self.sparse
        return chosen(x, activation=activation, residual=residual)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseFeatures:
    """``[K, T]`` to ``[N, T]``."""

    weight_NK: "Tensor"
    bias_N1: "Tensor"

    two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """The product from the left."""
        import torch

        y_NT = activated(torch.addmm(self.bias_N1, self.weight_NK, x), activation)
        return y_NT if residual is None else y_NT + residual


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """``[K, T]`` to ``[N, T]`` by the blocks that were kept."""

    weight: BlockWeight
    backend: Backend

    two_four = False

    def __call__(
        self, x: "Tensor", *, activation: str = "none", residual: "Tensor | None" = None
    ) -> "Tensor":
        """All in one launch."""
        return self.backend.block_linear(
            x, self.weight, activation=activation, residual_NT=residual
        )


def _blocks(matrix: MatrixPlan, tensors: Tensors) -> BlockWeight:
    """The blocks of one matrix."""
    return BlockWeight.of(
        tensors.get(f"{matrix.name}.weight"),
        tensors.get(f"{matrix.name}.index"),
        _bias(matrix, tensors),
        columns=matrix.columns,
        inputs=matrix.inputs,
    )


def _dense(matrix: MatrixPlan, tensors: Tensors) -> "Tensor":
    """The whole of what is left of one matrix."""
    match matrix.kind:
        case "dense" | "2:4":
            return tensors.get(f"{matrix.name}.weight", matrix.outputs, matrix.inputs)
        case "blocks":
            raise AssertionError(matrix)
        case never:
            assert_never(never)


def _bias(matrix: MatrixPlan, tensors: Tensors) -> "Tensor":
    """In fp32."""
    return tensors.get(f"{matrix.name}.bias", matrix.outputs)
