"""Colour and mark of each arm of a sweep, the same in every figure."""

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


def colour_of(arm: str) -> str:
    """The colour of an arm, as matplotlib takes it."""
    return _LOOKS[arm][0]


def mark_of(arm: str) -> str:
    """The marker of an arm, as matplotlib takes it."""
    return _LOOKS[arm][1]


def offsets(arms: Sequence[str], step: float) -> dict[str, float]:
    """A shift for each arm, ``step`` apart and centred on 0, so that markers do not overlap."""
    return {arm: (i - (len(arms) - 1) / 2) * step for i, arm in enumerate(arms)}
