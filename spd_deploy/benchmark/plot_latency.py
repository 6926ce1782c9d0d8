"""Every run as a dot: a panel for each shape, a band for each arm, a line for each round."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spd_deploy.benchmark.arm_colours import colours_of
from spd_deploy.benchmark.formatting import milliseconds
from spd_deploy.benchmark.records import Shape
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import median
from spd_deploy.domain.plot_style import INK, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DOTS = 150
_SHOWN_SHARE = 0.98


def latency_figure(report: Report) -> "Figure":
    """Dots of all runs and the median of each arm, in a panel a shape."""
    shapes = report.settings.shapes
    columns = min(2, len(shapes))
    lines = -(-len(shapes) // columns)
    figure = blank(lines * (0.95 + 0.6 * len(report.arms)))
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, shape in zip(panels, shapes, strict=False):
        _draw_panel(panel, report, shape)
    for panel in panels[len(shapes) :]:
        panel.set_axis_off()
    return figure


def _draw_panel(axes: "Axes", report: Report, shape: Shape) -> None:
    """One shape. The axis ends after the slowest runs worth their room; the rest is counted."""
    by_arm = {arm.name: report.rounds(arm.name, shape) for arm in report.arms}
    ends = [np.quantile([s for r in rounds for s in r], _SHOWN_SHARE) for rounds in by_arm.values()]
    end_ms = 1.12e3 * float(max(ends))
    colours = colours_of(report)
    for place, (arm, rounds) in enumerate(by_arm.items()):
        _draw_band(axes, rounds, place, colours[arm])
        beyond = sum(1e3 * s > end_ms for r in rounds for s in r)
        if beyond:
            axes.text(end_ms, place, f"+{beyond} →", ha="right", va="center", fontsize=8)
    axes.set_yticks(range(len(by_arm)), list(by_arm))
    axes.set_ylim(len(by_arm) - 0.45, -0.75)
    axes.set_xlim(0, end_ms)
    axes.set_title(str(shape))
    axes.set_xlabel("milliseconds")
    axes.grid(axis="x")


def _draw_band(axes: "Axes", rounds: Sequence[Sequence[float]], place: int, colour: str) -> None:
    """One arm: its rounds from top to bottom, and the median of them all."""
    for height, seconds in zip(np.linspace(-0.26, 0.28, len(rounds)), rounds, strict=True):
        dots_ms = 1e3 * thinned(seconds)
        heights = np.full(len(dots_ms), place + height)
        axes.plot(dots_ms, heights, ".", color=colour, alpha=0.4, markeredgewidth=0)
    middle_s = median(rounds)
    axes.vlines(1e3 * middle_s, place - 0.34, place + 0.36, color=INK, linewidth=1.6)
    axes.annotate(
        f"{milliseconds(middle_s)} ms",
        (1e3 * middle_s, place - 0.34),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
    )


def thinned(seconds: Sequence[float]) -> NDArray[np.float64]:
    """At most :data:`MAX_DOTS` of a round: the fastest, the slowest, and evenly between."""
    values = np.sort(np.asarray(seconds, np.float64))
    picked = np.unique(np.linspace(0, len(values) - 1, MAX_DOTS).astype(int))
    return np.asarray(values[picked])
