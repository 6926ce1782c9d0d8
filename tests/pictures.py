"""Pictures that are not drawn: to draw those of a run takes longer than to train a tiny model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure

from spd_train import calibrate
from spd_train.plots import curves
from spd_train.plots.reliability import reliability_figure

_SAVE, _CURVES, _RELIABILITY = Figure.savefig, curves.curves_figure, reliability_figure


@contextmanager
def blank_pictures() -> Iterator[None]:
    """Save each figure as an empty picture of an inch, but SVG; those of runs are not composed."""

    def save(figure: Figure, *args: Any, **options: Any) -> None:
        is_svg = options.get("format") == "svg"
        _SAVE(figure if is_svg else Figure(figsize=(1, 1)), *args, **options)

    with _patched(save, lambda *_, **__: Figure(), lambda *_: Figure()):
        yield


@contextmanager
def real_pictures() -> Iterator[None]:
    """Compose and save each figure as it is."""
    with _patched(_SAVE, _CURVES, _RELIABILITY):
        yield


@contextmanager
def _patched(save: Any, draw_curves: Any, draw_reliability: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        patch.setattr(curves, "curves_figure", draw_curves)
        patch.setattr(calibrate, "reliability_figure", draw_reliability)
        yield
