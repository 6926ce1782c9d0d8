"""The search for how much each sublayer keeps: candidates are scored by the whole network's output.

The network forgives some sublayers more than others, so their own errors cannot be compared. The
cost of a level is what the network's output moves if one sublayer alone is pruned to it. Dynamic
programming then finds the levels that cost least in total within the budget. Costs do not quite add
up, so each sublayer's costs have a weight. The weights are corrected around the best candidate so
far: by what the output really moves if one sublayer gives up a step more. Random changes of the
weights follow, as in SPDY (Frantar and Alistarh 2022) and ZipLM (Kurtic et al. 2023).

Costs and corrections are measured on a part of the calibration texts. So is a random candidate
first: one that is clearly worse there than the best so far is not tried on all texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spd_train.pruning.structured.allocate import Floats, SublayerLevels, allocate

Distance = Callable[[Sequence[int]], float]

# Shares of a sublayer's levels at which the network's output is measured, besides none and all.
_ANCHORS = (0.05, 0.125, 0.25, 0.5)
_TINY = 1e-9
# A candidate is tried on all texts unless it is worse than the best by this factor on a part.
_HOPEFUL = 1.15


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """How many candidates are tried.

    Attributes:
        corrections: rounds in which the weights are corrected; each tries one candidate a sublayer.
        mutations: candidates with random changes of the weights.
        seed: seed of the changes.
    """

    corrections: int = 4
    mutations: int = 40
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Numbers of heads and neurons of each sublayer, and the distance of the network's output."""

    kept: tuple[int, ...]
    distance: float


def search(
    sublayers: Sequence[SublayerLevels],
    budget: float,
    distance: Distance,
    settings: SearchSettings,
    *,
    rough: Distance | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Candidate | None:
    """The best candidate within the budget; None if nothing fits it.

    Args:
        sublayers: the levels of each sublayer, with the errors of its own output.
        budget: what all sublayers may cost together.
        distance: how far the network's output moves if each sublayer keeps so much.
        settings: how many candidates are tried.
        rough: the same on a part of the texts; None takes all.
        advance: is called after each trial.
    """
    rough = rough or distance
    search_ = _Search(measured_costs(sublayers, rough, advance), budget, distance, rough, advance)
    weights = np.ones(len(sublayers))
    best = search_.best_of([search_.even(), search_.candidate(weights)])
    if best is None:
        return None
    for _ in range(settings.corrections):
        corrected = search_.corrected(best, weights)
        found = search_.candidate(corrected)
        if found is None or found.distance >= best.distance:
            corrected = np.sqrt(corrected * weights)
            found = search_.candidate(corrected)
        if found is None or found.distance >= best.distance:
            break
        best, weights = found, corrected
    draw = np.random.default_rng(settings.seed)
    for _ in range(settings.mutations):
        changed = draw.random(len(sublayers)) < 0.3
        mutated = weights * np.exp(np.where(changed, draw.normal(0, 0.5, len(sublayers)), 0.0))
        found = search_.candidate(mutated, beside=best)
        if found is not None and found.distance < best.distance:
            best, weights = found, mutated
    return best


def trials_at_most(sublayers: int, settings: SearchSettings) -> int:
    """How many candidates a search tries at most."""
    corrections = settings.corrections * (sublayers + 2)
    return sublayers * (len(_ANCHORS) + 1) + 2 + corrections + settings.mutations


def measured_costs(
    sublayers: Sequence[SublayerLevels], distance: Distance, advance: Callable[[], None]
) -> list[SublayerLevels]:
    """The sublayers with the output's distance in place of their own errors.

    It is measured at a few levels of each sublayer, with all others whole. Between these, the ratio
    of distance and error is interpolated.
    """
    whole = [int(sublayer.kept_L[-1]) for sublayer in sublayers]
    measured = []
    for i, sublayer in enumerate(sublayers):
        last = len(sublayer.kept_L) - 1
        if not last:  # nothing is left of it
            measured.append(sublayer)
            continue
        places = sorted({0, *(round(share * last) for share in _ANCHORS)} - {last})
        ratios = []
        for place in places:
            kept = [*whole]
            kept[i] = int(sublayer.kept_L[place])
            ratios.append(distance(kept) / max(float(sublayer.errors_L[place]), _TINY))
            advance()
        ratio_L = np.interp(np.arange(last + 1), places, ratios)
        measured.append(replace(sublayer, errors_L=sublayer.errors_L * ratio_L))
    return measured


class _Search:
    """Candidates within a budget."""

    def __init__(
        self,
        sublayers: Sequence[SublayerLevels],
        budget: float,
        distance: Distance,
        rough: Distance,
        advance: Callable[[], None],
    ) -> None:
        self.sublayers = sublayers
        self.budget = budget
        self._distance = distance
        self._rough = rough
        self._advance = advance

    def candidate(self, weights: Floats, *, beside: Candidate | None = None) -> Candidate | None:
        """The candidate that dynamic programming finds.

        None if nothing fits the budget, or if it is clearly worse than the one ``beside``.
        """
        levels = allocate(self.sublayers, weights.tolist(), self.budget)
        if levels is None:
            return None
        if beside is not None:
            worst = _HOPEFUL * self._rough(beside.kept)
            if self._rough(self._kept(levels)) > worst:
                self._advance()
                return None
        return self._try(levels)

    def even(self) -> Candidate | None:
        """The candidate of which each sublayer keeps about the same share, as large as fits."""
        for share in np.linspace(1, 0, 201):
            levels = [round(share * (len(sublayer.kept_L) - 1)) for sublayer in self.sublayers]
            if self._cost(levels) <= self.budget:
                return self._try(levels)
        return None

    def best_of(self, candidates: Sequence[Candidate | None]) -> Candidate | None:
        """The candidate with the least distance."""
        found = [c for c in candidates if c is not None]
        return min(found, key=lambda c: c.distance, default=None)

    def corrected(self, best: Candidate, weights: Floats) -> Floats:
        """The weights that predict how the output moves if a part of ``best`` gives up a step."""
        corrected = weights.copy()
        for i, sublayer in enumerate(self.sublayers):
            if len(sublayer.kept_L) == 1:
                continue
            level = int(np.searchsorted(sublayer.kept_L, best.kept[i]))
            other = level - 1 if level else level + 1
            levels = [
                int(np.searchsorted(u.kept_L, k))
                for u, k in zip(self.sublayers, best.kept, strict=True)
            ]
            levels[i] = other
            moved = self._rough(self._kept(levels)) - self._rough(best.kept)
            moved *= level - other
            self._advance()
            predicted = (sublayer.errors_L[other] - sublayer.errors_L[level]) * (level - other)
            if predicted > _TINY:
                corrected[i] = np.clip(moved / predicted, 0.1 * weights[i], 10 * weights[i])
        return corrected

    def _try(self, levels: Sequence[int]) -> Candidate:
        """The candidate at these levels."""
        kept = self._kept(levels)
        distance = self._distance(kept)
        self._advance()
        return Candidate(kept=kept, distance=distance)

    def _kept(self, levels: Sequence[int]) -> tuple[int, ...]:
        """The heads or neurons that each sublayer keeps at these levels."""
        return tuple(int(u.kept_L[i]) for u, i in zip(self.sublayers, levels, strict=True))

    def _cost(self, levels: Sequence[int]) -> float:
        """Cost of all sublayers at these levels."""
        return sum(float(u.costs_L[i]) for u, i in zip(self.sublayers, levels, strict=True))
