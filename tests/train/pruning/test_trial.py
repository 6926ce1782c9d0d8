"""Trials that skip the layers before the first change have the result of a whole pass."""

from pathlib import Path

import pytest
import torch

from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import Calibration
from spd_train.pruning.structured import trial
from spd_train.pruning.structured.compact import CompactStudents
from spd_train.pruning.structured.curves import removal_curves, sublayers_of
from spd_train.pruning.structured.trial import Trials
from tests.tiny import tiny_model
from tests.train.runs import FP32, batch, grafted, shaken


@pytest.fixture(params=["bert", "distilbert", "roberta", "mpnet", "deberta-v2"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> GraftedNetwork:
    """A network of three layers whose students differ from their teachers."""
    return shaken(grafted(tiny_model(tmp_path / "m", architecture=request.param, layers=3)))


def trials(network: GraftedNetwork) -> Trials:
    """Trials on five batches of rows of unlike lengths."""
    calibration = Calibration(
        batches=[batch(3, 5 + i, 9 + i) for i in range(5)],
        autocast=lambda: FP32.autocast("cpu"),
    )
    students = CompactStudents(network)
    curves = removal_curves(network, sublayers_of(network.encoder), calibration, {})
    return Trials(network, students, curves, calibration)


def test_skipped_layers_change_nothing(
    network: GraftedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever sublayer gives something up, and if several do: the distance is the same."""
    quick, slow = trials(network), trials(network)
    monkeypatch.setattr(slow, "_whole_layers", lambda *_: 0)
    whole = [curve.left for curve in quick.curves]
    smaller = [max(0, left // 2) for left in whole]
    cases = [
        [smaller[i] if i in changed else whole[i] for i in range(len(whole))]
        for changed in ({0}, {1}, {2}, {3}, {4}, {5}, {2, 5}, {3, 4}, set(range(6)), set())
    ]

    for kept in cases:
        assert quick.rough_distance(kept) == slow.rough_distance(kept)
        assert quick.distance(kept) == slow.distance(kept)
    ids = batch(4, 6)
    assert torch.isfinite(network(ids).logits_BC).all()
    assert all("forward" not in vars(layer) for layer in network.layers)


def test_a_bound_on_memory_changes_nothing(
    network: GraftedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for the hidden states of one layer and one solution the distances are the same."""
    free = trials(network)
    monkeypatch.setattr(trial, "_MAX_HIDDEN_BYTES", free.hidden_bytes // 2)
    monkeypatch.setattr(trial, "_MAX_SOLVED_BYTES", 1)
    bound = trials(network)
    whole = [curve.left for curve in free.curves]
    cases = [[*whole[:i], whole[i] // 2, *whole[i + 1 :]] for i in range(len(whole))]

    assert [bound.rough_distance(kept) for kept in cases] == [
        free.rough_distance(kept) for kept in cases
    ]
    assert [set(known) for known in bound._whole_outputs] == [{2}] * 2
    assert [set(known) for known in free._whole_outputs] == [{1, 2}] * 2


def test_the_layers_before_a_change_are_not_computed(network: GraftedNetwork) -> None:
    """A change in the last layer runs that layer alone, on each rough batch."""
    found = trials(network)
    whole = [curve.left for curve in found.curves]
    found.rough_distance([*whole[:-1], whole[-1] // 2])
    runs = [0] * 3
    for i, layer in enumerate(network.layers):
        children = list(layer.children())
        children[0].register_forward_hook(lambda *_, i=i: runs.__setitem__(i, runs[i] + 1))

    found.rough_distance([*whole[:-1], whole[-1] // 3])

    assert runs == [0, 0, 2]
