"""A reliability diagram: how often answers of each confidence are right, before and after.

Answers of a calibrated classifier lie on the diagonal: of those with a confidence of 0.9 nine in
ten are right.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.domain.calibration_error import Reliability
from spd_deploy.domain.plot_style import COLOURS, DASHED, DPI, GREY, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RELIABILITY_FILE = "reliability.png"

# A panel's title, and what it shows.
Panel = tuple[str, Reliability]


def reliability_figure(title: str, panels: Sequence[Panel]) -> "Figure":
    """A panel beside the other, each with its bins; the areas of the points are their rows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        figure = Figure(figsize=(4.2 * len(panels), 4.6), dpi=DPI, layout="constrained")
        figure.suptitle(title)
        for axes, (name, found) in zip(
            figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True
        ):
            _draw(axes, name, found)
    return figure


def _draw(axes: "Axes", name: str, found: Reliability) -> None:
    """One panel: the diagonal, and a point for each bin that has answers."""
    rows = sum(found.rows)
    axes.plot([0, 1], [0, 1], color=GREY, ls=DASHED, lw=1)
    axes.plot(found.confidence, found.accuracy, color=COLOURS[0], lw=1.2)
    axes.scatter(
        found.confidence,
        found.accuracy,
        s=[20 + 400 * count / rows for count in found.rows],
        color=COLOURS[0],
        alpha=0.55,
        linewidths=0,
    )
    axes.set_title(name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right answers")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid()
