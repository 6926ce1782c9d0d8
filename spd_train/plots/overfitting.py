"""Metric on train and on validation rows over the epochs, with a panel for each task and pattern.

Overfitting shows as a solid line that rises while its dashed line does not, with the mark of dev
below both. Drawn from the logs alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.plot_style import EDGE, GREY, INK, STYLE, save_png
from spd_train.plots.recipe_markers import colour_of, mark_of, offsets
from spd_train.sweep.jobs import DENSE, pattern_text
from spd_train.sweep.outcomes import Outcome, Point
from spd_train.sweep.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERFITTING_FILE = "overfitting.png"
_WIDTH, _HEIGHT = 3.1, 2.15  # of a panel, inches
_DASHES = (0, (3, 1.5))
_BESIDE = 0.035  # from one recipe's mark to the next, as a share of the epochs


def draw_overfitting(results: Results, output: Path) -> Path:
    """Draw ``overfitting.png`` into ``output``. Lines are means over the seeds."""
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        return save_png(overfitting_figure(results), output / OVERFITTING_FILE)


def overfitting_figure(results: Results) -> "Figure":
    """A figure with a row of panels for each task and a column for each pattern."""
    from matplotlib.figure import Figure

    grid = results.grid
    rows, columns = len(grid.tasks), len(grid.patterns)
    size = (max(6.4, 0.7 + _WIDTH * columns), 0.9 + _HEIGHT * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey="row", sharex="row")
    for i, task in enumerate(grid.tasks):
        last = _last_epoch(results, task)
        for j, pattern in enumerate(grid.patterns):
            _panel(panels[i, j], results, task, pattern, last=last)
        panels[i, 0].set_ylabel(f"{task}: {results.metric(task)}")
    for j, pattern in enumerate(grid.patterns):
        panels[0, j].set_title(pattern_text(pattern))
        panels[-1, j].set_xlabel("epoch")
    _legend(figure, results.recipes)
    return figure


def mean_curve(runs: Sequence[Outcome]) -> list[Point]:
    """The mean over the seeds, at each epoch at which all of them have scores."""
    by_epoch: dict[float, list[Point]] = defaultdict(list)
    for run in runs:
        for point in run.curve:
            by_epoch[round(point.epoch, 3)].append(point)
    return [
        Point(
            epoch=epoch,
            train=_mean([p.train for p in points]),
            holdout=_mean([p.holdout for p in points]),
        )
        for epoch, points in sorted(by_epoch.items())
        if len(points) == len(runs)
    ]


def _panel(axes: "Axes", results: Results, task: str, pattern: Pattern, *, last: float) -> None:
    """Draw the recipes of one task and pattern, and the dense score on dev as a line."""
    axes.grid(axis="y")
    if (dense := results.score(task, pattern, DENSE)) is not None:
        axes.axhline(dense.mean, color=GREY, linewidth=1, linestyle=":", zorder=1)
    shifts = offsets(results.grid.recipes, _BESIDE * last)
    half = _BESIDE / 2 * max(3, len(shifts)) * last
    middle = 1.04 * last + half
    for recipe in results.grid.recipes:
        _draw_curve(axes, mean_curve(results.of(task, pattern, recipe)), colour_of(recipe))
        if (dev := results.score(task, pattern, recipe)) is not None:
            x = middle + shifts[recipe]
            axes.plot(x, dev.mean, mark_of(recipe), color=colour_of(recipe), markersize=5, zorder=4)
    axes.axvline(1.02 * last, color=EDGE, linewidth=0.8)
    ticks = [*_epoch_ticks(last), middle]
    axes.set_xticks(ticks, [*(f"{tick:g}" for tick in ticks[:-1]), "dev"])
    axes.set_xlim(0, middle + half + 0.02 * last)


def _epoch_ticks(last: float) -> list[float]:
    """At most five round numbers from 0 on that keep clear of the mark for dev."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if last / s <= 5)
    return [i * step for i in range(int(last / step) + 1)]


def _draw_curve(axes: "Axes", curve: Sequence[Point], colour: str) -> None:
    """Draw one recipe: train as a solid line, validation rows as a dashed line."""
    x = [p.epoch for p in curve]
    for values, line in (
        ([p.train for p in curve], "-"),
        ([p.holdout for p in curve], _DASHES),
    ):
        y = [float("nan") if value is None else value for value in values]
        axes.plot(x, y, color=colour, linestyle=line, linewidth=1.3, zorder=3)


def _last_epoch(results: Results, task: str) -> float:
    """The last epoch of the longest run of a task."""
    grid = results.grid
    runs = [
        r for p in grid.patterns for recipe in grid.recipes for r in results.of(task, p, recipe)
    ]
    return max((point.epoch for run in runs for point in run.curve), default=1.0)


def _legend(figure: "Figure", recipes: Sequence[str]) -> None:
    """Add a legend of colours, lines and marks."""
    from matplotlib.lines import Line2D

    students = [recipe for recipe in recipes if recipe != DENSE]
    handles = [
        Line2D([], [], color=colour_of(recipe), marker=mark_of(recipe), markersize=5, label=recipe)
        for recipe in students
    ]
    handles += [
        Line2D([], [], color=INK, linewidth=1.3, label="train"),
        Line2D([], [], color=INK, linestyle=_DASHES, linewidth=1.3, label="validation"),
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=5, label="dev, at the end"),
        Line2D([], [], color=GREY, linestyle=":", label="dense on dev"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=8.5)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of numbers; None if one is missing."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None
