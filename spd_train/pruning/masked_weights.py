"""Weights with masks, and what the masks dropped, from which it may come back.

The optimiser moves every weight. What is masked is set back to zero after each update; with
regrowth its movement is not lost but kept aside, as if the mask were applied in the forward pass
and the gradient went straight through it (Evci et al. 2020 and Zhou et al. 2021 argue for both
halves of this). The next masks are chosen among what is there and what was set aside.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_train.pruning.masks import Masks, apply_masks, sparsity_of
from spd_train.state_dict import with_prefix

_MASK, _ASIDE = "mask/", "aside/"


class SparseWeights:
    """The prunable weights of a student by matrix name; only those with goals are ever masked."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        """All dense, nothing set aside."""
        self.weights = weights
        self.masks: dict[str, Tensor] = {}
        self.sparsity = 0.0
        self._aside: dict[str, Tensor] = {}

    def dense(self) -> dict[str, Tensor]:
        """What the weights would be without masks: those in place and those set aside."""
        return {
            name: weight.detach() + self._aside[name] if name in self._aside else weight.detach()
            for name, weight in self.weights.items()
        }

    def set_masks(self, masks: Masks, *, regrow: bool) -> None:
        """Apply new masks; with ``regrow`` what they drop is set aside, otherwise it is gone."""
        dense = self.dense()
        aside = {n: dense[n] * ~mask for n, mask in masks.items()} if regrow else {}
        with torch.no_grad():
            for name, mask in masks.items():
                self.weights[name].copy_(dense[name] * mask)
        self._aside = aside
        self.masks = dict(masks)
        self.sparsity = sparsity_of(self.masks)

    def after_update(self) -> None:
        """The optimiser moved what is masked too: set it back, and keep its movement if asked."""
        with torch.no_grad():
            for name, aside in self._aside.items():
                aside.addcmul_(self.weights[name], (~self.masks[name]).to(aside.dtype))
        apply_masks(self.weights, self.masks)

    def state(self) -> dict[str, Tensor]:
        """Masks and what is set aside, to be saved."""
        masks = {f"{_MASK}{name}": mask for name, mask in self.masks.items()}
        return {**masks, **{f"{_ASIDE}{name}": value for name, value in self._aside.items()}}

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """The inverse of :meth:`state`."""
        self.masks = {n: mask.to(device) for n, mask in with_prefix(_MASK, state).items()}
        self._aside = {n: value.to(device) for n, value in with_prefix(_ASIDE, state).items()}
        self.sparsity = sparsity_of(self.masks)
