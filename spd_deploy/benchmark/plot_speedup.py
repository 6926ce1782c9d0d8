"""Speed-ups over the baseline: a panel for each shape, with a bar for each arm."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.benchmark.arm_colours import colours_of
from spd_deploy.benchmark.formatting import ratio
from spd_deploy.benchmark.judge import Judgement
from spd_deploy.benchmark.records import Shape
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.plot_style import DASHED, INK, blank, note
from spd_deploy.timing.speed_up import SpeedUp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where intervals span more than this factor, the small ones would be slivers on an even axis.
LINEAR_SPAN = 4.0
# Share of the axis that is left to the right of the longest bar, for its label.
_LABEL_SHARE = 0.24
_BAR, _PANEL, _FOOT = 0.3, 0.42, 0.5


def speedup_figure(report: Report, judgement: Judgement) -> "Figure":
    """A bar for each arm and shape, its interval, and a line at 1."""
    arms, shapes = report.others, report.settings.shapes
    found = {
        (arm.name, shape): speed_up
        for arm in arms
        for shape in shapes
        if (speed_up := judgement.row(arm.name, shape).speed_up) is not None
    }
    figure = blank(_FOOT + len(shapes) * (_PANEL + _BAR * len(arms)))
    panels = figure.subplots(len(shapes), 1, squeeze=False, sharex=True).ravel()
    log = spans_far(list(found.values()))
    for panel, shape in zip(panels, shapes, strict=True):
        bars = {name: one for (name, at), one in found.items() if at == shape}
        _draw_panel(panel, report, shape, bars, log=log)
    _scale(panels[-1], list(found.values()), log=log)
    scale = "; logarithmic" if log else ""
    panels[-1].set_xlabel(f"times as fast as {report.against} (dashed line: no difference{scale})")
    return figure


def spans_far(found: Sequence[SpeedUp]) -> bool:
    """Whether the intervals reach over more than an even axis shows."""
    return max(one.high for one in found) > LINEAR_SPAN * min(one.low for one in found)


def _draw_panel(
    axes: "Axes", report: Report, shape: Shape, bars: dict[str, SpeedUp], *, log: bool
) -> None:
    """One shape: bars from 0, or from 1 on a logarithmic axis, which has no 0."""
    colours, start = colours_of(report), 1.0 if log else 0.0
    for place, (name, one) in enumerate(bars.items()):
        width = one.ratio - start
        axes.barh(place, width, left=start, height=0.72, color=colours[name], alpha=0.85)
        reach = [[one.ratio - one.low], [one.high - one.ratio]]
        axes.errorbar(one.ratio, place, xerr=reach, fmt="none", ecolor=INK, capsize=3)
        shown = one.verdict in ("faster", "slower")
        label = f"{ratio(one.ratio)}x" if shown else one.verdict
        note(axes, max(one.high, start), place, label)
    axes.axvline(1, color=INK, linewidth=1, linestyle=DASHED)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_title(str(shape))
    axes.grid(axis="x")


def _scale(axes: "Axes", found: Sequence[SpeedUp], *, log: bool) -> None:
    """The axis that all panels share, with room for the labels."""
    low, high = min(1.0, *(o.low for o in found)), max(1.0, *(o.high for o in found))
    if not log:
        axes.set_xlim(0, high / (1 - _LABEL_SHARE))
        return
    end = low * (high / low) ** (1 / (1 - _LABEL_SHARE))
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(end)) + 1)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.05, end)
    axes.set_xticks([2.0**p for p in powers], [f"{2.0**p:g}" for p in powers])
    axes.minorticks_off()
