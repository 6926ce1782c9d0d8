"""Who does the work of a feature-major network: PyTorch alone, or the Triton kernels."""

from typing import TYPE_CHECKING, Protocol

from spd_deploy.kernels import launch, plain
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor

    from spd_deploy.kernels.tuning import Tuner


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
    """The kernels, each product with the tile that the tuner knows."""

    spelled = "the block-sparse kernel"
    layer_norm = staticmethod(launch.layer_norm)
    attention = staticmethod(launch.attention)

    def __init__(self, tuner: "Tuner") -> None:
        self.tuner = tuner

    def block_linear(
        self,
        x_KT: "Tensor",
        weight: BlockWeight,
        *,
        activation: str = "none",
        residual_NT: "Tensor | None" = None,
    ) -> "Tensor":
        """With the product's tile, which is measured where it is not known."""
        problem = weight.problem(
            x_KT.shape[1], activation=activation, residual=residual_NT is not None
        )
        tile = self.tuner.tile_for(problem, x_KT, weight, residual_NT)
        return launch.block_linear(
            x_KT, weight, tile, activation=activation, residual_NT=residual_NT
        )
