"""What changes with the step, as pure functions of it.

    stage          prune                    graft                     finetune
    sparsity       cubic rise to the goal   goal                      goal
    graft          graft_start              linear rise to 1          1
    learning rate  peak, decays to 0        back to the peak, then one decay to 0 over both

The released code of the paper spells these as five scheduler classes that mutate the model, one of
which never reaches 1; all are points of these functions.
"""

import math
from dataclasses import dataclass
from typing import Literal

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


def cubic_sparsity(update: int, updates: int, goal: float) -> float:
    """Sparsity after ``update`` of ``updates``: s_f (1 - (1 - k/K)^3), exactly the goal at last."""
    return goal if update >= updates else goal * (1 - (1 - update / updates) ** 3)


def graft_probability(step: int, stages: Stages, start: float) -> float:
    """Chance in [start, 1] that a student layer stands in for its teacher at ``step``."""
    if step < stages.prune:
        return start
    if step >= stages.prune + stages.graft:
        return 1.0
    return start + (1.0 - start) * (step - stages.prune) / stages.graft


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
