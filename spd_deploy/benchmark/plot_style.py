"""What the figures have in common: size, type, colours and labels.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; the baseline is grey.
"""

from typing import TYPE_CHECKING

from spd_deploy.benchmark.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY, INK, FAINT = "#8a8f98", "#1f2430", "#d9dce1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDTH, DPI = 9.0, 160
STYLE = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a folder's name may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def colours_of(report: Report) -> dict[str, str]:
    """A colour for each arm; grey for the baseline."""
    names = [arm.name for arm in report.others]
    found = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    return {arm.name: found.get(arm.name, GREY) for arm in report.arms}


def blank(height: float) -> "Figure":
    """An empty figure of the page's width, ``height`` inches high."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(wspace=0.06)
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)


def note(axes: "Axes", x: float, y: float, text: str) -> None:
    """A label just right of a point."""
    axes.annotate(
        text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5
    )
