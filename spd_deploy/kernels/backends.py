"""The backends of a feature-major network: PyTorch's operators, or the Triton kernels."""

from typing import TYPE_CHECKING, Protocol

from spd_deploy.kernels import eager, launch
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor


class Backend(Protocol):
    """Three operations on feature-major tensors ``[features, tokens]``."""

    @property
    def label(self) -> str:
        """Name of the block-sparse product's implementation, for a session's description."""
        ...

    def block_linear(
        self,
        x_KT: "Tensor",
        weight: BlockWeight,
        *,
        activation: str = "none",
        residual_NT: "Tensor | None" = None,
    ) -> "Tensor":
        """``activation(weight @ x + bias) + residual``, ``[K, T]`` to ``[N, T]``."""
        ...

    def layer_norm(
        self, x_HT: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float
    ) -> "Tensor":
        """Layer norm over the features of each token."""
        ...

    def attention(
        self,
        q: "Tensor",
        k: "Tensor",
        v: "Tensor",
        bias_BS: "Tensor",
        *,
        heads: int,
        biases_AD: "Tensor | None" = None,
    ) -> "Tensor":
        """Scaled dot-product attention; ``bias_BS`` is added to the scores of each key.

        ``biases_AD`` is added by the distance of a key from its query, from 1 - P to P - 1.
        """
        ...


class EagerBackend:
    """PyTorch's operators, on any device."""

    label = "index_select and bmm"
    block_linear = staticmethod(eager.block_linear)
    layer_norm = staticmethod(eager.layer_norm)
    attention = staticmethod(eager.attention)


class TritonBackend:
    """The Triton kernels; each product uses the tile that was measured as its fastest."""

    label = "the block-sparse kernel"
    block_linear = staticmethod(launch.block_linear)
    layer_norm = staticmethod(launch.layer_norm)
    attention = staticmethod(launch.attention)
