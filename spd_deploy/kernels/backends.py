"""Who does the work of a feature-major network: PyTorch alone, or the Triton kernels."""

from typing import TYPE_CHECKING, Protocol

from spd_deploy.kernels import launch, plain
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor


class Backend(Protocol):
    """The three operations; all tensors are ``[features, tokens]``."""

    @property
    def spelled(self) -> str:
        """What runs a block-sparse product, in words."""
        ...

    def block_linear(
        self,
        x_KT: "Tensor",
        weight: BlockWeight,
        *,
        activation: str = "none",
        residual_NT: "Tensor | None" = None,
    ) -> "Tensor":
        """The product with bias, activation and then residual."""
        ...

    def layer_norm(
        self, x_HT: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float
    ) -> "Tensor":
        """Over the features of each token."""
        ...

    def attention(
        self, q: "Tensor", k: "Tensor", v: "Tensor", bias_BS: "Tensor", *, heads: int
    ) -> "Tensor":
        """The context of the queries."""
        ...


class Plain:
    """PyTorch's own operators."""

    spelled = "index_select and bmm"
    block_linear = staticmethod(plain.block_linear)
    layer_norm = staticmethod(plain.layer_norm)
    attention = staticmethod(plain.attention)


class Triton:
    """The kernels, each product with the tile that was measured to be its fastest."""

    spelled = "the block-sparse kernel"
    block_linear = staticmethod(launch.block_linear)
    layer_norm = staticmethod(launch.layer_norm)
    attention = staticmethod(launch.attention)
