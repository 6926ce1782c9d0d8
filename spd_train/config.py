"""All that decides how a run goes, as frozen values that travel in the checkpoint.

A recipe is composed by a function (``spd_train.recipes``), never read from options one by one, and
what was composed stands whole in ``spd.json``, from which the same run can be made again.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import NM, Pattern, parse_pattern

_COMPARE = "compare it with the recipe in a spd.json that this version wrote"

Device = Literal["cpu", "cuda"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
Importance = Literal["magnitude", "movement", "taylor", "activation", "second-order"]
# Made of gradients, so that they need steps to be seen.
FROM_GRADIENTS: tuple[Importance, ...] = ("movement", "taylor")
Allocation = Literal["uniform", "global", "sensitivity"]
GraftShape = Literal["none", "constant", "linear", "paper"]
GraftUnit = Literal["layer", "sublayer"]
Decay = Literal["rewound", "once"]
LossScale = Literal["teacher", "plain"]


def _refuse_unless(fine: bool, what: str, got: object) -> None:
    """Raise where a setting makes no sense; NaN never does."""
    if not fine:
        raise BadSetting(what, got=got, fix="see spd train --help")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRecipe:
    """Plain fine-tuning of the dense teacher: AdamW, a linear warm-up and decay."""

    epochs: float = 3.0
    learning_rate: float = 5e-5
    warmup_share: float = 0.1
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Refuse lengths and rates that are not positive."""
        _refuse_unless(0 < self.epochs < math.inf, "--teacher-epochs must be above 0", self.epochs)
        _refuse_unless(
            0 < self.learning_rate < math.inf,
            "--teacher-learning-rate must be above 0",
            self.learning_rate,
        )
        _refuse_unless(
            0 <= self.warmup_share < 1, "warmup_share must lie in [0, 1)", self.warmup_share
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GraftRecipe:
    """How student parts come to stand in for the teacher's.

    Attributes:
        shape: ``paper`` holds ``start`` while pruning, then rises linearly to 1 over the graft
            stage; ``linear`` rises from the first step; ``constant`` holds until the graft stage
            ends; ``none`` has every student part in place from the first step.
        start: the chance that a unit's student is in place at first.
        unit: whole layers, or attention and feed-forward apart.
    """

    shape: GraftShape = "paper"
    start: float = 0.8
    unit: GraftUnit = "layer"

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _refuse_unless(0 <= self.start <= 1, "--graft-start must lie in [0, 1]", self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossRecipe:
    """The terms of the loss and their weights; a weight of 0 leaves the term out.

    Attributes:
        attention: squared distance of attention probabilities.
        hidden: squared distance of hidden states.
        logits: divergence from the teacher's answer.
        label: plain loss to the true labels.
        temperature: of the divergence.
        scale: ``teacher`` measures hidden states in the teacher's own spread and takes means over
            layers; ``plain`` sums plain means over layers, unweighted, as the paper does.
    """

    attention: float = 1.0
    hidden: float = 1.0
    logits: float = 1.0
    label: float = 0.0
    temperature: float = 1.0
    scale: LossScale = "teacher"

    def __post_init__(self) -> None:
        """Refuse a loss that is nothing."""
        weights = (self.attention, self.hidden, self.logits, self.label)
        _refuse_unless(min(weights) >= 0, "weights of losses must be 0 or more", weights)
        _refuse_unless(sum(weights) > 0, "at least one loss needs a weight above 0", weights)
        _refuse_unless(self.temperature > 0, "temperature must be above 0", self.temperature)


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneRecipe:
    """Which weights go, when, and what the others become.

    Attributes:
        importance: what a weight is ranked by (``spd_train.pruning.importance``).
        updates: how often the masks tighten in the prune stage.
        regrow: whether a weight that went may come back at a later update.
        reconstruct: whether kept weights are solved again by least squares after each update.
        permute: whether inputs and rows are reordered first so that the pattern keeps more.
        allocation: the same sparsity everywhere, or more where it costs less.
        least_density: what every matrix keeps under an uneven allocation.
        exclude: matrices whose name contains one of these stay dense.
        calibration_tokens: how much training text statistics and reconstruction are made on.
    """

    importance: Importance = "magnitude"
    updates: int = 12
    regrow: bool = False
    reconstruct: bool = False
    permute: bool = False
    allocation: Allocation = "uniform"
    least_density: float = 0.02
    exclude: tuple[str, ...] = ()
    calibration_tokens: int = 8192

    def __post_init__(self) -> None:
        """Refuse values that make no schedule."""
        _refuse_unless(self.updates >= 1, "--mask-updates must be at least 1", self.updates)
        if self.updates == 1 and self.importance in FROM_GRADIENTS:
            raise BadSetting(
                "this importance is made of gradients, and the only mask update is the first step",
                got=f"--importance {self.importance} with --mask-updates 1",
                fix="use more --mask-updates, or another --importance",
            )
        _refuse_unless(
            0 < self.least_density < 1, "least_density must lie in (0, 1)", self.least_density
        )
        _refuse_unless(
            self.calibration_tokens >= 1,
            "--calibration-tokens must be at least 1",
            self.calibration_tokens,
        )


def refuse_unspreadable(pattern: Pattern, pruning: PruneRecipe) -> None:
    """Refuse an uneven allocation of a sparsity that cannot be spread.

    Raises:
        BadSetting: the pattern has one sparsity, or so much that every matrix is at its floor.
    """
    if pruning.allocation == "uniform":
        return
    if isinstance(pattern, NM):
        raise BadSetting(
            f"{pattern} has one sparsity, which no allocation can spread",
            got=f"--allocation {pruning.allocation}",
            fix="use --allocation uniform, or another pattern",
        )
    if pattern.sparsity > 1 - pruning.least_density:
        raise BadSetting(
            f"every matrix keeps {pruning.least_density:g} of its weights where the sparsity is "
            "spread unevenly, so this one is out of reach",
            got=f"--sparsity {pattern.sparsity:g} with --allocation {pruning.allocation}",
            fix="use --allocation uniform, or a lower --min-density",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecipe:
    """The training of the sparse student in three stages.

    Attributes:
        prune_epochs: length of the stage in which sparsity rises along a cubic.
        graft_epochs: length of the stage in which the graft probability comes to 1.
        finetune_epochs: length of the stage in which all student parts are in place.
        learning_rate: the peak.
        decay: ``rewound`` decays over the prune stage and once more over the rest, as the paper
            does; ``once`` decays over the whole.
        warmup_share: share of the whole over which the rate first rises.
        dropout: whether the student's dropout is on; the teacher's never is.
        mix_pairs: share of a batch's pairs that get the second text of another row, for the
            teacher to answer (``spd_train.data.augment``).
    """

    prune_epochs: float = 3.0
    graft_epochs: float = 1.0
    finetune_epochs: float = 4.0
    learning_rate: float = 2e-4
    decay: Decay = "rewound"
    warmup_share: float = 0.0
    weight_decay: float = 0.0
    dropout: bool = True
    mix_pairs: float = 0.0
    graft: GraftRecipe = GraftRecipe()
    losses: LossRecipe = LossRecipe()
    pruning: PruneRecipe = PruneRecipe()

    def __post_init__(self) -> None:
        """Refuse values that make no run."""
        _refuse_unless(
            0 < self.prune_epochs < math.inf, "--prune-epochs must be above 0", self.prune_epochs
        )
        _refuse_unless(
            0 <= self.graft_epochs < math.inf, "--graft-epochs must be 0 or more", self.graft_epochs
        )
        _refuse_unless(
            0 <= self.finetune_epochs < math.inf,
            "--finetune-epochs must be 0 or more",
            self.finetune_epochs,
        )
        _refuse_unless(
            0 < self.learning_rate < math.inf,
            "--learning-rate must be above 0",
            self.learning_rate,
        )
        _refuse_unless(
            0 <= self.warmup_share < 1, "warmup_share must lie in [0, 1)", self.warmup_share
        )
        _refuse_unless(0 <= self.mix_pairs <= 1, "--mix-pairs must lie in [0, 1]", self.mix_pairs)
        if self.losses.label > 0 and self.mix_pairs > 0:
            raise BadSetting(
                "pairs that are made up have no labels to learn",
                got=f"--label-weight {self.losses.label:g} with --mix-pairs {self.mix_pairs:g}",
                fix="use --mix-pairs 0, or --label-weight 0",
            )

    @property
    def epochs(self) -> float:
        """Length of all three stages."""
        return self.prune_epochs + self.graft_epochs + self.finetune_epochs

    def lasting(self, epochs: float) -> Self:
        """The same recipe with its stages scaled so that they last ``epochs`` together."""
        _refuse_unless(0 < epochs < math.inf, "--epochs must be above 0", epochs)
        factor = epochs / self.epochs
        return replace(
            self,
            prune_epochs=self.prune_epochs * factor,
            graft_epochs=self.graft_epochs * factor,
            finetune_epochs=self.finetune_epochs * factor,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One whole run: the pattern, both trainings, and what they share.

    Attributes:
        name: the arm it was composed as, for tables.
        pattern: None trains the dense model alone.
        batch_size: rows a step, over all processes and accumulated parts.
        accumulate: how many parts each process computes a step in, to save memory.
        holdout: share of train that is kept out of it, to choose the best checkpoint on.
        max_steps: bound on the student's steps; None for as many as its epochs have.
        compile: whether layers are compiled by ``torch.compile``.
    """

    name: str = "spd"
    pattern: Pattern | None
    teacher: TeacherRecipe = TeacherRecipe()
    student: StudentRecipe = StudentRecipe()
    batch_size: int = 32
    accumulate: int = 1
    max_tokens: int = 128
    holdout: float = 0.1
    max_steps: int | None = None
    seed: int = 0
    precision: PrecisionChoice = "auto"
    device: Device = "cpu"
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that make no batch, and settings that exclude each other."""
        _refuse_unless(self.batch_size >= 1, "--batch-size must be at least 1", self.batch_size)
        _refuse_unless(self.accumulate >= 1, "--accumulate must be at least 1", self.accumulate)
        _refuse_unless(self.max_tokens >= 4, "--max-tokens must be at least 4", self.max_tokens)
        _refuse_unless(0 <= self.holdout < 1, "--holdout must lie in [0, 1)", self.holdout)
        _refuse_unless(
            self.max_steps is None or self.max_steps >= 1,
            "--max-steps must be at least 1",
            self.max_steps,
        )
        _refuse_unless(self.seed >= 0, "--seed must be 0 or more", self.seed)
        if self.pattern is not None:
            refuse_unspreadable(self.pattern, self.student.pruning)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values, the pattern in its one spelling."""
        value = asdict(self)
        value["student"]["pruning"]["exclude"] = list(self.student.pruning.exclude)
        value["pattern"] = None if self.pattern is None else str(self.pattern)
        value["sparsity"] = None if self.pattern is None else self.pattern.sparsity
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`: every field must be there, and no other.

        Raises:
            BadSetting: a field is unknown, missing, of the wrong type or makes no sense.
            BadPattern: the pattern makes no sense.
        """
        for name in ("pattern", "sparsity"):
            if name not in value:
                raise BadSetting("the recipe lacks a field", got=name, fix=_COMPARE)
        spelled = value["pattern"]
        pattern = None if spelled is None else parse_pattern(str(spelled), value["sparsity"])
        fields = {name: part for name, part in value.items() if name != "sparsity"}
        recipe = value_of(
            cls,
            {**fields, "pattern": None},
            what="the recipe",
            error=BadSetting,
            fix=_COMPARE,
            defaults=False,
        )
        return replace(recipe, pattern=pattern)
