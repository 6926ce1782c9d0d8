"""The attention of a layer of a torch artefact: the angles of its positions, and its window."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.domain.encoder import Encoder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Added to the scores beyond a window. With the mask of padding (-1.7e38), times log2(e) in the
# kernel, it stays above the lowest fp32 number.
_HIDDEN = -3e37


@dataclass(frozen=True, kw_only=True, slots=True)
class Angles:
    """Cosines and sines of each position and pair of features, ``[P, D / 2]`` in fp32."""

    cos_PF: "Tensor"
    sin_PF: "Tensor"


def layer_angles(encoder: Encoder, layer: int, device: "torch.device") -> Angles | None:
    """The angles of a layer's positions; None where positions are embedded."""
    if not encoder.attention:
        return None
    import torch

    frequencies = encoder.attention[layer].frequencies(encoder.head_size)
    frequency_F = torch.tensor(frequencies, dtype=torch.float32, device=device)
    place_P = torch.arange(encoder.positions, dtype=torch.float32, device=device)
    angle_PF = place_P[:, None] * frequency_F
    return Angles(cos_PF=angle_PF.cos(), sin_PF=angle_PF.sin())


def window_biases(
    encoder: Encoder, layer: int, heads: int, device: "torch.device"
) -> "Tensor | None":
    """The biases of the scores by distance, ``[heads, 2 P - 1]``; None without a window."""
    window = encoder.attention[layer].window if encoder.attention else None
    if window is None:
        return None
    import torch

    P = encoder.positions
    distance_D = torch.arange(1 - P, P, device=device).abs()
    bias_D = torch.where(distance_D > window, _HIDDEN, 0.0)
    return bias_D.expand(max(1, heads), -1)
