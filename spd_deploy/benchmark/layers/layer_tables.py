"""The layer-by-layer measurement as text: a table of matrices, and the waterfall of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spd_deploy.benchmark.formatting import milliseconds, ratio
from spd_deploy.benchmark.layers.analysis import (
    Analysis,
    LayerGain,
    MatrixGain,
    PartTime,
    grouped,
    total_of,
)
from spd_deploy.benchmark.layers.layer_summary import lost_to, promise_of
from spd_deploy.benchmark.tables import NOTHING, Table

_BAR = 40
_TOTAL, _GAIN, _LOSS, _SLIVER = "█", "░", "▓", "│"


@dataclass(frozen=True, kw_only=True, slots=True)
class WaterfallBar:
    """One line of the waterfall; a total stands on the ground, a change hangs between two.

    Attributes:
        low_s, high_s: where the bar begins and ends.
        change_s: None for a total.
    """

    name: str
    low_s: float
    high_s: float
    dense_s: float | None = None
    sparse_s: float | None = None
    change_s: float | None = None

    @property
    def begin_s(self) -> float:
        """The end of the bar before it; for the last total its own end."""
        gains = self.change_s is None or self.change_s < 0
        return self.high_s if gains else self.low_s


def matrix_table(analysis: Analysis, *, every: bool, marks: Mapping[str, str]) -> Table:
    """A row a matrix, or a row for those of a role that are run alike; last all together.

    ``marks`` gives the footnote of a reason.
    """
    layers = 1 + max(m.facts.layer for m in analysis.matrices)
    groups = grouped(
        analysis.matrices,
        lambda facts: facts.name if every else (facts.role, facts.lowering, facts.reason),
    )
    rows = [_row(_label(g, layers, every=every), g, layers - 1, marks) for g in groups]
    whole = _row("all matrices", analysis.matrices, layers - 1, {})
    summed = "" if every else f", summed over {layers} layers"
    title = f"Matrices{summed}; {analysis.where}"
    columns = (
        "matrix", "density", "FLOPs", "run as", "dense ms", "sparse ms",
        "speed-up", "layers", "lost to",
    )  # fmt: skip
    return Table(title=title, columns=columns, rows=(*rows, whole))


def bars_of(analysis: Analysis) -> tuple[WaterfallBar, ...]:
    """The waterfall from the dense total down to the sparse one; parts of no time are left out."""
    at_s = analysis.dense_s
    bars = [WaterfallBar(name="dense baseline", low_s=0.0, high_s=at_s, dense_s=at_s)]
    for step in analysis.steps:
        if step.dense_s or step.sparse_s:
            bars.append(_change(step, at_s))
            at_s += step.change_s
    end_s = analysis.sparse_s
    return (*bars, WaterfallBar(name=analysis.arm, low_s=0.0, high_s=end_s, sparse_s=end_s))


def waterfall_lines(analysis: Analysis) -> tuple[str, ...]:
    """The waterfall with bars made of characters: totals full, gains pale, losses dark."""
    bars = bars_of(analysis)
    whole_s = max(bar.high_s for bar in bars)
    width = max(len(bar.name) for bar in bars)
    head = f"{'':{width}}  {'dense ms':>9}  {'sparse ms':>9}  {'change':>8}"
    lines = [
        f"{bar.name:{width}}  {_ms(bar.dense_s):>9}  {_ms(bar.sparse_s):>9}  "
        f"{'' if bar.change_s is None else signed(bar.change_s):>8}  {_drawn(bar, whole_s)}"
        for bar in bars
    ]
    return (head, *lines)


def _row(
    label: str, matrices: Sequence[MatrixGain], last: int, marks: Mapping[str, str]
) -> tuple[str, ...]:
    """The cells of some matrices together."""
    gain = total_of(m.gain for m in matrices)
    first = matrices[0].facts
    run = {m.facts.lowering for m in matrices}
    mark = marks.get(first.reason, "")
    return (
        label,
        f"{_mean(matrices, [m.facts.density for m in matrices]):.3f}",
        f"{_mean(matrices, [m.facts.flops_share for m in matrices]):.1%}",
        f"{first.lowering} {mark}".strip() if len(run) == 1 else "mixed",
        milliseconds(gain.dense.total_s),
        milliseconds(gain.sparse.total_s),
        promise_of(gain),
        _range([m.gain for m in matrices if m.facts.layer < last]),
        lost_to(gain),
    )


def _range(gains: Sequence[LayerGain]) -> str:
    """The least and the largest speed-up."""
    found = sorted(g.speed_up for g in gains if g.speed_up is not None)
    return NOTHING if len(found) < 2 else f"{ratio(found[0])}-{ratio(found[-1])}"


def _label(group: Sequence[MatrixGain], layers: int, *, every: bool) -> str:
    """A matrix's place, or the role, with its number where some of the layers run it otherwise."""
    facts = group[0].facts
    role = facts.role.replace("_", " ")
    if every:
        return f"{facts.layer} {role}"
    return role if len(group) == layers else f"{role} x{len(group)}"


def _change(step: PartTime, at_s: float) -> WaterfallBar:
    """The bar of a part that begins where the one before ended."""
    ends = sorted((at_s, at_s + step.change_s))
    return WaterfallBar(
        name=step.name,
        low_s=ends[0],
        high_s=ends[1],
        dense_s=step.dense_s,
        sparse_s=step.sparse_s,
        change_s=step.change_s,
    )


def _drawn(bar: WaterfallBar, whole_s: float) -> str:
    """A bar as characters; what is too short for one is a line at its place."""
    low, high = (round(_BAR * max(0.0, s) / whole_s) for s in (bar.low_s, bar.high_s))
    block = _TOTAL if bar.change_s is None else _LOSS if bar.change_s > 0 else _GAIN
    body = block * (high - low) or _SLIVER
    return " " * low + body


def signed(seconds: float) -> str:
    """A change in milliseconds, with its sign."""
    return f"{'-' if seconds < 0 else '+'}{milliseconds(abs(seconds))}"


def _ms(seconds: float | None) -> str:
    """A time, where there is one; as a difference of medians it may be a little below zero."""
    if seconds is None:
        return ""
    return milliseconds(seconds) if seconds >= 0 else signed(seconds)


def _mean(matrices: Sequence[MatrixGain], shares: Sequence[float]) -> float:
    """A mean over matrices, each counted by its size."""
    sizes = [m.facts.weights for m in matrices]
    return sum(n * s for n, s in zip(sizes, shares, strict=True)) / sum(sizes)
