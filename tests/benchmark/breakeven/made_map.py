"""A map made of numbers instead of measurements."""

from dataclasses import replace

from spd_deploy.benchmark.breakeven.map_records import (
    BreakEvenMap,
    MapCell,
    MapGain,
    MapMatrix,
    MapRow,
    MapSettings,
)
from spd_deploy.benchmark.breakeven.ranking import dense_entries, sparse_entries
from tests.benchmark.made import IDLE, MACHINE

SQUARE, WIDE = MapMatrix(shape=(64, 64), count=4), MapMatrix(shape=(128, 64), count=1)
# How many times as fast as dense, by sparsity and tokens; a pair stands for rounds that disagree.
BLOCK = {
    (0.5, 8): (0.5, 0.5),
    (0.5, 32): (0.9, 1.2),
    (0.9, 8): (1.25, 1.25),
    (0.9, 32): (4.0, 4.0),
}


def cell(part: MapMatrix, tokens: int, sparsity: float, gains: tuple[float, ...]) -> MapCell:
    """A block-sparse product that gains so much in each round."""
    dense_s = tuple(1e-6 * tokens * part.shape[0] for _ in gains)
    return MapCell(
        shape=part.shape,
        tokens=tokens,
        pattern="block:16x1",
        sparsity=sparsity,
        precision="fp32",
        dense_s=dense_s,
        sparse_s=tuple(s / gain for s, gain in zip(dense_s, gains, strict=True)),
        reason="",
        runtime="onnxruntime",
    )


def unskipped(part: MapMatrix, tokens: int) -> MapCell:
    """A product whose zeros nothing skips."""
    return MapCell(
        shape=part.shape,
        tokens=tokens,
        pattern="2:4",
        sparsity=0.5,
        precision="fp32",
        dense_s=(1e-6 * tokens * part.shape[0],) * 2,
        sparse_s=(),
        reason="2:4 needs sparse tensor cores",
        runtime="onnxruntime",
    )


def made_map() -> BreakEvenMap:
    """Two sizes, two lengths, a block pattern at two sparsities, and 2:4."""
    cells = []
    for part in (SQUARE, WIDE):
        cells += [cell(part, n, s, gains) for (s, n), gains in BLOCK.items()]
        cells += [unskipped(part, tokens) for tokens in (8, 32)]
    return BreakEvenMap(
        created="2026-11-24T12:00:00+00:00",
        machine=MACHINE,
        conditions=IDLE,
        settings=MapSettings(threads=2, rounds=2, seconds=0.3),
        model="tiny",
        parts=(SQUARE, WIDE),
        cells=tuple(cells),
        runtimes={"onnxruntime": "1.24.0"},
    )


def gain_of(
    found: BreakEvenMap, tokens: int, row: MapRow, part: MapMatrix | None = None
) -> MapGain:
    """How many times as fast as dense in its own form; of one size of matrix, or of a layer."""
    if part is not None:
        cells = tuple(cell for cell in found.cells if cell.shape == part.shape)
        found = replace(found, parts=(part,), cells=cells)
    dense = {entry.name: entry for entry in dense_entries(found)}[row.dense]
    return {entry.row: entry for entry in sparse_entries(found)}[row].gain_over(dense, tokens)
