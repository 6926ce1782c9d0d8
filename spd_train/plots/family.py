"""The figure of a family: what each model scores, against how long it takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.domain.compared_model import ComparedModel
from spd_deploy.domain.plot_style import COLOURS, DASHED, GREY, STYLE, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 4.2
# Names of points that are nearer than these shares of the axes would overlap.
_NEAR = (0.12, 0.06)
_ABOVE, _BELOW = 9, -16


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
        where: shapes, threads and machine of the times.
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
        _mark(axes, dense, metric, marker="s", colour=GREY, label="dense")
        form = f"{first.precision} in {first.runtime}"
        _mark(axes, students, metric, marker="o", colour=COLOURS[0], label=f"sparse, {form}")
        _mark(axes, shallow, metric, marker="^", colour=COLOURS[1], label=f"fewer layers, {form}")
        axes.margins(x=0.08, y=0.2)
        axes.set_xlim(left=0)
        titles = [(m.title, m) for m in dense]
        titles += [(m.name, m) for m in (*students, *shallow)]
        _name(axes, [(name, p) for name, m in titles for p in _points([m], metric)])
        axes.legend(loc="lower right")
        axes.grid(visible=True)
        axes.set_title(title)
        axes.set_xlabel(f"milliseconds of a batch ({where})")
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
    label: str,
) -> None:
    """Draw models as points; none if no model has a score."""
    if points := _points(models, metric):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker, color=colour, markersize=7, label=label)


def _name(axes: "Axes", named: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Write the names above their points, or below where another name is near.

    A white edge keeps a name readable where a line passes behind it.
    """
    from matplotlib.patheffects import withStroke

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    above: list[tuple[float, float]] = []
    for name, (x, y) in sorted(named, key=lambda item: item[1]):
        place = (x - left) / (right - left), (y - low) / (high - low)
        free = not any(
            all(abs(a - b) < near for a, b, near in zip(place, other, _NEAR, strict=True))
            for other in above
        )
        if free:
            above.append(place)
        axes.annotate(
            name,
            (x, y),
            xytext=(0, _ABOVE if free else _BELOW),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
