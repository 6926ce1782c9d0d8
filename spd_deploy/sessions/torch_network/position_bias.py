"""Biases by relative position of a torch artefact: for each layer, a column for each kept head."""

from typing import TYPE_CHECKING

from spd_deploy.domain.encoder import Encoder
from spd_deploy.sessions.torch_network.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


def layer_table(encoder: Encoder, layer: int) -> str:
    """The name of the tensor ``[buckets, kept heads]`` of a layer."""
    return f"{encoder.prefix}.{layer}.relative_attention_bias.weight"


def layer_biases(encoder: Encoder, tensors: Tensors, layer: int, heads: int) -> "Tensor | None":
    """The biases ``[heads, 2 P - 1]`` of a layer for all distances, fp32; None where it has none.

    Raises:
        BadArtefact: the table is missing or has another shape.
    """
    if (relative := encoder.relative_positions) is None or not heads:
        return None
    table_UA = tensors.get(layer_table(encoder, layer), relative.buckets, heads)
    return table_UA[list(relative.buckets_of(encoder.positions))].float().T.contiguous()
