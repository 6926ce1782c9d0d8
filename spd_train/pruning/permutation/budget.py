"""How many rounds the searches for permutations have."""

from dataclasses import dataclass

from spd_deploy.domain.errors import BadSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchBudget:
    """The number of rounds of a search; the same budget and seed find the same permutations.

    Attributes:
        stripe_sweeps: rounds of the search for N:M; each pairs every stripe with another.
        patience: rounds without a gain after which the search for N:M stops.
        group_rounds: rounds of the search for block patterns; each divides the rows between
            groups anew, two groups at a time.
        seed: seed of the random pairs and of the noise.
    """

    stripe_sweeps: int = 100
    patience: int = 10
    group_rounds: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a search without rounds."""
        if (least := min(self.stripe_sweeps, self.patience, self.group_rounds)) < 1:
            raise BadSetting(
                "a search for permutations needs at least one round",
                got=least,
                fix="search longer, or do not permute",
            )
