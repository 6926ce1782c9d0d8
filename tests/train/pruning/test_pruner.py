"""Masks from update to update: what was dropped for good stays dropped."""

from pathlib import Path

import pytest
import torch

from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_train.grafting import GraftedNetwork
from spd_train.prune_recipe import Importance, PruneRecipe
from spd_train.pruning.masks import targets_of
from spd_train.pruning.pruner import Pruner
from tests.train.runs import calibration, grafted, shaken

PATTERNS: list[Pattern] = [
    Unstructured(sparsity=0.7),
    NM(n=2, m=4),
    Block(rows=8, columns=1, sparsity=0.5),
    Structured(sparsity=0.5),
]


def pruner_of(network: GraftedNetwork, pattern: Pattern, importance: Importance) -> Pruner:
    """A pruner of four updates without regrowth."""
    recipe = PruneRecipe(importance=importance, updates=4, regrow=False, calibration_tokens=64)
    return Pruner(network, targets_of(network.encoder, pattern), recipe, calibration(9, 7, 5))


@pytest.mark.parametrize("importance", ["magnitude", "movement", "taylor", "second-order"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_without_regrowth_what_was_dropped_stays_dropped(
    teacher: Path, pattern: Pattern, importance: Importance
) -> None:
    """Each mask is a part of the one before, though weights that are there may score below zero."""
    network = shaken(grafted(teacher))
    pruner = pruner_of(network, pattern, importance)
    draw = torch.Generator().manual_seed(0)
    before: dict[str, torch.Tensor] = {}
    for update in range(1, 5):
        pruner.tighten(update / 4, last=update == 4)
        for name, mask in pruner.weights.masks.items():
            assert not (mask & ~before.get(name, torch.ones_like(mask))).any()
        before = dict(pruner.weights.masks)
        for parameter in pruner.parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        pruner.add_gradients()

    pruner.verify()
