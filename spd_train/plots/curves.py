"""The curves of a run as a figure, drawn from its log alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.files import replacing
from spd_deploy.domain.plot_style import COLOURS, GREY
from spd_train.training.metrics_log import METRICS_FILE, Record, read_metrics_log

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_FILE = "curves.png"

BLUE, _, GREEN, PINK, ORANGE, _ = COLOURS
_SHADES = {"prune": "#ececec", "graft": "#dbe8f3"}
_LOSSES = {
    "label_loss": BLUE,
    "attention_loss": ORANGE,
    "hidden_loss": GREEN,
    "logits_loss": PINK,
}
_MIN_WINDOW = 5


def draw_curves(folder: Path, *, title: str, metric: str, measured_on: str) -> Path:
    """Draw ``log.jsonl`` of ``folder`` into ``curves.png`` there. Returns the path of the figure.

    The panels show the metric on train and on the validation rows; the losses; the learning rate
    with the share of tokens that is not padding; and for a student the sparsity and the grafting
    probability, with shaded stages.

    Args:
        folder: folder of the training.
        title: title of the figure.
        metric: main metric of the task.
        measured_on: name of the rows that the best checkpoint was scored on, such as ``dev``.
    """
    figure = curves_figure(
        read_metrics_log(folder / METRICS_FILE), title=title, metric=metric, measured_on=measured_on
    )
    with replacing(folder / CURVES_FILE) as draft:
        figure.savefig(draft, dpi=130)
    return folder / CURVES_FILE


def curves_figure(
    records: Sequence[Record], *, title: str, metric: str, measured_on: str
) -> "Figure":
    """The figure; a dense training has no panel for schedules."""
    from matplotlib.figure import Figure

    steps = [r for r in records if r["kind"] == "step"]
    scheduled = any(name in r for r in steps for name in ("sparsity", "graft_probability"))
    rows, columns = (2, 2) if scheduled else (1, 3)
    figure = Figure(figsize=(10.5 if scheduled else 13, 3.5 * rows), layout="constrained")
    figure.suptitle(title, fontsize=12)
    panels = list(figure.subplots(rows, columns, sharex=True).flat)
    for axes in panels:
        _shade_stages(axes, steps)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    _metric_panel(panels[0], records, metric, measured_on)
    if scheduled:
        _schedule_panel(panels[1], steps)
    _loss_panel(panels[-2], steps)
    _rate_panel(panels[-1], steps)
    for axes in panels[-columns:]:
        axes.set_xlabel("optimiser step")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _metric_panel(axes: "Axes", records: Sequence[Record], metric: str, measured_on: str) -> None:
    """The main metric on a sample of train, on the validation rows, and at the end on dev."""
    scores = [r for r in records if r["kind"] == "score"]
    x = [r["step"] + 1 for r in scores]
    shown = []
    for sample, colour, width, label in (
        ("train", GREY, 3.0, "train, a sample"),
        ("holdout", BLUE, 1.5, "validation, to choose by"),
    ):
        if scores and sample in scores[0]:
            y = [_number(r[sample].get(metric)) for r in scores]
            axes.plot(x, y, marker="o", ms=3, lw=width, color=colour, alpha=0.85, label=label)
            shown += y
    for final in (r for r in records if r["kind"] == "final"):
        chosen, value = final["chosen_step"], _number(final["dev"].get(metric))
        label = f"{measured_on}, the chosen step"
        axes.plot(chosen, value, marker="*", ms=11, color=ORANGE, ls="", label=label)
        shown.append(value)
    axes.set_ylabel(metric)
    axes.set_ylim(*_limits(shown))
    _legend_above(axes)


def _limits(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The ends of the axis of a metric, which is at most 1; None leaves an end to matplotlib."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None, None
    low, high = min(finite), max(finite)
    room = max(0.05 * (high - low), 0.03)
    return low - room, min(high + room, 1.01) if high <= 1 else high + room


def _schedule_panel(axes: "Axes", steps: Sequence[Record]) -> None:
    """Sparsity and grafting probability, with a legend of the shaded stages."""
    from matplotlib.patches import Patch

    x = [r["step"] for r in steps]
    for name, colour, label in (
        ("sparsity", ORANGE, "sparsity"),
        ("graft_probability", GREEN, "graft probability"),
    ):
        if any(name in r for r in steps):
            axes.plot(x, [_number(r.get(name)) for r in steps], color=colour, label=label)
    axes.set_ylim(-0.02, 1.05)
    axes.set_ylabel("share")
    stages = {r.get("stage") for r in steps}
    patches = [Patch(color=c, label=f"{s} stage") for s, c in _SHADES.items() if s in stages]
    _legend_above(axes, [*axes.get_lines(), *patches])


def _loss_panel(axes: "Axes", steps: Sequence[Record]) -> None:
    """The weighted terms of the loss, smoothed over a fiftieth of the run."""
    x = [r["step"] for r in steps]
    for name, colour in _LOSSES.items():
        if any(name in r for r in steps):
            y = [_number(r.get(name)) for r in steps]
            label = name.removesuffix("_loss")
            axes.plot(x, smoothed(y, _window(y)), color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("loss terms, weighted")
    _legend_above(axes)


def _rate_panel(axes: "Axes", steps: Sequence[Record]) -> None:
    """Learning rate, and share of real tokens in each batch."""
    x = [r["step"] for r in steps]
    axes.plot(x, [r["learning_rate"] for r in steps], color=PINK, label="learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("learning rate")
    share = axes.twinx()
    share.spines[["top"]].set_visible(False)
    real = [r["real_share"] for r in steps]
    share.plot(x, smoothed(real, _window(real)), color=GREY, lw=0.8, label="real tokens (right)")
    share.set_ylim(0, 1.05)
    share.set_ylabel("share of real tokens")
    _legend_above(axes, [*axes.get_lines(), *share.get_lines()])


def _legend_above(axes: "Axes", handles: "Sequence[Artist] | None" = None) -> None:
    """A legend above the panel, where it hides nothing."""
    handles = axes.get_lines() if handles is None else handles
    shown = [h for h in handles if not str(h.get_label()).startswith("_")]
    if shown:
        axes.legend(
            handles=shown,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            frameon=False,
            fontsize=8,
            handlelength=1.4,
            columnspacing=1.2,
            borderaxespad=0.1,
        )


def _window(values: Sequence[float]) -> int:
    """The number of steps over which a curve is smoothed."""
    return max(_MIN_WINDOW, len(values) // 50)


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of the last ``window`` values at each point."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [
        (sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window)
        for i in range(len(values))
    ]


def _shade_stages(axes: "Axes", steps: Sequence[Record]) -> None:
    """Shade the background of the prune and the graft stage."""
    for stage, shade in _SHADES.items():
        x = [r["step"] for r in steps if r.get("stage") == stage]
        if x:
            axes.axvspan(x[0], x[-1] + 1, color=shade, zorder=0)


def _number(value: Any) -> float:
    """A logged number; null stands for a value that was not finite."""
    return float("nan") if value is None else float(value)
