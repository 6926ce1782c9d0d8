"""Weights with masks, and the values that the masks removed, which may come back.

The optimiser updates every weight. Masked weights are set back to zero after each update. With
regrowth the removed value and its updates are kept aside, as if the mask were applied in the
forward pass and the gradient passed straight through (Evci et al. 2020, Zhou et al. 2021). The next
masks are chosen from the values in place and the values aside.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_train.pruning.masks import Masks, apply_masks, sparsity_of
from spd_train.state_dict import with_prefix

_MASK, _ASIDE = "mask/", "aside/"


class MaskedWeights:
    """The prunable weights of a student by matrix name."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Start without masks: all weights are dense."""
        self.weights = weights
        self.masks: dict[str, Tensor] = {}
        self.sparsity = 0.0
        self._aside: dict[str, Tensor] = {}

    def dense(self) -> dict[str, Tensor]:
        """The weights ``[N, K]`` without masks: the values in place and the values aside."""
        return {
            name: weight.detach() + self._aside[name] if name in self._aside else weight.detach()
            for name, weight in self.weights.items()
        }

    def set_masks(self, masks: Masks, *, regrow: bool) -> None:
        """Apply new masks, in place.

        Args:
            masks: the masks by matrix name; True keeps a weight.
            regrow: keep the pruned values aside, so that a later mask can bring them back.
        """
        dense = self.dense()
        aside = {n: dense[n] * ~mask for n, mask in masks.items()} if regrow else {}
        with torch.no_grad():
            for name, mask in masks.items():
                self.weights[name].copy_(dense[name] * mask)
        self._aside = aside
        self.masks = dict(masks)
        self.sparsity = sparsity_of(self.masks)

    def reapply_masks(self) -> None:
        """Set pruned weights to zero after an optimiser step.

        With regrowth the step is added to the values aside.
        """
        with torch.no_grad():
            for name, aside in self._aside.items():
                aside.addcmul_(self.weights[name], (~self.masks[name]).to(aside.dtype))
        apply_masks(self.weights, self.masks)

    def state(self) -> dict[str, Tensor]:
        """The masks and the values aside, for the saved state."""
        masks = {f"{_MASK}{name}": mask for name, mask in self.masks.items()}
        return {**masks, **{f"{_ASIDE}{name}": value for name, value in self._aside.items()}}

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """Restore what :meth:`state` returned, on ``device``."""
        self.masks = {n: mask.to(device) for n, mask in with_prefix(_MASK, state).items()}
        self._aside = {n: value.to(device) for n, value in with_prefix(_ASIDE, state).items()}
        self.sparsity = sparsity_of(self.masks)
