"""The map as a picture: a panel a size of matrix, a row a pattern and sparsity, a column a length.

Blue gains, orange loses, white is even; what loses is fenced in by the break-even line.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spd_deploy.benchmark.breakeven.values import BreakEven, Gain, Part, Sparse
from spd_deploy.benchmark.breakeven.words import where
from spd_deploy.benchmark.plot_style import COLOURS, FAINT, INK, STYLE, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, TwoSlopeNorm

# Height between the rows of two patterns, in rows.
_GAP = 0.35
_ROW_INCHES, _FRAME_INCHES, _PANELS_WIDE = 0.3, 1.75, 4
# The scale reaches at least from half to four times as fast; colours stand for logarithms to 2.
_LEAST_SPAN = (-1.0, 2.0)
_DARK = 0.62
# Characters of the title that the figure is wide enough for.
WIDEST_TITLE = 84


def draw_map(found: BreakEven) -> bytes:
    """The PNG file."""
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        panels = panels_of(found)
        heights = heights_of(found.rows)
        lines = math.ceil(len(panels) / _PANELS_WIDE)
        high = _FRAME_INCHES + lines * (0.55 + _ROW_INCHES * (max(heights.values()) + 1))
        figure = blank(high)
        figure.suptitle(title_of(found), x=0.012, ha="left", fontweight="bold")
        wide = min(_PANELS_WIDE, len(panels))
        axes = figure.subplots(lines, wide, squeeze=False, sharey=True).ravel()
        norm, colours = _scale(found), _colours()
        for panel, part in zip(axes, panels, strict=False):
            _draw_panel(panel, found, part, norm, colours)
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        for panel in axes[::wide]:
            _name_rows(panel, heights)
        _draw_scale(list(axes), norm, colours)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
        return stream.getvalue()


def title_of(found: BreakEven) -> str:
    """What the numbers are, and below it where they were measured and what ran the products."""
    return "\n".join(("Times as fast as dense", *textwrap.wrap(where(found), WIDEST_TITLE)))


def panels_of(found: BreakEven) -> tuple[Part | None, ...]:
    """Each part, and of a model the whole layer, which is None."""
    return (*found.parts, *((None,) if found.model else ()))


def heights_of(rows: Sequence[Sparse]) -> dict[Sparse, float]:
    """Where each row stands, downwards from 0, with a gap between patterns."""
    found: dict[Sparse, float] = {}
    height = -1.0
    previous = rows[0].line
    for row in rows:
        height += 1.0 if row.line == previous else 1.0 + _GAP
        previous = row.line
        found[row] = height
    return found


def fence_of(losing: Sequence[Sequence[bool]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The edges, from corner to corner as (column, row), that part what loses from all else."""
    lost = {(x, y) for y, line in enumerate(losing) for x, loses in enumerate(line) if loses}
    edges = []
    for x, y in sorted(lost):
        sides = {
            (x, y - 1): ((x, y), (x + 1, y)),
            (x, y + 1): ((x, y + 1), (x + 1, y + 1)),
            (x - 1, y): ((x, y), (x, y + 1)),
            (x + 1, y): ((x + 1, y), (x + 1, y + 1)),
        }
        edges += [edge for neighbour, edge in sides.items() if neighbour not in lost]
    return edges


def _draw_panel(
    axes: "Axes", found: BreakEven, part: Part | None, norm: "TwoSlopeNorm", colours: "Colormap"
) -> None:
    """One size of matrix, or the layer."""
    heights = heights_of(found.rows)
    for line in found.lines:
        rows = [row for row in found.rows if row.line == line]
        gains = [[found.gain(tokens, row, part) for tokens in found.tokens] for row in rows]
        top = heights[rows[0]] - 0.5
        for y, across in enumerate(gains):
            for x, gain in enumerate(across):
                _draw_cell(axes, gain, x, top + y, norm, colours)
        losing = [[gain.ratio < 1 for gain in across] for across in gains]
        for (x0, y0), (x1, y1) in fence_of(losing):
            axes.plot(
                [x0, x1], [top + y0, top + y1], color=INK, linewidth=1.8,
                solid_capstyle="projecting", zorder=3, clip_on=False,
            )  # fmt: skip
    axes.set_xlim(0, len(found.tokens))
    axes.set_ylim(max(heights.values()) + 0.5, -0.5)
    axes.set_xticks([x + 0.5 for x in range(len(found.tokens))], list(map(str, found.tokens)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("tokens")
    axes.set_title("a layer's products" if part is None else str(part).replace("x", " x "))


def _draw_cell(
    axes: "Axes", gain: Gain, x: float, top: float, norm: "TwoSlopeNorm", colours: "Colormap"
) -> None:
    """A coloured field with its number; hatched where there was nothing to measure."""
    from matplotlib.patches import Rectangle

    place = norm(math.log2(gain.ratio))
    axes.add_patch(
        Rectangle(
            (x, top), 1, 1, facecolor=colours(place) if gain.measured else "#f4f5f7",
            edgecolor="white" if gain.measured else FAINT, linewidth=1.5 if gain.measured else 0,
            hatch=None if gain.measured else "////",
        )
    )  # fmt: skip
    dark = gain.measured and abs(place - 0.5) > _DARK / 2
    text = str(gain) if gain.sure else f"≈{str(gain)[1:]}"
    axes.text(
        x + 0.5, top + 0.52, text, ha="center", va="center", fontsize=8.5,
        color="white" if dark else INK,
    )  # fmt: skip


def _name_rows(axes: "Axes", heights: dict[Sparse, float]) -> None:
    """Sparsities beside the rows, and each pattern once before them."""
    axes.set_yticks(list(heights.values()), [f"{100 * row.sparsity:g} %" for row in heights])
    for line in dict.fromkeys(row.line for row in heights):
        places = [height for row, height in heights.items() if row.line == line]
        axes.annotate(
            line.replace(", ", "\n"), (0, sum(places) / len(places)),
            xycoords=("axes fraction", "data"),
            xytext=(-44, 0), textcoords="offset points", rotation=90 if len(places) > 2 else 0,
            ha="right", va="center", fontweight="bold",
        )  # fmt: skip


def _scale(found: BreakEven) -> "TwoSlopeNorm":
    """From the slowest to the fastest, as logarithms to 2, with 1 in the middle."""
    from matplotlib.colors import TwoSlopeNorm

    logs = [
        math.log2(found.gain(tokens, row, part).ratio)
        for part in panels_of(found) for row in found.rows for tokens in found.tokens
    ]  # fmt: skip
    low, high = _LEAST_SPAN
    return TwoSlopeNorm(0, vmin=min(low, *logs), vmax=max(high, *logs))


def _colours() -> "Colormap":
    """Orange over white to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("gain", [COLOURS[1], "#ffffff", COLOURS[0]])


def _draw_scale(axes: Sequence["Axes"], norm: "TwoSlopeNorm", colours: "Colormap") -> None:
    """The bar of colours, with the break-even line on it."""
    from matplotlib.cm import ScalarMappable

    figure = axes[0].figure
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, location="bottom", shrink=0.5, aspect=45,
        pad=0.04,
    )  # fmt: skip
    low, high = math.ceil(norm.vmin or 0), math.floor(norm.vmax or 0)
    bar.set_ticks(list(range(low, high + 1)), labels=[f"{2.0**p:g}x" for p in range(low, high + 1)])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    bar.ax.axvline(0, color=INK, linewidth=1.8)
    bar.ax.set_xlabel("times as fast as dense; what the dark line fences in is slower")
