"""The tensors of a layer norm of a torch artefact."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """The weight and bias ``[H]`` of a layer norm, in fp32."""

    weight_H: "Tensor"
    bias_H: "Tensor"

    @classmethod
    def of(cls, name: str, tensors: Tensors, H: int) -> Self:
        """Look up the tensors of a norm.

        Raises:
            BadArtefact: one is missing or has another shape.
        """
        weight_H, bias_H = tensors.get(f"{name}.weight", H), tensors.get(f"{name}.bias", H)
        return cls(weight_H=weight_H, bias_H=bias_H)
