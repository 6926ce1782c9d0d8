"""The curves of a run as a picture, drawn from its log and from nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.files import replacing
from spd_train.training.journal import JOURNAL_FILE, Record, read_journal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_FILE = "curves.png"

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#666666"
_STAGE_SHADES = {"prune": "#f3f3f3", "graft": "#e6eef5", "finetune": "#ffffff"}


def draw_curves(folder: Path, *, title: str, metric: str) -> Path:
    """Draw ``log.jsonl`` of ``folder`` into ``curves.png`` there.

    Four panels: the metric on train and held-out rows, sparsity and graft probability, the losses,
    and the learning rate with the share of tokens that is not padding. Stages are shaded.
    """
    from matplotlib.figure import Figure

    records = read_journal(folder / JOURNAL_FILE)
    steps = [r for r in records if r["kind"] == "step"]
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    figure.suptitle(title, fontsize=12)
    panels = figure.subplots(2, 2, sharex=True)
    for axes in panels.flat:
        _shade_stages(axes, steps)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    _metric_panel(panels[0, 0], records, metric)
    _schedule_panel(panels[0, 1], steps)
    _loss_panel(panels[1, 0], steps)
    _rate_panel(panels[1, 1], steps)
    for axes in panels[1]:
        axes.set_xlabel("optimiser step")
    with replacing(folder / CURVES_FILE) as draft:
        figure.savefig(draft, dpi=130)
    return folder / CURVES_FILE


def _metric_panel(axes: "Axes", records: Sequence[Record], metric: str) -> None:
    """The headline metric on a sample of train and on what is held out; dev once, at the end."""
    scores = [r for r in records if r["kind"] == "score"]
    x = [r["step"] + 1 for r in scores]
    for sample, colour, label in (("train", GREY, "train"), ("holdout", BLUE, "held out")):
        if scores and sample in scores[0]:
            y = [_number(r[sample].get(metric)) for r in scores]
            axes.plot(x, y, marker="o", markersize=3, color=colour, label=label)
    for final in (r for r in records if r["kind"] == "final"):
        chosen, dev = final["chosen_step"], _number(final["dev"].get(metric))
        axes.plot(chosen, dev, marker="*", markersize=11, color=ORANGE, ls="", label="dev, chosen")
    axes.set_ylabel(metric)
    axes.legend(frameon=False, loc="lower right")


def _schedule_panel(axes: "Axes", steps: Sequence[Record]) -> None:
    """Sparsity and graft probability, where the run has them."""
    x = [r["step"] for r in steps]
    for name, colour, label in (
        ("sparsity", ORANGE, "sparsity"),
        ("graft_probability", GREEN, "graft probability"),
    ):
        if any(name in r for r in steps):
            axes.plot(x, [_number(r.get(name)) for r in steps], color=colour, label=label)
    axes.set_ylim(-0.02, 1.05)
    axes.set_ylabel("sparsity, graft probability")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="lower right")


def _loss_panel(axes: "Axes", steps: Sequence[Record]) -> None:
    """The terms of the loss, smoothed over a fiftieth of the run."""
    x = [r["step"] for r in steps]
    names = [
        n for n in ("label_loss", "attention_loss", "hidden_loss", "logits_loss") if n in steps[0]
    ]
    for name, colour in zip(names, (BLUE, ORANGE, GREEN, PINK), strict=False):
        y = [_number(r[name]) for r in steps]
        label = name.removesuffix("_loss")
        axes.plot(x, smoothed(y, max(1, len(y) // 50)), color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("loss terms, weighted")
    axes.legend(frameon=False)


def _rate_panel(axes: "Axes", steps: Sequence[Record]) -> None:
    """Learning rate, and how much of each batch was real."""
    x = [r["step"] for r in steps]
    axes.plot(x, [r["learning_rate"] for r in steps], color=PINK, label="learning rate")
    axes.set_ylabel("learning rate")
    share = axes.twinx()
    share.spines[["top"]].set_visible(False)
    y = smoothed([r["real_share"] for r in steps], max(1, len(steps) // 50))
    share.plot(x, y, color=GREY, linewidth=0.8, label="real tokens in a batch")
    share.set_ylim(0, 1.05)
    handles = [*axes.get_lines(), *share.get_lines()]
    shown = [h for h in handles if not str(h.get_label()).startswith("_")]
    axes.legend(handles=shown, frameon=False, loc="lower left")


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
    """A background for each stage."""
    for stage, shade in _STAGE_SHADES.items():
        x = [r["step"] for r in steps if r.get("stage") == stage]
        if x:
            axes.axvspan(x[0], x[-1] + 1, color=shade, zorder=0)


def _number(value: Any) -> float:
    """A logged number; null stands for what was not finite."""
    return float("nan") if value is None else float(value)
