"""A map on one scale: the time of all products of a layer, and one dense form to compare with.

Every entry, dense or sparse, has its own seconds at each number of tokens. All are compared with
the same dense entry, so that patterns, precisions and runtimes can be compared with each other.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap, MapGain, MapRow


@dataclass(frozen=True, kw_only=True, slots=True)
class MapEntry:
    """One way to run a layer's products.

    Attributes:
        name: such as ``block:64x1 at 75%, openvino, int8`` or ``dense, openvino, int8``.
        row: the map's row; of a dense entry one that is compared with it.
        dense: whether nothing is sparse.
        skips: whether its zeros are skipped; where not, its times are those of the dense products.
        rounds: seconds of each round by the number of tokens, all matrices of a layer together.
    """

    name: str
    row: MapRow
    dense: bool
    skips: bool
    rounds: Mapping[int, tuple[float, ...]]

    def seconds(self, tokens: int) -> float:
        """The median of the rounds at a number of tokens."""
        return median(self.rounds[tokens])

    def gain_over(self, other: "MapEntry", tokens: int) -> MapGain:
        """How many times as fast as another entry; both were timed in the same rounds."""
        pairs = zip(other.rounds[tokens], self.rounds[tokens], strict=True)
        sure = len({theirs >= ours for theirs, ours in pairs}) == 1
        ratio = other.seconds(tokens) / self.seconds(tokens)
        return MapGain(ratio=ratio, sure=sure, measured=self.skips)


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """The advice of a map: what to train first.

    Attributes:
        first: the entry to start with; a dense one where no pattern pays at every length.
        denser: further sparsities of the same pattern in the same form, the fewest zeros first.
    """

    first: MapEntry
    denser: tuple[MapEntry, ...] = ()


def dense_entries(found: BreakEvenMap) -> list[MapEntry]:
    """An entry for each dense form: each runtime in each precision."""
    return [
        MapEntry(
            name=row.dense, row=row, dense=True, skips=True, rounds=_rounds(found, row, "dense")
        )
        for row in found.dense_rows
    ]


def sparse_entries(found: BreakEvenMap) -> list[MapEntry]:
    """One for each row of the map."""
    return [
        MapEntry(
            name=str(row),
            row=row,
            dense=False,
            skips=row.line not in found.reasons,
            rounds=_rounds(found, row, "dense" if row.line in found.reasons else "sparse"),
        )
        for row in found.rows
    ]


def reference_of(found: BreakEvenMap) -> MapEntry:
    """The dense entry that all are compared with: fp32 if measured, in the first runtime."""
    return min(dense_entries(found), key=lambda entry: entry.row.precision != "fp32")


def fastest_dense(found: BreakEvenMap, tokens: int) -> MapEntry:
    """The dense form with the least time at a length."""
    return min(dense_entries(found), key=lambda entry: entry.seconds(tokens))


def pays(found: BreakEvenMap, entry: MapEntry, tokens: int) -> bool:
    """Whether it is faster than every dense form at a length, in every round."""
    gain = entry.gain_over(fastest_dense(found, tokens), tokens)
    return entry.skips and gain.sure and gain.ratio > 1


def advice_of(found: BreakEvenMap) -> Advice:
    """The entry to start with on this machine.

    The form of a pattern that is fastest on average over all lengths and sparsities, at the fewest
    zeros with which it beats every dense form at every length.
    """
    lines: dict[str, list[MapEntry]] = {}
    for entry in sparse_entries(found):
        lines.setdefault(entry.row.line, []).append(entry)
    ranked = sorted(lines.values(), key=lambda entries: _mean_s(found, entries))
    for entries in ranked:
        good = [e for e in entries if all(pays(found, e, tokens) for tokens in found.tokens)]
        if good:
            return Advice(first=good[0], denser=tuple(good[1:]))
    return Advice(first=min(dense_entries(found), key=lambda entry: _mean_s(found, [entry])))


def pays_from(found: BreakEvenMap, pattern: str, tokens: int) -> float | None:
    """The least sparsity from which on a pattern, in its best form, beats every dense form.

    None where it does not, as far as was measured.
    """
    entries = [entry for entry in sparse_entries(found) if entry.row.pattern == pattern]
    least = None
    for sparsity in sorted({entry.row.sparsity for entry in entries}, reverse=True):
        if not any(pays(found, e, tokens) for e in entries if e.row.sparsity == sparsity):
            break
        least = sparsity
    return least


def unskipped(found: BreakEvenMap) -> Iterator[tuple[str, str]]:
    """Patterns that nothing here skips, in any form, each with the reasons."""
    for pattern in dict.fromkeys(row.pattern for row in found.rows):
        lines = {row.line for row in found.rows if row.pattern == pattern}
        if lines <= set(found.reasons):
            reasons = dict.fromkeys(found.reasons[line] for line in sorted(lines))
            yield pattern, "; ".join(reasons)


def _mean_s(found: BreakEvenMap, entries: Sequence[MapEntry]) -> float:
    """The geometric mean over all lengths and entries."""
    logs = [math.log(entry.seconds(n)) for entry, n in product(entries, found.tokens)]
    return math.exp(sum(logs) / len(logs))


def _rounds(found: BreakEvenMap, row: MapRow, side: str) -> dict[int, tuple[float, ...]]:
    """Seconds of each round of a layer's products, by tokens."""
    times = {}
    for tokens in found.tokens:
        cells = [(found.cell(part, tokens, row), part.count) for part in found.parts]
        taken = [(cell.dense_s if side == "dense" else cell.sparse_s, n) for cell, n in cells]
        times[tokens] = tuple(
            sum(seconds * n for seconds, (_, n) in zip(each, taken, strict=True))
            for each in zip(*(rounds for rounds, _ in taken), strict=True)
        )
    return times
