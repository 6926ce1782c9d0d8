"""The schedules of training, as pure functions of the step.

Of the student, which trains in three stages:

    stage          prune                    graft                     finetune
    sparsity       cubic rise to target     target                    target
    grafting       by shape, see graft_probability                    1
    learning rate  rewound: decays to 0    back to the peak, then one decay to 0 over both
                   once: one decay to 0 over all three

Either way the learning rate first rises to the peak, over ``warmup_share`` of all steps; a share of
0 starts at the peak. The teacher has no stages: its rate rises and decays once (``warmup_decay``).

The paper's released code has five scheduler classes that change the model, one of which never
reaches 1. Each of them is a special case of these functions.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, assert_never

from spd_deploy.domain.errors import BadSetting
from spd_train.config import Decay, GraftRecipe, StudentRecipe

Stage = Literal["prune", "graft", "finetune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """Length of the three stages, in optimiser steps.

    Attributes:
        int8: steps at the end of the finetune stage in which the student computes in int8.
    """

    prune: int
    graft: int
    finetune: int
    int8: int = 0

    @property
    def total(self) -> int:
        """Length of all three stages together, in optimiser steps."""
        return self.prune + self.graft + self.finetune

    def at(self, step: int) -> Stage:
        """The stage of ``step`` (from 0)."""
        if step < self.prune:
            return "prune"
        return "graft" if step < self.prune + self.graft else "finetune"

    def bounded(self, most: int | None) -> Self:
        """The stages with the last one cut, so that they have at most ``most`` steps.

        Raises:
            BadSetting: pruning and grafting alone have more steps, so the target would not be
                reached.
        """
        if most is None or self.total <= most:
            return self
        least = self.prune + self.graft
        if least > most:
            raise BadSetting(
                "the schedule is longer than the training: pruning and grafting alone take "
                f"{least} steps",
                got=f"--max-steps {most}",
                fix=f"use --max-steps {least} or more, or shorten all stages with --epochs",
            )
        finetune = most - least
        return replace(self, finetune=finetune, int8=min(self.int8, finetune))

    def in_int8(self, step: int) -> bool:
        """Whether the student computes in int8 at ``step`` (from 0)."""
        return step >= self.total - self.int8


def stages_of(recipe: StudentRecipe, steps_per_epoch: int, most: int | None = None) -> Stages:
    """The stages of a recipe in steps, at most ``most`` of them."""
    return Stages(
        prune=steps_of(recipe.prune_epochs, steps_per_epoch),
        graft=steps_of(recipe.graft_epochs, steps_per_epoch),
        finetune=steps_of(recipe.finetune_epochs, steps_per_epoch),
        int8=steps_of(recipe.int8_epochs, steps_per_epoch),
    ).bounded(most)


def steps_of(epochs: float, steps_per_epoch: int) -> int:
    """Optimiser steps of ``epochs``; at least one if ``epochs`` is above 0."""
    return max(1, round(epochs * steps_per_epoch)) if epochs > 0 else 0


def mask_update(step: int, stages: Stages, updates: int) -> int | None:
    """The number (from 1) of the mask update at ``step``; None if there is none.

    The updates are spread evenly from step 0 on, so after the last one there are steps to recover
    before the stage ends. A stage of fewer steps than updates has an update at every step.
    """
    due = min(updates, stages.prune)
    if step >= stages.prune:
        return None
    number = step * due // stages.prune
    return number + 1 if step == 0 or (step - 1) * due // stages.prune != number else None


def last_mask_update(stages: Stages, updates: int) -> int:
    """The step of the last mask update, after which the masks are final."""
    return next(
        step for step in reversed(range(stages.prune)) if mask_update(step, stages, updates)
    )


def cubic_share(update: int, updates: int) -> float:
    """Share of the final sparsity after update k of K: 1 - (1 - k/K)^3 (Zhu and Gupta 2017)."""
    return 1.0 if update >= updates else 1 - (1 - update / updates) ** 3


def graft_probability(step: int, stages: Stages, graft: GraftRecipe) -> float:
    """Probability in [start, 1] that a part of the student is in place at ``step``."""
    ramp_end = stages.prune + stages.graft
    if graft.shape == "none" or step >= ramp_end:
        return 1.0
    match graft.shape:
        case "constant":
            return graft.start
        case "linear":
            return _between(graft.start, step / ramp_end)
        case "paper":
            done = (step - stages.prune) / stages.graft if step >= stages.prune else 0.0
            return _between(graft.start, done)
        case never:
            assert_never(never)


def learning_rate_multiplier(step: int, stages: Stages, decay: Decay, warmup_share: float) -> float:
    """Learning rate at ``step`` as a share of its peak, in (0, 1]; warm-up ends at the peak.

    Args:
        step: from 0.
        stages: their lengths.
        decay: over all stages at once, or over the prune stage and again over the rest.
        warmup_share: share of all steps in which the rate rises. A rewound rate has warmed up by
            the end of the prune stage at the latest.
    """
    match decay:
        case "once":
            return warmup_decay(step, stages.total, warmup_share)
        case "rewound":
            return rewound_decay(step, stages, warmup_share)
        case never:
            assert_never(never)


def rewound_decay(step: int, stages: Stages, warmup_share: float = 0.0) -> float:
    """A rise and a linear decay over the prune stage, then a decay from the peak over the rest."""
    if step < stages.prune:
        rise = min(stages.prune, math.ceil(stages.total * warmup_share))
        return _rise_and_decay(step, stages.prune, rise)
    return 1.0 - (step - stages.prune) / (stages.graft + stages.finetune)


def warmup_decay(step: int, total: int, warmup_share: float) -> float:
    """A linear rise to the peak in a share of all steps, then a linear decay to 0."""
    return _rise_and_decay(step, total, math.ceil(total * warmup_share))


def _rise_and_decay(step: int, total: int, rise: int) -> float:
    """Share of the peak: a linear rise in ``rise`` steps, then a linear decay to 0 at ``total``."""
    if step < rise:
        return (step + 1) / rise
    return (total - step) / max(1, total - rise)


def _between(start: float, done: float) -> float:
    """Interpolation from ``start`` to 1 at ``done`` in [0, 1]."""
    return start + (1.0 - start) * done
