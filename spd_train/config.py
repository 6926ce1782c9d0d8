"""The settings of a run, as frozen values that are stored in its checkpoint.

A recipe is composed by a function of ``spd_train.recipes``. ``spd.json`` holds the whole recipe, so
that the same run can be repeated from it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern, parse_pattern
from spd_deploy.domain.runtime_choice import Device as Device
from spd_train.prune_recipe import (
    PruneRecipe,
    refuse_layers,
    refuse_unless,
    refuse_unshrinkable,
    refuse_unspreadable,
)

_COMPARE = "compare it with the recipe in a spd.json that this version wrote"

# What a checkpoint records beside its recipe: settings that fit the labels of its data alone.
OF_LABELS = ("class_weights", "focal_gamma", "metric", "soft_label_rows")

PrecisionChoice = Literal["auto", "fp32", "bf16"]
GraftShape = Literal["none", "constant", "linear", "paper"]
GraftUnit = Literal["layer", "sublayer"]
Decay = Literal["rewound", "once"]
LossScale = Literal["teacher", "plain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRecipe:
    """Fine-tuning of the dense teacher with AdamW, linear warm-up and linear decay.

    Attributes:
        epochs: length of the training.
        learning_rate: peak learning rate.
        warmup_share: share of the steps in which the learning rate rises, in [0, 1).
        weight_decay: weight decay of AdamW.
    """

    epochs: float = 3.0
    learning_rate: float = 5e-5
    warmup_share: float = 0.1
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Refuse lengths and rates that are not positive."""
        refuse_unless(0 < self.epochs < math.inf, "--teacher-epochs must be above 0", self.epochs)
        refuse_unless(
            0 < self.learning_rate < math.inf,
            "--teacher-learning-rate must be above 0",
            self.learning_rate,
        )
        refuse_unless(
            0 <= self.warmup_share < 1,
            "the teacher's warmup_share must lie in [0, 1)",
            self.warmup_share,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GraftRecipe:
    """The schedule of grafting: when parts of the student replace the teacher's.

    Attributes:
        shape: schedule of the grafting probability p. ``paper`` holds ``start`` over the prune
            stage, then rises linearly to 1 over the graft stage; ``linear`` rises to 1 from the
            first step on; ``constant`` holds ``start`` until the graft stage ends; ``none``: p is
            always 1.
        start: p at the first step, in [0, 1].
        unit: part that is drawn as one: a whole layer, or attention and feed-forward separately.
    """

    shape: GraftShape = "paper"
    start: float = 0.8
    unit: GraftUnit = "layer"

    def __post_init__(self) -> None:
        """Refuse a start that is no probability."""
        refuse_unless(0 <= self.start <= 1, "--graft-start must lie in [0, 1]", self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossRecipe:
    """The weights of the terms of the loss; a weight of 0 leaves the term out.

    Attributes:
        attention: squared distance of attention probabilities.
        hidden: squared distance of hidden states.
        logits: KL divergence from the teacher's logits.
        label: cross-entropy to the true labels.
        temperature: temperature of the KL divergence, above 0.
        scale: ``teacher`` divides the hidden term by the teacher's variance and averages over
            layers; ``plain`` sums plain means over layers, as the paper does.
    """

    attention: float = 1.0
    hidden: float = 1.0
    logits: float = 1.0
    label: float = 0.0
    temperature: float = 1.0
    scale: LossScale = "teacher"

    def __post_init__(self) -> None:
        """Refuse negative weights, and a loss without any term."""
        weights = (self.attention, self.hidden, self.logits, self.label)
        refuse_unless(min(weights) >= 0, "weights of losses must be 0 or more", weights)
        refuse_unless(sum(weights) > 0, "at least one loss needs a weight above 0", weights)
        refuse_unless(self.temperature > 0, "--temperature must be above 0", self.temperature)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecipe:
    """The training of the sparse student in three stages.

    Attributes:
        prune_epochs: length of the stage in which the sparsity rises, along a cubic.
        graft_epochs: length of the stage in which the grafting probability reaches 1.
        finetune_epochs: length of the stage in which all parts of the student are in place.
        int8_epochs: length of the end of the finetune stage in which the student rounds weights and
            inputs as an int8 artefact does, in epochs; at most the whole stage.
        learning_rate: peak learning rate.
        decay: ``rewound`` decays over the prune stage and again over the rest, as the paper does;
            ``once`` decays over all stages.
        warmup_share: share of all steps in which the learning rate rises to its peak, in [0, 1).
            A ``rewound`` rate has warmed up by the end of the prune stage at the latest.
        weight_decay: weight decay of AdamW.
        dropout: whether the student has dropout; the teacher never has.
        mix_pairs: share of a batch's pairs that get the second text of another row, in [0, 1]
            (``spd_train.data.augment``).
        graft: the schedule of grafting.
        losses: the terms of the loss.
        pruning: the masks.
    """

    prune_epochs: float = 3.0
    graft_epochs: float = 1.0
    finetune_epochs: float = 4.0
    int8_epochs: float = 0.0
    learning_rate: float = 2e-4
    decay: Decay = "rewound"
    warmup_share: float = 0.0
    weight_decay: float = 0.0
    dropout: bool = True
    mix_pairs: float = 0.0
    graft: GraftRecipe = GraftRecipe()
    losses: LossRecipe = LossRecipe()
    pruning: PruneRecipe = field(default_factory=PruneRecipe)

    def __post_init__(self) -> None:
        """Refuse values outside their range, and mixed pairs with a loss to the labels."""
        refuse_unless(
            0 < self.prune_epochs < math.inf, "--prune-epochs must be above 0", self.prune_epochs
        )
        refuse_unless(
            0 <= self.graft_epochs < math.inf, "--graft-epochs must be 0 or more", self.graft_epochs
        )
        refuse_unless(
            0 <= self.finetune_epochs < math.inf,
            "--finetune-epochs must be 0 or more",
            self.finetune_epochs,
        )
        refuse_unless(
            0 <= self.int8_epochs <= self.finetune_epochs,
            f"--int8-epochs must lie in [0, {self.finetune_epochs:g}], the --finetune-epochs",
            self.int8_epochs,
        )
        refuse_unless(
            0 < self.learning_rate < math.inf,
            "--learning-rate must be above 0",
            self.learning_rate,
        )
        refuse_unless(
            0 <= self.warmup_share < 1,
            "the student's warmup_share must lie in [0, 1)",
            self.warmup_share,
        )
        refuse_unless(0 <= self.mix_pairs <= 1, "--mix-pairs must lie in [0, 1]", self.mix_pairs)
        if self.losses.label > 0 and self.mix_pairs > 0:
            raise BadSetting(
                "mixed pairs have no labels to learn",
                got=f"--label-weight {self.losses.label:g} with --mix-pairs {self.mix_pairs:g}",
                fix="use --mix-pairs 0, or --label-weight 0",
            )

    @property
    def epochs(self) -> float:
        """Length of all three stages together, in epochs."""
        return self.prune_epochs + self.graft_epochs + self.finetune_epochs

    def lasting(self, epochs: float) -> Self:
        """The recipe with its three stages scaled to ``epochs`` together."""
        refuse_unless(0 < epochs < math.inf, "--epochs must be above 0", epochs)
        factor = epochs / self.epochs
        return replace(
            self,
            prune_epochs=self.prune_epochs * factor,
            graft_epochs=self.graft_epochs * factor,
            finetune_epochs=self.finetune_epochs * factor,
            int8_epochs=self.int8_epochs * factor,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """All settings of one run: the pattern, both trainings, and what they share.

    Attributes:
        name: name of the recipe, for tables.
        pattern: pattern and sparsity; None trains the dense model alone.
        speedup: how many times as fast as dense the student has to be. A latency table then decides
            what each layer keeps, and the pattern's sparsity is not used. None: the sparsity does.
        teacher: training of the dense teacher.
        student: training of the sparse student.
        batch_size: rows of a step, over all processes and micro-batches.
        accumulate: micro-batches in which each process computes a step.
        max_tokens: length to which a text or pair is cut.
        holdout: share of train that becomes validation rows, on which the best checkpoint is
            chosen, in [0, 1).
        max_steps: upper bound on the student's steps; None for no bound.
        seed: seed of everything that is random.
        precision: number format of the passes.
        device: where the training runs.
        compile: whether layers are compiled with ``torch.compile``.
        calibrate: whether the scores are calibrated on the validation rows at the end.
    """

    name: str = "spd"
    pattern: Pattern | None
    speedup: float | None = None
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
    calibrate: bool = True

    def __post_init__(self) -> None:
        """Refuse values outside their range, and an allocation that the pattern does not allow."""
        refuse_unless(self.batch_size >= 1, "--batch-size must be at least 1", self.batch_size)
        refuse_unless(self.accumulate >= 1, "--accumulate must be at least 1", self.accumulate)
        refuse_unless(self.max_tokens >= 4, "--max-tokens must be at least 4", self.max_tokens)
        refuse_unless(0 <= self.holdout < 1, "--holdout must lie in [0, 1)", self.holdout)
        refuse_unless(
            self.max_steps is None or self.max_steps >= 1,
            "--max-steps must be at least 1",
            self.max_steps,
        )
        refuse_unless(self.seed >= 0, "--seed must be 0 or more", self.seed)
        if self.pattern is not None:
            refuse_unspreadable(self.pattern, self.student.pruning)
            refuse_layers(self.pattern, self.student.pruning)
        if self.pattern is not None and self.speedup is not None:
            refuse_unless(1 < self.speedup < math.inf, "--speedup must be above 1", self.speedup)
            refuse_unshrinkable(self.pattern, self.student.pruning)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, with the pattern and the sparsity as separate fields."""
        value = asdict(self)
        value["student"]["pruning"]["exclude"] = list(self.student.pruning.exclude)
        value["pattern"] = None if self.pattern is None else str(self.pattern)
        fixed = None if self.speedup is not None else self.pattern
        value["sparsity"] = None if fixed is None else fixed.sparsity
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The recipe from the JSON values of :meth:`to_json`; no field may be missing or unknown.

        Raises:
            BadSetting: a field is unknown, missing, of the wrong type or out of range.
            BadPattern: the pattern is wrong.
        """
        for name in ("pattern", "sparsity"):
            if name not in value:
                raise BadSetting("the recipe lacks a field", got=name, fix=_COMPARE)
        spelled = value["pattern"]
        pattern = None if spelled is None else parse_pattern(str(spelled), value["sparsity"])
        fields = {n: part for n, part in value.items() if n not in ("sparsity", *OF_LABELS)}
        recipe = value_of(
            cls,
            {**fields, "pattern": None},
            what="the recipe",
            error=BadSetting,
            fix=_COMPARE,
            defaults=False,
        )
        return replace(recipe, pattern=pattern)
