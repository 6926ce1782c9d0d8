"""Figures that are composed and not rendered, which takes longer than to train a tiny model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure


@contextmanager
def blank_pictures() -> Iterator[Callable[..., None]]:
    """Save each figure as an empty picture of an inch, but SVG; yields Matplotlib's own method."""
    own = Figure.savefig

    def save(figure: Figure, *args: Any, **options: Any) -> None:
        is_svg = options.get("format") == "svg"
        own(figure if is_svg else Figure(figsize=(1, 1)), *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield own
