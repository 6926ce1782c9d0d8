"""How long the searches look."""

from dataclasses import dataclass

from spd_deploy.domain.errors import BadSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchBudget:
    """Effort of a search for permutations; the same budget and seed find the same orders.

    Attributes:
        stripe_sweeps: how often every stripe of an N:M pattern is paired with another.
        patience: so many sweeps without a gain end the search for stripes.
        group_rounds: how often the rows of a block pattern are dealt out anew.
        seed: of the random pairs and of the noise.
    """

    stripe_sweeps: int = 100
    patience: int = 10
    group_rounds: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a search that does not look."""
        if (least := min(self.stripe_sweeps, self.patience, self.group_rounds)) < 1:
            raise BadSetting(
                "a search for permutations needs at least one sweep",
                got=least,
                fix="search longer, or do not permute",
            )
