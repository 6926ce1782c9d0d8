"""All that decides how a run goes, as one frozen value that travels in the checkpoint."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern

PrecisionWish = Literal["auto", "fp32", "bf16"]


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
        _refuse_unless(self.epochs > 0, "--teacher-epochs must be above 0", self.epochs)
        _refuse_unless(
            self.learning_rate > 0, "--teacher-learning-rate must be above 0", self.learning_rate
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SpdRecipe:
    """Sparse Progressive Distillation (facts of the released code: three stages, three losses).

    Attributes:
        prune_epochs: length of the stage in which sparsity rises along a cubic.
        graft_epochs: length of the stage in which the graft probability rises to 1.
        finetune_epochs: length of the stage in which all student layers are in place.
        learning_rate: peak; decays to 0 over the prune stage, then again over the other two.
        graft_start: chance that a student layer is in place before the graft stage.
        mask_updates: how often the masks tighten during the prune stage.
        temperature: of the soft cross-entropy.
        attention_weight, hidden_weight, logits_weight: weights of the three losses.
    """

    prune_epochs: float = 3.0
    graft_epochs: float = 1.0
    finetune_epochs: float = 2.0
    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    graft_start: float = 0.8
    mask_updates: int = 12
    temperature: float = 1.0
    attention_weight: float = 1.0
    hidden_weight: float = 1.0
    logits_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that make no run."""
        _refuse_unless(self.prune_epochs > 0, "--prune-epochs must be above 0", self.prune_epochs)
        _refuse_unless(
            self.graft_epochs >= 0, "--graft-epochs must be 0 or more", self.graft_epochs
        )
        _refuse_unless(
            self.finetune_epochs >= 0, "--finetune-epochs must be 0 or more", self.finetune_epochs
        )
        _refuse_unless(
            self.learning_rate > 0, "--learning-rate must be above 0", self.learning_rate
        )
        _refuse_unless(
            0 <= self.graft_start <= 1, "--graft-start must lie in [0, 1]", self.graft_start
        )
        _refuse_unless(self.mask_updates >= 1, "mask_updates must be at least 1", self.mask_updates)
        _refuse_unless(self.temperature > 0, "temperature must be above 0", self.temperature)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One whole run: the pattern, both trainings, and what they share."""

    pattern: Pattern
    teacher: TeacherRecipe = TeacherRecipe()
    spd: SpdRecipe = SpdRecipe()
    batch_size: int = 32
    max_tokens: int = 128
    seed: int = 0
    precision: PrecisionWish = "auto"
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        """Refuse sizes that make no batch."""
        _refuse_unless(self.batch_size >= 1, "--batch-size must be at least 1", self.batch_size)
        _refuse_unless(self.max_tokens >= 4, "--max-tokens must be at least 4", self.max_tokens)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values, the pattern in its one spelling."""
        value = asdict(self)
        value["pattern"] = str(self.pattern)
        value["sparsity"] = self.pattern.sparsity
        return value
