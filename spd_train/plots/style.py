"""What a sweep's figures have in common: type, and a colour and a mark for each arm.

The colours are Okabe and Ito's, which the colour-blind can tell apart; an arm has the same one in
every figure, whichever others stand beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GREY, EDGE, FAINT = "#1f2430", "#7a7f88", "#b8bcc4", "#dfe2e6"
DPI = 150
STYLE = {
    "font.size": 9,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
}
_LOOKS = {
    "dense": (GREY, "X"),
    "spd": ("#0072b2", "o"),
    "prune": ("#d55e00", "s"),
    "prune-kd": ("#e69f00", "^"),
    "spd-paper": ("#009e73", "D"),
    "one-shot": ("#cc79a7", "v"),
}


def colour_of(arm: str) -> str:
    """An arm's colour."""
    return _LOOKS[arm][0]


def mark_of(arm: str) -> str:
    """An arm's marker."""
    return _LOOKS[arm][1]


def offsets(arms: Sequence[str], step: float) -> dict[str, float]:
    """A place for each arm beside the others, centred on 0."""
    return {arm: (i - (len(arms) - 1) / 2) * step for i, arm in enumerate(arms)}


def save_png(figure: "Figure", file: Path) -> Path:
    """Write the figure, whole or not at all."""
    with replacing(file) as draft:
        figure.savefig(draft, format="png", dpi=DPI, metadata={"Software": None})
    return file
