"""The two figures of ``docs/results.md``: what speed costs in accuracy.

    python -m benchmarks.figures

Reads the newest comparisons in ``benchmarks/results/`` and writes ``docs/images/accuracy-fp32.svg``
(students in fp32 beside dense fp32) and ``docs/images/accuracy-int8.svg`` (students in int8 beside
the fastest dense form). The ordinate is the share of the dense model's dev score in fp32. A figure
holds its numbers as its description, so a test can tell whether it is up to date.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rc_context

from spd_deploy.domain.plot_style import COLOURS, DASHED, GREY, STYLE, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "benchmarks/results", ROOT / "docs/images"
# Text stays text, and the ids of the elements do not change from run to run.
_STYLE = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": "spd"}
_HEIGHT = 4.0


@dataclass(frozen=True, slots=True)
class Series:
    """Models of one task that were compared in one run.

    Attributes:
        title: encoder and task.
        file: the report, under ``benchmarks/results``.
        metric: the metric of the task that the figure shows.
    """

    title: str
    file: str
    metric: str


SERIES = (
    Series("MiniLM-L6, STS-B", "2026-11-30-epyc-2-cores/stsb-compared.json", "pearson"),
    Series("MiniLM-L6, MRPC", "2026-11-30-epyc-2-cores/family-mrpc/family.json", "accuracy"),
    Series(
        "MiniLM-L6, MRPC, --more-texts",
        "2026-11-30-epyc-2-cores/family-mrpc-more/family.json",
        "accuracy",
    ),
    Series("MPNet-base, CoLA", "2026-12-01-epyc-2-cores/mpnet-cola-compared.json", "matthews"),
)


# A student of another training, which is no point of the line.
_TRAINED_IN_INT8 = "-int8"


@dataclass(frozen=True, slots=True)
class Point:
    """A model: how many times as fast as the dense one, and the share of its score in percent."""

    name: str
    speedup: float
    share: float

    @property
    def is_shallow(self) -> bool:
        """Whether it is a dense model with fewer layers."""
        return "layers" in self.name


def points_of(series: Series, precision: str) -> list[Point]:
    """The models of a precision, the dense one first.

    fp32 is compared with dense fp32, int8 with the fastest dense form. Shares are of the dense
    model's score in fp32.
    """
    content = json.loads((RESULTS / series.file).read_text(encoding="utf-8"))
    models = content.get("comparison", content)["models"]
    dense = [model for model in models if model["name"] == "dense"]
    reference = next(model for model in dense if model["precision"] == "fp32")
    fastest = min(model["seconds"] for model in dense)
    baseline = reference["seconds"] if precision == "fp32" else fastest
    return [
        Point(
            name=model["name"],
            speedup=baseline / model["seconds"],
            share=100 * model["scores"][series.metric] / reference["scores"][series.metric],
        )
        for model in models
        if model["precision"] == precision and not model["name"].endswith(_TRAINED_IN_INT8)
    ]


def figure_of(precision: str, baseline: str) -> "Figure":
    """A line for each task from its dense model over its students; fewer layers as triangles."""
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = blank(_HEIGHT)
        axes = figure.subplots()
        axes.axhline(100, color=GREY, linestyle=DASHED, linewidth=1)
        for series, colour in zip(SERIES, COLOURS, strict=False):
            if len(points := points_of(series, precision)) > 1:
                _draw(axes, points, colour, series.title)
        axes.set_xlabel(f"times as fast as {baseline} (8x128, 2 threads)")
        axes.set_ylabel("% of the dense score (fp32, dev)")
        axes.set_title(f"Students in {precision}")
        axes.grid(visible=True)
        axes.margins(x=0.05, y=0.12)
        figure.legend(loc="outside right upper")
    return figure


def _draw(axes: "Axes", points: Sequence[Point], colour: str, title: str) -> None:
    """One task: circles joined by a line, and triangles."""
    joined = sorted((p for p in points if not p.is_shallow), key=lambda p: p.speedup)
    shallow = [p for p in points if p.is_shallow]
    axes.plot(
        [p.speedup for p in joined], [p.share for p in joined], "o-", color=colour, label=title
    )
    if shallow:
        label = f"{title}, {' and '.join(p.name for p in shallow)}"
        x, y = [p.speedup for p in shallow], [p.share for p in shallow]
        axes.plot(x, y, "^", color=colour, markersize=8, label=label)


def numbers_of(precision: str) -> str:
    """What a figure shows, in words, which its file holds as its description."""
    return "; ".join(
        f"{series.title}: " + ", ".join(f"{p.name} {p.speedup:.2f} {p.share:.1f} %" for p in points)
        for series in SERIES
        if len(points := points_of(series, precision)) > 1
    )


FIGURES = {
    "accuracy-fp32.svg": ("fp32", "dense fp32"),
    "accuracy-int8.svg": ("int8", "the fastest dense form"),
}


def svg_of(precision: str, baseline: str) -> str:
    """The figure as SVG, the same for the same reports."""
    stream = io.StringIO()
    metadata = {"Date": None, "Description": numbers_of(precision)}
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure_of(precision, baseline).savefig(stream, format="svg", metadata=metadata)
    return stream.getvalue()


def main() -> None:
    """Write both figures."""
    for name, (precision, baseline) in FIGURES.items():
        (IMAGES / name).write_text(svg_of(precision, baseline), encoding="utf-8")


if __name__ == "__main__":
    main()
