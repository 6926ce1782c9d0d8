"""The report's figures, drawn by matplotlib without a display.

speedup.png    how many times as fast as the baseline, with intervals (``plot_speedup``)
layers-N.png   where the N-th profiled arm gained and lost time (``plot_layers``)
latency.png    every run as a dot (``plot_latency``)
size.png       what each arm takes on disk and in memory
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.benchmark.arm_colours import colours_of
from spd_deploy.benchmark.formatting import megabytes
from spd_deploy.benchmark.judge import Judgement
from spd_deploy.benchmark.layers.analysis import analyse
from spd_deploy.benchmark.plot_latency import latency_figure
from spd_deploy.benchmark.plot_layers import layers_figure
from spd_deploy.benchmark.plot_speedup import speedup_figure
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.plot_style import NAMED_LINES, blank, note, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS = ("latency.png", "size.png", "speedup.png")


def draw_plots(report: Report, judgement: Judgement) -> dict[str, bytes]:
    """PNG files by name; the one of speed-ups only where there is a baseline."""
    from matplotlib import rc_context

    with rc_context(NAMED_LINES):  # type: ignore[arg-type]  # the stub lists every key by name
        figures = {"latency.png": latency_figure(report), "size.png": size_figure(report)}
        if report.baseline is not None and report.others:
            figures["speedup.png"] = speedup_figure(report, judgement)
        for number, arm in enumerate(report.profiled, 1):
            found = [analyse(profile) for profile in report.layers if profile.arm == arm]
            figures[layers_plot(number)] = layers_figure(found)
        return {name: png_of(figure) for name, figure in figures.items()}


def layers_plot(number: int) -> str:
    """The name of the waterfalls of a profiled arm; arms' own names need not do for a file."""
    return f"layers-{number}.png"


def size_figure(report: Report) -> "Figure":
    """Bars of model files on disk and of peak memory."""
    arms = report.arms
    figure = blank(0.9 + 0.34 * len(arms))
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_sizes(left, report, "model files", [arm.model_bytes for arm in arms])
    _draw_sizes(right, report, "peak memory of a process", [_peak(arm) for arm in arms])
    return figure


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


def _peak(arm: ArmFacts) -> int | None:
    """Peak memory, where it was weighed."""
    return None if arm.memory is None else arm.memory.peak_bytes
