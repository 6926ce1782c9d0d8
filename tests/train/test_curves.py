"""The curves of a run say what they show: what was measured on, stages, and no empty panel."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.image import imread

from spd_train.plots.curves import curves_figure, draw_curves
from spd_train.training.metrics_log import METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def records(*, sparse: bool, best: float = 0.9) -> list[dict[str, Any]]:
    """The log of twelve steps, scored twice and finished."""
    schedule = {"sparsity": 0.5, "graft_probability": 1.0} if sparse else {}
    steps = [
        {
            "kind": "step",
            "step": step,
            "stage": "prune" if sparse and step < 6 else "finetune",
            "label_loss": 1.0 / (step + 1),
            "learning_rate": 1e-4,
            "real_share": 0.8,
            **schedule,
        }
        for step in range(12)
    ]
    scores = [
        {"kind": "score", "step": s, "train": {"f1": best}, "holdout": {"f1": 0.8}} for s in (5, 11)
    ]
    final = {"kind": "final", "step": 12, "chosen_step": 12, "dev": {"f1": 0.7}}
    return [*steps, *scores, final]


def figure_of(log: Sequence[dict[str, Any]], measured_on: str = "dev") -> "Figure":
    """The figure of a log."""
    return curves_figure(log, title="a run", metric="f1", measured_on=measured_on)


@pytest.mark.usefixtures("rendered")
def test_a_drawn_log_is_a_picture_of_it(tmp_path: Path) -> None:
    """A dense run's log and a sparse one's become pictures of other sizes, with ink on them."""
    sizes = set()
    for sparse in (True, False):
        lines = [json.dumps(record) for record in records(sparse=sparse)]
        (tmp_path / METRICS_FILE).write_text("\n".join(lines) + "\n")

        picture = imread(draw_curves(tmp_path, title="a run", metric="f1", measured_on="dev"))

        sizes.add(picture.shape)
        assert len(np.unique(picture[..., 0])) > 50  # shades of red
    assert len(sizes) == 2


def labels_in(figure: "Figure") -> list[str]:
    """The words of all legends."""
    legends = [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for found in legends if found for text in found.get_texts()]


@pytest.mark.parametrize("measured_on", ["dev", "dev, a tenth of the file"])
def test_the_last_mark_names_what_was_measured_on(measured_on: str) -> None:
    """The star of the chosen step says which rows it was measured on."""
    labels = labels_in(figure_of(records(sparse=True), measured_on))

    assert f"{measured_on}, the chosen step" in labels


def test_a_dense_training_has_no_panel_for_a_schedule() -> None:
    """Every panel of a figure has a curve, and shades are named where there are any."""
    for sparse in (True, False):
        figure = figure_of(records(sparse=sparse))

        assert all(axes.get_lines() for axes in figure.axes)
        assert ("sparsity" in labels_in(figure)) == sparse
        assert ("prune stage" in labels_in(figure)) == sparse


def test_a_metric_is_not_shown_above_one() -> None:
    """A score of 1 throughout leaves no room for scores that cannot be."""
    low, high = figure_of(records(sparse=True, best=1.0)).axes[0].get_ylim()

    assert low < 0.7 and 1 < high < 1.02
