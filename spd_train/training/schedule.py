"""What changes with the step, as pure functions of it.

    stage          prune                    graft                     finetune
    sparsity       cubic rise to the goal   goal                      goal
    graft          by shape, see graft_probability                    1
    learning rate  rewound: decays to 0, back to the peak, then one decay to 0 over both
                   once: one decay to 0 over all three

The released code of the paper spells these as five scheduler classes that mutate the model, one of
which never reaches 1; all are points of these functions.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from spd_deploy.domain.errors import BadSetting
from spd_train.config import Decay, GraftRecipe, StudentRecipe

Stage = Literal["prune", "graft", "finetune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """Length of the three stages in optimiser steps."""

    prune: int
    graft: int
    finetune: int

    @property
    def total(self) -> int:
        """All steps."""
        return self.prune + self.graft + self.finetune

    def at(self, step: int) -> Stage:
        """The stage that ``step`` (from 0) belongs to."""
        if step < self.prune:
            return "prune"
        return "graft" if step < self.prune + self.graft else "finetune"

    def bounded(self, most: int | None) -> Self:
        """The same stages, the last one cut so that there are at most ``most`` steps.

        Raises:
            BadSetting: pruning and grafting alone take longer, so the goal would not be reached.
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
        return replace(self, finetune=most - least)


def stages_of(recipe: StudentRecipe, steps_per_epoch: int, most: int | None = None) -> Stages:
    """The stages of a recipe in steps, at most ``most`` of them."""
    return Stages(
        prune=steps_of(recipe.prune_epochs, steps_per_epoch),
        graft=steps_of(recipe.graft_epochs, steps_per_epoch),
        finetune=steps_of(recipe.finetune_epochs, steps_per_epoch),
    ).bounded(most)


def steps_of(epochs: float, steps_per_epoch: int) -> int:
    """Optimiser steps in ``epochs``; at least one where any were asked for."""
    return max(1, round(epochs * steps_per_epoch)) if epochs > 0 else 0


def mask_update(step: int, stages: Stages, updates: int) -> int | None:
    """The number (from 1) of the mask update due at ``step``, None where none is.

    The updates are spread evenly from step 0, so the last leaves room to recover before the stage
    ends. A stage shorter than ``updates`` steps updates at every step.
    """
    due = min(updates, stages.prune)
    if step >= stages.prune:
        return None
    number = step * due // stages.prune
    return number + 1 if step == 0 or (step - 1) * due // stages.prune != number else None


def last_mask_update(stages: Stages, updates: int) -> int:
    """The step at which the masks become final."""
    return next(
        step for step in reversed(range(stages.prune)) if mask_update(step, stages, updates)
    )


def cubic_share(update: int, updates: int) -> float:
    """Share of the final sparsity after ``update`` of ``updates``: 1 - (1 - k/K)^3, 1 at last."""
    return 1.0 if update >= updates else 1 - (1 - update / updates) ** 3


def graft_probability(step: int, stages: Stages, graft: GraftRecipe) -> float:
    """Chance in [start, 1] that a student part stands in for its teacher at ``step``."""
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


def decayed_share(step: int, stages: Stages, decay: Decay, warmup_share: float) -> float:
    """Share of the peak learning rate at ``step``."""
    if decay == "once":
        return warmup_decay(step, stages.total, warmup_share)
    rise = math.ceil(stages.total * warmup_share)
    return min(1.0, (step + 1) / rise if rise else 1.0) * rewound_decay(step, stages)


def rewound_decay(step: int, stages: Stages) -> float:
    """Share of the peak learning rate: one linear decay over pruning, one over the rest."""
    if step < stages.prune:
        return 1.0 - step / stages.prune
    return 1.0 - (step - stages.prune) / (stages.graft + stages.finetune)


def warmup_decay(step: int, total: int, warmup_share: float) -> float:
    """Share of the peak learning rate: a linear rise, then a linear decay to 0."""
    rise = math.ceil(total * warmup_share)
    if step < rise:
        return (step + 1) / rise
    return (total - step) / max(1, total - rise)


def _between(start: float, done: float) -> float:
    """From ``start`` to 1 as ``done`` goes from 0 to 1."""
    return start + (1.0 - start) * done
