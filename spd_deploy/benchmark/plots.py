"""The report's figures, drawn by matplotlib without a display.

speedup.png    how many times faster than the baseline, a bar a shape, with intervals
layers-N.png   where the N-th profiled arm gained and lost time (``plot_layers``)
latency.png    every run as a dot (``plot_latency``)
size.png       what each arm takes on disk and in memory
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spd_deploy.benchmark.intervals import SpeedUp
from spd_deploy.benchmark.judge import Judgement
from spd_deploy.benchmark.layerwise.analysis import analyse
from spd_deploy.benchmark.plot_latency import latency_figure
from spd_deploy.benchmark.plot_layers import layers_figure
from spd_deploy.benchmark.plot_style import INK, STYLE, blank, colours_of, note
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.spelling import megabytes, ratio
from spd_deploy.benchmark.values import ArmFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS = ("latency.png", "size.png", "speedup.png")
_BAR, _GAP = 0.3, 0.18


def draw_plots(report: Report, judgement: Judgement) -> dict[str, bytes]:
    """PNG files by name; the one of speed-ups only where there is a baseline."""
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        figures = {"latency.png": latency_figure(report), "size.png": size_figure(report)}
        if report.baseline is not None and report.others:
            figures["speedup.png"] = speedup_figure(report, judgement)
        for number, arm in enumerate(report.profiled, 1):
            found = [analyse(profile) for profile in report.layers if profile.arm == arm]
            figures[layers_plot(number)] = layers_figure(found)
        return {name: _png(figure) for name, figure in figures.items()}


def layers_plot(number: int) -> str:
    """The name of the waterfalls of a profiled arm; arms' own names need not do for a file."""
    return f"layers-{number}.png"


def speedup_figure(report: Report, judgement: Judgement) -> "Figure":
    """A bar for each arm and shape from zero, its interval, and a line at 1."""
    arms, shapes, colours = report.others, report.settings.shapes, colours_of(report)
    figure = blank(0.9 + len(shapes) * (_GAP + _BAR * len(arms)))
    axes = figure.subplots()
    places = _places(len(shapes), len(arms))
    for j, arm in enumerate(arms):
        found = [judgement.row(arm.name, shape).speed_up for shape in shapes]
        ratios = [speed_up for speed_up in found if speed_up is not None]
        _draw_bars(axes, places[:, j], ratios, arm.name, colours[arm.name])
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(places.mean(1), [str(shape) for shape in shapes])
    axes.set_xlim(0, 1.22 * axes.get_xlim()[1])
    axes.set_xlabel(f"speed-up over {report.baseline} (line at 1: none)")
    axes.set_ylabel("batch x tokens")
    axes.grid(axis="x")
    if len(arms) > 1:
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=len(names))
    return figure


def size_figure(report: Report) -> "Figure":
    """Bars of model files on disk and of peak memory."""
    arms = report.arms
    figure = blank(0.9 + 0.34 * len(arms))
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_sizes(left, report, "model files", [arm.model_bytes for arm in arms])
    _draw_sizes(right, report, "peak memory of a process", [_peak(arm) for arm in arms])
    return figure


def _draw_bars(
    axes: "Axes",
    places: NDArray[np.float64],
    ratios: Sequence[SpeedUp],
    name: str,
    colour: str,
) -> None:
    """The speed-ups of one arm."""
    values = [r.ratio for r in ratios]
    reach = [[r.ratio - r.low for r in ratios], [r.high - r.ratio for r in ratios]]
    axes.barh(places, values, height=0.88 * _BAR, color=colour, alpha=0.85, label=f" {name}")
    axes.errorbar(values, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    for place, found in zip(places, ratios, strict=True):
        shown = found.verdict != "no difference shown"
        label = f"{ratio(found.ratio)}x" if shown else found.verdict
        note(axes, found.high, float(place), label)


def _draw_sizes(axes: "Axes", report: Report, title: str, sizes: Sequence[int | None]) -> None:
    """One bar an arm, labelled."""
    values = [(size or 0) / 1e6 for size in sizes]
    axes.barh(range(len(values)), values, color=list(colours_of(report).values()), alpha=0.85)
    for place, size in enumerate(sizes):
        label = "not measured" if size is None else f"{megabytes(size)} MB"
        note(axes, values[place], place, label)
    axes.set_yticks(range(len(values)), [arm.name for arm in report.arms])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max([*values, 1e-3]))
    axes.set_title(title)
    axes.set_xlabel("MB")
    axes.grid(axis="x")


def _places(shapes: int, arms: int) -> NDArray[np.float64]:
    """Heights of bars, ``[shapes, arms]``, with room between the shapes; the first on top."""
    step = _BAR * arms + _GAP
    return np.asarray(-(np.arange(shapes)[:, None] * step + np.arange(arms)[None, :] * _BAR))


def _peak(arm: ArmFacts) -> int | None:
    """Peak memory, where it was weighed."""
    return None if arm.memory is None else arm.memory.peak_bytes


def _png(figure: "Figure") -> bytes:
    """The figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
