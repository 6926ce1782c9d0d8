"""The figure of a family: what each student scores, against how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.domain.plot_style import COLOURS, DASHED, GREY, STYLE, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 4.2


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyPoint:
    """A model in the figure.

    Attributes:
        name: such as ``3x`` or ``dense``.
        seconds: median time of a batch.
        score: the task's first metric.
    """

    name: str
    seconds: float
    score: float


def family_figure(
    dense: FamilyPoint, students: Sequence[FamilyPoint], *, title: str, metric: str, where: str
) -> "Figure":
    """Students as a line from the dense model, with the dense score as a dashed line.

    Args:
        dense: the dense model.
        students: the slowest first.
        title: title of the figure.
        metric: name of the score.
        where: machine, runtime, precision and shapes of the times.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        figure = blank(_HEIGHT)
        axes = figure.subplots()
        axes.axhline(dense.score, color=GREY, linestyle=DASHED, linewidth=1)
        line = [dense, *students]
        axes.plot([1e3 * p.seconds for p in line], [p.score for p in line], color=COLOURS[0])
        for point, colour in ((dense, GREY), *((student, COLOURS[0]) for student in students)):
            axes.plot(1e3 * point.seconds, point.score, "o", color=colour, markersize=7)
            axes.annotate(
                point.name,
                (1e3 * point.seconds, point.score),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
            )
        axes.margins(x=0.08, y=0.2)
        axes.set_xlim(left=0)
        axes.grid(visible=True)
        axes.set_title(title)
        axes.set_xlabel(f"milliseconds of a batch: {where}")
        axes.set_ylabel(metric)
    return figure
