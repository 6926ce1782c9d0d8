"""The map as a picture: a panel for each number of tokens, a line for each pattern and sparsity.

A dot is one way to run the products. All dots of a panel share one axis of milliseconds. Dots left
of the dashed line are faster than every dense form.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap, MapRow
from spd_deploy.benchmark.breakeven.map_summary import machine_text, matrices_text
from spd_deploy.benchmark.breakeven.ranking import (
    MapEntry,
    dense_entries,
    fastest_dense,
    sparse_entries,
)
from spd_deploy.domain.plot_style import COLOURS, DASHED, INK, NAMED_LINES, blank, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE_INCHES, _FRAME_INCHES, _PANEL_INCHES, _PANELS_WIDE = 0.27, 1.3, 0.75, 4
# Height between the lines of two patterns, in lines.
_GAP = 0.5
_DENSE = "dense"
# One for each precision, in the order of the map.
_MARKERS = ("o", "D", "s", "^")
# Characters of the title that the figure is wide enough for.
WIDEST_TITLE = 100


def draw_map(found: BreakEvenMap) -> bytes:
    """The map as a PNG file."""
    from matplotlib import rc_context

    with rc_context(NAMED_LINES):  # type: ignore[arg-type]  # the stub lists every key by name
        return png_of(map_figure(found))


def map_figure(found: BreakEvenMap) -> "Figure":
    """A panel for each number of tokens, and one legend."""
    heights = heights_of(found.rows)
    wide = min(_PANELS_WIDE, len(found.tokens))
    deep = math.ceil(len(found.tokens) / wide)
    high = _PANEL_INCHES + _LINE_INCHES * (max(heights.values()) + 1)
    figure = blank(_FRAME_INCHES + deep * high)
    figure.suptitle(title_of(found), x=0.012, ha="left", fontweight="bold", fontsize=9.5)
    axes = figure.subplots(deep, wide, squeeze=False, sharey=True).ravel()
    for panel, tokens in zip(axes, found.tokens, strict=False):
        _draw_panel(panel, found, tokens, heights)
    for panel in axes[len(found.tokens) :]:
        panel.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def title_of(found: BreakEvenMap) -> str:
    """The matrices, and below them the machine and the runtimes."""
    lines = (f"Milliseconds for the products of {matrices_text(found)}", machine_text(found))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, WIDEST_TITLE))


def heights_of(rows: Sequence[MapRow]) -> dict[str, float]:
    """The height of each line by its label: dense at 0, then downwards, patterns with gaps."""
    found: dict[str, float] = {_DENSE: 0.0}
    height, previous = 0.0, _DENSE
    for row in sorted(rows, key=lambda row: _order(rows, row)):
        if _label(row) in found:
            continue
        height += 1.0 if row.pattern == previous else 1.0 + _GAP
        previous = row.pattern
        found[_label(row)] = height
    return found


def _order(rows: Sequence[MapRow], row: MapRow) -> tuple[int, float]:
    """Patterns as they come, each from the least sparsity on."""
    return [other.pattern for other in rows].index(row.pattern), row.sparsity


def _label(row: MapRow) -> str:
    """The label of a line, such as ``block:64x1 90 %``."""
    return f"{row.pattern} {100 * row.sparsity:g} %"


def _draw_panel(
    axes: "Axes", found: BreakEvenMap, tokens: int, heights: Mapping[str, float]
) -> None:
    """All entries at one number of tokens."""
    best = fastest_dense(found, tokens)
    for entry in (*dense_entries(found), *sparse_entries(found)):
        _draw_dot(axes, found, entry, tokens, heights)
    at_ms = 1e3 * best.seconds(tokens)
    axes.axvline(at_ms, color=INK, linewidth=1, linestyle=DASHED, label="fastest dense")
    _scale(axes, found, tokens)
    axes.set_yticks(list(heights.values()), list(heights))
    axes.set_ylim(max(heights.values()) + 0.6, -0.6)
    axes.set_title(f"{tokens} tokens")
    axes.set_xlabel("ms")
    axes.grid(axis="both")


def _draw_dot(
    axes: "Axes", found: BreakEvenMap, entry: MapEntry, tokens: int, heights: Mapping[str, float]
) -> None:
    """Its time: the colour tells runtime or kernel, the shape precision; pale: zeros multiplied."""
    row = entry.row
    kernels = list(dict.fromkeys(other.kernel or other.runtime for other in found.rows))
    key = row.kernel or row.runtime
    colour = INK if entry.dense and not row.runtime else COLOURS[kernels.index(key) % len(COLOURS)]
    name = ", ".join(filter(None, ("" if entry.dense and row.kernel else key, row.precision)))
    known = axes.get_legend_handles_labels()[1]
    axes.plot(
        1e3 * entry.seconds(tokens),
        heights[_DENSE if entry.dense else _label(row)],
        _MARKERS[found.precisions.index(row.precision) % len(_MARKERS)],
        color=colour,
        alpha=0.9 if entry.skips else 0.25,
        markersize=6,
        markeredgewidth=0,
        linestyle="none",
        label="_again" if name in known else name,
    )


def _scale(axes: "Axes", found: BreakEvenMap, tokens: int) -> None:
    """Logarithmic, with a tick for each doubling, or fewer where those would touch."""
    entries = (*dense_entries(found), *sparse_entries(found))
    times = [1e3 * entry.seconds(tokens) for entry in entries]
    low, high = math.log2(min(times)), math.log2(max(times))
    step = max(1, math.ceil((high - low) / 4))
    powers = range(math.floor(low), math.ceil(high) + 1, step)
    axes.set_xscale("log")
    axes.set_xlim(2 ** (low - 0.25), 2 ** (high + 0.25))
    ticks = [2.0**p for p in powers if low - 0.25 <= p <= high + 0.25]
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.minorticks_off()
