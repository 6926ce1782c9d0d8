"""The part of a recipe that says which weights are pruned, and what does not go together in it."""

from dataclasses import dataclass
from typing import Literal

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern

Importance = Literal["magnitude", "movement", "taylor", "activation", "second-order"]
# Sums over the gradients of training steps.
FROM_GRADIENTS: tuple[Importance, ...] = ("movement", "taylor")
Allocation = Literal["uniform", "global", "sensitivity"]


def refuse_unless(fine: bool, what: str, got: object) -> None:
    """Raise ``BadSetting`` if a setting is wrong; NaN always is."""
    if not fine:
        raise BadSetting(what, got=got, fix="see spd train --help")


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneRecipe:
    """Which weights are pruned, when, and what happens to the others.

    Attributes:
        importance: score by which weights are ranked.
        updates: number of mask updates in the prune stage.
        regrow: whether a pruned weight may come back at a later update.
        reconstruct: whether kept weights are solved again by least squares after each update.
        permute: whether rows and columns are reordered first, so that the pattern keeps more.
        allocation: the same sparsity for every matrix, or more where it costs less.
        least_density: share of its weights that every matrix keeps with an uneven allocation.
        exclude: matrices whose name contains one of these texts stay dense.
        keep_layers: under the structured pattern, keep this many whole layers and nothing of the
            others: a shallower dense student, to compare with. None: the sparsity decides.
        calibration_tokens: tokens of training text for statistics and reconstruction.
    """

    importance: Importance = "magnitude"
    updates: int = 12
    regrow: bool = False
    reconstruct: bool = False
    permute: bool = False
    allocation: Allocation = "uniform"
    least_density: float = 0.02
    exclude: tuple[str, ...] = ()
    keep_layers: int | None = None
    calibration_tokens: int = 8192

    def __post_init__(self) -> None:
        """Refuse values out of range, and gradient scores without a step before them."""
        refuse_unless(self.updates >= 1, "--mask-updates must be at least 1", self.updates)
        if self.updates == 1 and self.importance in FROM_GRADIENTS:
            raise BadSetting(
                "this importance needs gradients, but the only mask update is at the first step",
                got=f"--importance {self.importance} with --mask-updates 1",
                fix="raise --mask-updates, or use another --importance",
            )
        refuse_unless(
            0 < self.least_density < 1, "--min-density must lie in (0, 1)", self.least_density
        )
        refuse_unless(
            self.keep_layers is None or self.keep_layers >= 1,
            "--keep-layers must be at least 1",
            self.keep_layers,
        )
        refuse_unless(
            self.calibration_tokens >= 1,
            "--calibration-tokens must be at least 1",
            self.calibration_tokens,
        )


def refuse_unspreadable(pattern: Pattern, pruning: PruneRecipe) -> None:
    """Refuse an uneven allocation of a sparsity that cannot be spread.

    Raises:
        BadSetting: the pattern has a fixed sparsity, or every matrix is at its smallest density.
    """
    if pruning.allocation == "uniform":
        return
    if pattern.fixed_sparsity:
        raise BadSetting(
            f"{pattern} has a fixed sparsity, which no allocation can spread",
            got=f"--allocation {pruning.allocation}",
            fix="use --allocation uniform, or another pattern",
        )
    if pattern.sparsity > 1 - pruning.least_density:
        raise BadSetting(
            f"with an uneven allocation every matrix keeps {pruning.least_density:g} of its "
            "weights, so this sparsity is out of reach",
            got=f"--sparsity {pattern.sparsity:g} with --allocation {pruning.allocation}",
            fix="use --allocation uniform, or a lower --min-density",
        )


def refuse_unshrinkable(pattern: Pattern, pruning: PruneRecipe) -> None:
    """Refuse a speed-up of a model that does not become smaller.

    Raises:
        BadSetting: the pattern is not structured, or the importance not of second order.
    """
    if not pattern.structured:
        raise BadSetting(
            "--speedup removes heads and neurons, which this pattern does not",
            got=f"--pattern {pattern}",
            fix="use --pattern structured, or leave --pattern out",
        )
    if pruning.importance != "second-order":
        raise BadSetting(
            "--speedup removes heads and neurons by second order",
            got=f"--importance {pruning.importance}",
            fix="use --importance second-order",
        )


def refuse_layers(pattern: Pattern, pruning: PruneRecipe) -> None:
    """Refuse to keep whole layers under a pattern or an importance that removes none.

    Raises:
        BadSetting: the pattern is not structured, or the importance not of second order.
    """
    if pruning.keep_layers is None:
        return
    if not pattern.structured or pruning.importance != "second-order":
        raise BadSetting(
            "--keep-layers removes layers, under the structured pattern and by second order",
            got=f"--pattern {pattern} with --importance {pruning.importance}",
            fix="use --pattern structured --importance second-order, or leave --keep-layers out",
        )
