"""The choice of the best checkpoint: the highest score, of equal ones the later, and never NaN."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spd_deploy.domain.errors import BadCheckpoint
from spd_train.training.best_checkpoint import BEST_FILE, BestCheckpoint, selection_score


def weights(step: int) -> dict[str, nn.Parameter]:
    """Parameters that tell of which step they are."""
    return {"w": nn.Parameter(torch.full((2,), float(step)))}


def test_always_yes_is_worth_less_than_a_model_that_decides() -> None:
    """On MRPC the first has the better F1, and the worse mean of F1 and accuracy."""
    always = {"f1": 0.812, "accuracy": 0.684, "loss": 0.6}
    deciding = {"f1": 0.805, "accuracy": 0.740, "loss": 0.5}

    assert selection_score(always, ("f1", "accuracy")) == pytest.approx(0.748)
    assert selection_score(deciding, ("f1", "accuracy")) == pytest.approx(0.7725)
    assert selection_score(None, ("f1", "accuracy")) is None


@given(
    values=st.lists(st.sampled_from([0.1, 0.5, 0.9, -0.2, math.nan, None, math.inf]), max_size=8)
)
def test_the_best_of_what_was_offered_is_taken(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    """It is the last of the highest among scores that are finite numbers; none where none are."""
    selection = BestCheckpoint(tmp_path_factory.mktemp("s"), fingerprint="f", begun=False)
    for i, value in enumerate(values, 1):
        selection.offer(i, value, weights(i))

    found = weights(0)
    step = selection.load(found)

    sound = [(v, s) for s, v in enumerate(values, 1) if v is not None and math.isfinite(v)]
    assert step == (max(sound)[1] if sound else None)
    assert found["w"].tolist() == [float(step or 0)] * 2


def test_an_offer_says_whether_it_was_kept(tmp_path: Path) -> None:
    """Higher and equal scores are, lower ones are not."""
    selection = BestCheckpoint(tmp_path, fingerprint="f", begun=False)

    said = [selection.offer(i, v, weights(i)) for i, v in enumerate((0.5, 0.4, 0.5, 0.6, math.nan))]

    assert said == [True, False, True, True, False]


def test_a_choice_goes_on_where_the_training_does(tmp_path: Path) -> None:
    """A resumed training keeps the best so far, a new one forgets it."""
    BestCheckpoint(tmp_path, fingerprint="f", begun=False).offer(3, 0.9, weights(3))

    resumed = BestCheckpoint(tmp_path, fingerprint="f", begun=True)
    assert not resumed.offer(5, 0.8, weights(5))
    assert resumed.load(weights(0)) == 3

    assert BestCheckpoint(tmp_path, fingerprint="f", begun=False).load(weights(0)) is None


def test_the_choice_of_another_run_is_refused(tmp_path: Path) -> None:
    """A file with another fingerprint is neither taken nor replaced."""
    BestCheckpoint(tmp_path, fingerprint="theirs", begun=False).offer(3, 0.9, weights(3))
    before = (tmp_path / BEST_FILE).read_bytes()
    ours = BestCheckpoint(tmp_path, fingerprint="ours", begun=True)

    with pytest.raises(BadCheckpoint, match="belongs to a run with other settings"):
        ours.load(weights(0))
    with pytest.raises(BadCheckpoint, match="belongs to a run with other settings"):
        ours.offer(4, 1.0, weights(4))

    assert (tmp_path / BEST_FILE).read_bytes() == before


def test_a_damaged_choice_is_named(tmp_path: Path) -> None:
    """Bytes that are no safetensors file."""
    (tmp_path / BEST_FILE).write_bytes(b"nonsense")

    with pytest.raises(BadCheckpoint, match="is damaged"):
        BestCheckpoint(tmp_path, fingerprint="f", begun=True).load(weights(0))
