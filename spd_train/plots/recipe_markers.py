"""Colour and mark of each recipe of a sweep, the same in every figure."""

from collections.abc import Sequence

from spd_deploy.domain.plot_style import GREY

_LOOKS = {
    "dense": (GREY, "X"),
    "spd": ("#0072b2", "o"),
    "prune": ("#d55e00", "s"),
    "prune-kd": ("#e69f00", "^"),
    "spd-paper": ("#009e73", "D"),
    "one-shot": ("#cc79a7", "v"),
}


def colour_of(recipe: str) -> str:
    """The colour of a recipe, as matplotlib takes it."""
    return _LOOKS[recipe][0]


def mark_of(recipe: str) -> str:
    """The marker of a recipe, as matplotlib takes it."""
    return _LOOKS[recipe][1]


def offsets(recipes: Sequence[str], step: float) -> dict[str, float]:
    """A shift for each recipe, ``step`` apart and centred on 0, so that markers do not overlap."""
    return {recipe: (i - (len(recipes) - 1) / 2) * step for i, recipe in enumerate(recipes)}
