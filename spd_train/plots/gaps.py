"""The gap between train and dev of each recipe: the paper's thesis in one figure.

Small marks are seeds, a large mark is their mean, and the bar is its 95 % interval, which may leave
the panel for two seeds. The grey line is the gap of the dense teacher.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.plot_style import EDGE, GREY, INK, STYLE, save_png
from spd_train.plots.recipe_markers import colour_of, mark_of, offsets
from spd_train.seeds import SeedSummary
from spd_train.sweep.jobs import DENSE, pattern_text
from spd_train.sweep.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAPS_FILE = "gaps.png"
_COLUMNS = 3
_WIDTH, _HEIGHT = 3.4, 2.5  # of a panel, inches


def draw_gaps(results: Results, output: Path) -> Path:
    """Draw ``gaps.png`` into ``output``. Returns its path."""
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        return save_png(gaps_figure(results), output / GAPS_FILE)


def gaps_figure(results: Results) -> "Figure":
    """A figure with a panel for each task, and in it a group of marks for each pattern."""
    from matplotlib.figure import Figure

    tasks = results.grid.tasks
    columns = min(_COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    size = (max(6.4, 0.4 + _WIDTH * columns), 0.7 + _HEIGHT * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, task in zip(panels.flat, tasks, strict=False):
        _panel(axes, results, task)
    for axes in panels.flat[len(tasks) :]:
        axes.set_visible(False)
    for row in panels:
        row[0].set_ylabel("train minus dev, points")
    _legend(figure, results)
    return figure


def _panel(axes: "Axes", results: Results, task: str) -> None:
    """Draw the gaps of one task."""
    grid = results.grid
    axes.set_title(f"{task}, {results.metric(task)}")
    axes.grid(axis="y")
    axes.axhline(0, color=INK, linewidth=0.8)
    shifts = offsets(grid.recipes, 0.8 / max(1, len(grid.recipes)))
    for i, pattern in enumerate(grid.patterns):
        if i:
            axes.axvline(i - 0.5, color=EDGE, linewidth=0.6)
        if (dense := results.gap(task, pattern, DENSE)) is not None:
            axes.hlines(100 * dense.mean, i - 0.44, i + 0.44, color=GREY, linestyle=":", zorder=1)
        for recipe in grid.recipes:
            _draw_recipe(axes, i + shifts[recipe], results.gap(task, pattern, recipe), recipe)
    axes.set_xlim(-0.5, len(grid.patterns) - 0.5)
    labels = [pattern_text(pattern).replace("@", "\nat ") for pattern in grid.patterns]
    axes.set_xticks(range(len(grid.patterns)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(*limits(_points(results, task)))


def limits(points: Sequence[float]) -> tuple[float, float]:
    """The ends of the axis: 0 and every seed are visible, with a quarter of the range to spare."""
    low, high = min([0.0, *points]), max([0.0, *points])
    spare = 0.25 * (high - low) or 1.0
    return low - (spare if low < 0 else 0.15 * spare), high + spare


def _points(results: Results, task: str) -> list[float]:
    """The gaps of all runs of a task, in points."""
    return [
        100 * value
        for pattern in results.grid.patterns
        for recipe in results.recipes
        if (gap := results.gap(task, pattern, recipe)) is not None
        for value in gap.values
    ]


def _draw_recipe(axes: "Axes", x: float, gap: SeedSummary | None, recipe: str) -> None:
    """Draw the seeds of one recipe, their mean and its interval."""
    if gap is None:
        return
    colour, mark = colour_of(recipe), mark_of(recipe)
    y = [100 * value for value in gap.values]
    if gap.count > 1:
        axes.scatter([x + 0.07] * len(y), y, s=9, color=colour, marker=mark, alpha=0.6, linewidth=0)
    reach = None if gap.half_width is None else 100 * gap.half_width
    axes.errorbar(
        x, 100 * gap.mean, yerr=reach, fmt=mark, color=colour, markersize=6, elinewidth=1.2
    )


def _legend(figure: "Figure", results: Results) -> None:
    """Add a legend of the recipes' colours and marks."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour_of(recipe), marker=mark_of(recipe), linestyle="", label=recipe)
        for recipe in results.grid.recipes
    ]
    handles += [Line2D([], [], color=GREY, linestyle=":", label="the dense teacher's")]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=8.5)
