"""The figure of a family: what each model scores, against how long it takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.domain.compared_model import ComparedModel
from spd_deploy.domain.plot_style import COLOURS, DASHED, GREY, STYLE, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 4.2


def family_figure(
    *,
    dense: Sequence[ComparedModel],
    students: Sequence[ComparedModel],
    shallow: Sequence[ComparedModel],
    title: str,
    metric: str,
    score: str,
    where: str,
) -> "Figure":
    """The students as a line from the dense model, other dense models as single points.

    Models whose score is undefined are left out.

    Args:
        dense: the dense model, first in the runtime and precision of the students.
        students: the slowest first.
        shallow: dense students with fewer layers.
        title: title of the figure.
        metric: name of the metric in the models' scores.
        score: label of the score's axis.
        where: machine, runtime, precision and shapes of the times.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        figure = blank(_HEIGHT)
        axes = figure.subplots()
        first = dense[0]
        for _, level in _points([first], metric):
            axes.axhline(level, color=GREY, linestyle=DASHED, linewidth=1)
        line = _points([first, *students], metric)
        axes.plot([x for x, _ in line], [y for _, y in line], color=COLOURS[0])
        _mark(axes, dense, metric, marker="s", colour=GREY, names=[m.title for m in dense])
        _mark(axes, students, metric, marker="o", colour=COLOURS[0])
        _mark(axes, shallow, metric, marker="^", colour=COLOURS[1])
        axes.margins(x=0.08, y=0.2)
        axes.set_xlim(left=0)
        axes.grid(visible=True)
        axes.set_title(title)
        axes.set_xlabel(f"milliseconds of a batch: {where}")
        axes.set_ylabel(score)
    return figure


def _points(models: Sequence[ComparedModel], metric: str) -> list[tuple[float, float]]:
    """Milliseconds and score of the models that have a score."""
    scores = [(1e3 * model.seconds, model.scores.get(metric)) for model in models]
    return [(x, y) for x, y in scores if y is not None]


def _mark(
    axes: "Axes",
    models: Sequence[ComparedModel],
    metric: str,
    *,
    marker: str,
    colour: str,
    names: Sequence[str] | None = None,
) -> None:
    """Draw models as points with their names."""
    for model, name in zip(models, names or [m.name for m in models], strict=True):
        for point in _points([model], metric):
            axes.plot(*point, marker, color=colour, markersize=7)
            axes.annotate(
                name, point, xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8.5
            )
