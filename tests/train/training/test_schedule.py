"""The schedules as functions of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadSetting
from spd_train.config import Decay, GraftRecipe, GraftShape, StudentRecipe
from spd_train.data.batching import batches_per_epoch, by_length, epoch_batches
from spd_train.training.schedule import (
    Stages,
    cubic_share,
    graft_probability,
    last_mask_update,
    learning_rate_multiplier,
    mask_update,
    rewound_decay,
    stages_of,
    steps_of,
    warmup_decay,
)
from tests.train.runs import rows_of

SHAPES: tuple[GraftShape, ...] = ("none", "constant", "linear", "paper")
stages_of_any_length = st.builds(
    Stages, prune=st.integers(1, 60), graft=st.integers(0, 40), finetune=st.integers(1, 40)
)


@given(stages=stages_of_any_length, updates=st.integers(1, 15))
def test_masks_tighten_as_often_as_asked(stages: Stages, updates: int) -> None:
    """Updates are numbered from 1 in order, begin at step 0 and all fall into the prune stage."""
    found = [u for s in range(stages.total) if (u := mask_update(s, stages, updates))]

    assert found == list(range(1, min(updates, stages.prune) + 1))
    assert mask_update(0, stages, updates) == 1


def test_the_cubic_is_the_papers() -> None:
    """Twelve updates to 90 % lie on s_f (1 - (1 - k/K)^3), and the last is exact."""
    found = [0.9 * cubic_share(k, 12) for k in range(1, 13)]

    expected = [0.207, 0.379, 0.520, 0.633, 0.721, 0.7875, 0.835, 0.867, 0.886, 0.896, 0.8995, 0.9]
    assert found == pytest.approx(expected, abs=6e-4)
    assert cubic_share(12, 12) == 1.0


@given(stages=stages_of_any_length, start=st.floats(0, 1))
def test_the_graft_probability_rises_to_one(stages: Stages, start: float) -> None:
    """It keeps its start while pruning, never falls, and is 1 in the last stage."""
    paper = GraftRecipe(shape="paper", start=start)
    found = [graft_probability(s, stages, paper) for s in range(stages.total)]

    assert found[: stages.prune] == [start] * stages.prune
    assert found == sorted(found)
    assert found[stages.prune + stages.graft :] == [1.0] * stages.finetune
    assert all(start <= p <= 1 for p in found)


@given(stages=stages_of_any_length)
def test_the_learning_rate_is_wound_back_once(stages: Stages) -> None:
    """It starts at its peak, falls within each part, and is at its peak again after pruning."""
    found = [rewound_decay(s, stages) for s in range(stages.total)]
    first, second = found[: stages.prune], found[stages.prune :]

    assert first[0] == second[0] == 1.0
    assert first == sorted(first, reverse=True) and second == sorted(second, reverse=True)
    assert all(0 < rate <= 1 for rate in found)


@given(total=st.integers(1, 200), share=st.floats(0, 0.9))
def test_warmup_rises_then_falls(total: int, share: float) -> None:
    """The rate stays in (0, 1], peaks once, and no step is wasted on a rate of 0."""
    found = [warmup_decay(s, total, share) for s in range(total)]

    assert all(0 < rate <= 1 for rate in found)
    peak = found.index(max(found))
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_epochs_become_steps() -> None:
    """Fractions of an epoch count, any epoch is at least a step, and none is none."""
    assert steps_of(2.5, 100) == 250
    assert steps_of(0.001, 100) == 1
    assert steps_of(0, 100) == 0


@given(
    lengths=st.lists(st.integers(3, 128), min_size=1, max_size=300),
    batch_size=st.integers(1, 40),
    epoch=st.integers(0, 5),
)
def test_an_epoch_holds_every_row_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    """Batches share all rows out, none too large, and as many as were promised."""
    found = epoch_batches(lengths, batch_size=batch_size, seed=1, epoch=epoch)

    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert max(map(len, found)) <= batch_size
    assert len(found) == batches_per_epoch(len(lengths), batch_size)
    assert found == epoch_batches(lengths, batch_size=batch_size, seed=1, epoch=epoch)


def test_epochs_differ() -> None:
    """Another epoch has its rows in another order."""
    lengths = list(range(3, 103))
    first = epoch_batches(lengths, batch_size=8, seed=1, epoch=0)

    assert first != epoch_batches(lengths, batch_size=8, seed=1, epoch=1)
    assert first != epoch_batches(lengths, batch_size=8, seed=2, epoch=0)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=100))
def test_evaluation_batches_hold_every_row_once(lengths: list[int]) -> None:
    """Longest first, all rows, none twice."""
    found = by_length(rows_of(*lengths), batch_size=7)

    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert lengths[found[0][0]] == max(lengths)


@pytest.mark.parametrize("typical", [12, 60])
def test_nine_tenths_of_the_padded_tokens_are_real(typical: int) -> None:
    """With lengths as spread as GLUE's, grouping by length leaves under a tenth of padding."""
    import numpy as np

    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(typical), 0.5, 3000), 4, 128).astype(int).tolist()

    batches = epoch_batches(lengths, batch_size=32, seed=0, epoch=0)

    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert sum(lengths) / padded > 0.9


@given(stages=stages_of_any_length, start=st.floats(0, 1), shape=st.sampled_from(SHAPES))
def test_every_graft_probability_rises_to_one(
    stages: Stages, start: float, shape: GraftShape
) -> None:
    """Whatever the shape, it lies in [start, 1], never falls, and is 1 when grafting is over."""
    graft = GraftRecipe(shape=shape, start=start)

    found = [graft_probability(s, stages, graft) for s in range(stages.total)]

    assert found == sorted(found)
    assert all(start <= p <= 1 for p in found)
    assert found[stages.prune + stages.graft :] == [1.0] * stages.finetune
    assert found[0] == (1.0 if shape == "none" else start)


def test_the_papers_graft_probability_is_the_papers() -> None:
    """0.8 for 30 epochs, then in 10 epochs to 1 by equal steps; linear takes 40 for the same."""
    stages = Stages(prune=30, graft=10, finetune=20)
    shapes: dict[GraftShape, list[float]] = {
        "paper": [0.8] * 30 + [0.8 + 0.02 * i for i in range(10)] + [1.0] * 20,
        "linear": [0.8 + 0.005 * i for i in range(40)] + [1.0] * 20,
        "constant": [0.8] * 40 + [1.0] * 20,
        "none": [1.0] * 60,
    }
    for shape, expected in shapes.items():
        graft = GraftRecipe(shape=shape, start=0.8)
        found = [graft_probability(s, stages, graft) for s in range(60)]
        assert found == pytest.approx(expected), shape


@given(
    stages=stages_of_any_length,
    decay=st.sampled_from(["once", "rewound"]),
    warmup=st.floats(0, 0.9),
)
def test_no_step_is_without_a_learning_rate(stages: Stages, decay: Decay, warmup: float) -> None:
    """The share of the peak lies in (0, 1] at every step, whatever the decay and the warm-up."""
    found = [learning_rate_multiplier(s, stages, decay, warmup) for s in range(stages.total)]

    assert all(0 < share <= 1 for share in found)


@given(
    stages=stages_of_any_length,
    decay=st.sampled_from(["once", "rewound"]),
    warmup=st.floats(0, 0.9),
)
def test_warmup_ends_at_the_peak(stages: Stages, decay: Decay, warmup: float) -> None:
    """The first decay starts at the peak, to which the rate rises by equal steps."""
    first = stages.total if decay == "once" else stages.prune
    found = [learning_rate_multiplier(s, stages, decay, warmup) for s in range(first)]

    assert max(found) == 1.0
    peak = found.index(1.0)
    assert found[:peak] == pytest.approx([(s + 1) / (peak + 1) for s in range(peak)])
    assert found[peak:] == sorted(found[peak:], reverse=True)


@given(stages=stages_of_any_length)
def test_a_rate_that_decays_once_never_rises_again(stages: Stages) -> None:
    """Without warm-up it falls by equal steps from the peak over all three stages."""
    found = [learning_rate_multiplier(s, stages, "once", 0.0) for s in range(stages.total)]

    assert found == pytest.approx([1 - s / stages.total for s in range(stages.total)])


@given(
    prune=st.integers(1, 30),
    graft=st.integers(0, 20),
    finetune=st.integers(0, 20),
    most=st.integers(1, 90),
)
def test_a_bound_on_steps_cuts_the_last_stage_alone(
    prune: int, graft: int, finetune: int, most: int
) -> None:
    """Pruning and grafting stay whole or the bound is refused; nothing is ever lengthened."""
    stages = Stages(prune=prune, graft=graft, finetune=finetune)
    if most < prune + graft:
        with pytest.raises(BadSetting, match=f"{prune + graft} steps; got --max-steps {most}"):
            stages.bounded(most)
        return

    found = stages.bounded(most)

    assert (found.prune, found.graft) == (prune, graft)
    assert found.total == min(stages.total, most)
    assert stages.bounded(None) == stages


@given(stages=stages_of_any_length, updates=st.integers(1, 15))
def test_masks_are_final_after_the_last_update(stages: Stages, updates: int) -> None:
    """No later step has an update, and that step has the last."""
    last = last_mask_update(stages, updates)

    assert mask_update(last, stages, updates) == min(updates, stages.prune)
    assert not any(mask_update(s, stages, updates) for s in range(last + 1, stages.total))


@given(
    epochs=st.tuples(st.floats(0.1, 9), st.floats(0, 9), st.floats(0, 9)),
    per_epoch=st.integers(1, 50),
)
def test_a_recipes_epochs_become_stages(epochs: tuple[float, float, float], per_epoch: int) -> None:
    """Each stage has the steps of its epochs, one after another."""
    prune, graft, finetune = epochs
    recipe = StudentRecipe(prune_epochs=prune, graft_epochs=graft, finetune_epochs=finetune)

    stages = stages_of(recipe, per_epoch)

    assert (stages.prune, stages.graft, stages.finetune) == tuple(
        steps_of(e, per_epoch) for e in epochs
    )
    found = [stages.at(s) for s in range(stages.total)]
    assert found == (
        ["prune"] * stages.prune + ["graft"] * stages.graft + ["finetune"] * stages.finetune
    )
