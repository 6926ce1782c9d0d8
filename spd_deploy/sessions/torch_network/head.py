"""The classifier head of a torch artefact, in fp32; its input is the first token of each row."""

from typing import TYPE_CHECKING, assert_never

from spd_deploy.domain.encoder import Encoder
from spd_deploy.sessions.torch_network.network_plan import HeadActivation, NetworkPlan
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


class ClassifierHead:
    """Maps ``[B, H]`` to logits ``[B, C]``."""

    def __init__(self, plan: NetworkPlan, encoder: Encoder, tensors: Tensors) -> None:
        """Look up the tensors of the head's layers.

        Raises:
            BadArtefact: a tensor is missing or has another shape.
        """
        self.layers: list[tuple[Tensor, Tensor, HeadActivation]] = []
        for layer in plan.head:
            bias_N = tensors.get(f"{layer.name}.bias").float()
            weight_NK = tensors.get(f"{layer.name}.weight", len(bias_N), encoder.hidden).float()
            self.layers.append((weight_NK, bias_N, layer.activation))

    def __call__(self, x_BH: "Tensor") -> "Tensor":
        """Logits ``[B, C]`` of ``[B, H]``."""
        from torch.nn.functional import linear

        x_BH = x_BH.float()
        for weight_NK, bias_N, activation in self.layers:
            x_BH = _activated(linear(x_BH, weight_NK, bias_N), activation)
        return x_BH


def _activated(x: "Tensor", activation: HeadActivation) -> "Tensor":
    """``x`` after the activation of this name."""
    from torch.nn.functional import gelu, relu

    match activation:
        case "tanh":
            return x.tanh()
        case "relu":
            return relu(x)
        case "gelu":
            return gelu(x)
        case "none":
            return x
        case never:
            assert_never(never)
