"""The classifier head of a torch artefact, in fp32; its input is a token of each row, or a mean."""

from typing import TYPE_CHECKING, assert_never

from spd_deploy.domain.encoder import Encoder
from spd_deploy.sessions.torch_network.network_plan import HeadActivation, NetworkPlan
from spd_deploy.sessions.torch_network.norm import Norm
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
        self.layers: list[tuple[Tensor, Tensor, HeadActivation, Norm | None]] = []
        for layer in plan.head:
            bias_N = tensors.get(f"{layer.name}.bias").float()
            weight_NK = tensors.get(f"{layer.name}.weight", len(bias_N), encoder.hidden).float()
            norm = None if layer.norm is None else Norm.of(layer.norm, tensors, len(bias_N))
            self.layers.append((weight_NK, bias_N, layer.activation, norm))
        self.epsilon = plan.epsilon

    def __call__(self, x_BH: "Tensor") -> "Tensor":
        """Logits ``[B, C]`` of ``[B, H]``."""
        from torch.nn.functional import layer_norm, linear

        x_BH = x_BH.float()
        for weight_NK, bias_N, activation, norm in self.layers:
            x_BH = _activated(linear(x_BH, weight_NK, bias_N), activation)
            if norm is not None:
                x_BH = layer_norm(x_BH, x_BH.shape[1:], norm.weight_H, norm.bias_H, self.epsilon)
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
