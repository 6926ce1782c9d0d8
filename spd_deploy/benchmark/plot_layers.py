"""The waterfall of a model: from its dense baseline's total, part by part, down to its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.benchmark.formatting import milliseconds
from spd_deploy.benchmark.layers.analysis import Analysis
from spd_deploy.benchmark.layers.layer_tables import WaterfallBar, bars_of, signed
from spd_deploy.domain.plot_style import COLOURS, GREY, INK, blank, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAIN, _LOSS = COLOURS[2], COLOURS[1]
_ROOM = 1.24  # for the labels right of the bars


def layers_figure(analyses: Sequence[Analysis]) -> "Figure":
    """One model's waterfalls, a panel a shape."""
    drawn = [bars_of(analysis) for analysis in analyses]
    columns = min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    figure = blank(lines * (0.75 + 0.25 * max(map(len, drawn))))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, bars, analysis in zip(panels, drawn, analyses, strict=False):
        _draw_panel(panel, bars)
        panel.set_title(analysis.shape)
    for panel in panels[len(drawn) :]:
        panel.set_axis_off()
    return figure


def _draw_panel(axes: "Axes", bars: Sequence[WaterfallBar]) -> None:
    """One shape: bars from top to bottom, each hanging where the one before ended."""
    places = range(len(bars))
    axes.barh(
        places,
        [1e3 * (bar.high_s - bar.low_s) for bar in bars],
        left=[1e3 * bar.low_s for bar in bars],
        height=0.62,
        color=[_colour(bar) for bar in bars],
    )
    for place, bar in zip(places, bars, strict=True):
        label = milliseconds(bar.high_s) if bar.change_s is None else signed(bar.change_s)
        note(axes, 1e3 * bar.high_s, place, label)
        if place:
            end_ms = 1e3 * bar.begin_s
            axes.vlines(end_ms, place - 0.69, place - 0.31, color=INK, linewidth=0.7, alpha=0.5)
    axes.set_yticks(places, [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.45, -0.55)
    # Where the machine was not steady, the parts may add up to more than the whole.
    low_ms = 1e3 * min(bar.low_s for bar in bars)
    axes.set_xlim(1.05 * low_ms, _ROOM * 1e3 * max(bar.high_s for bar in bars))
    axes.set_xlabel("milliseconds")
    axes.grid(axis="x")


def _colour(bar: WaterfallBar) -> str:
    """Grey for the dense baseline, dark for the model, green for a gain and red for a loss."""
    if bar.change_s is None:
        return GREY if bar.sparse_s is None else INK
    return _LOSS if bar.change_s > 0 else _GAIN
