"""Which block? Speed against the rows R and inputs C of a block, beside what it keeps.

The time is that of one layer's products, dense and gathered in turn, as ONNX Runtime runs them in a
whole network. What a block keeps is the share of squared weights under its best balanced mask, over
a model's own matrices: accuracy before any training; random weights keep less.

    python -m benchmarks.blocks --model MINILM_FOLDER --output DIR
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from exporters.autotune.product_model import opened_product
from exporters.classifier_weights import float32_tensors
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.checkpoint import read_config
from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.patterns import Block
from spd_deploy.domain.plot_style import COLOURS, NAMED_LINES, blank, note
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.stored_weights import stored_weights
from spd_deploy.timing.host_clock import TimingSettings
from spd_deploy.timing.interleaved import time_interleaved

BLOCKS = ((16, 1), (32, 1), (64, 1), (128, 1), (384, 1), (32, 4), (64, 4), (32, 16), (64, 16))
SHAPES = (Shape(batch=1, seq=128), Shape(batch=8, seq=128))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One block at one sparsity: the share of squared weights it keeps, and its speed-ups."""

    block: str
    sparsity: float
    kept: float
    gains: Mapping[str, float]


def main() -> None:
    """Measure each block at each sparsity, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.75, 0.9])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    matrices = one_layer_of(options.model)
    timing = TimingSettings(seconds=options.seconds)
    rows = [
        row_of(matrices, Block(rows=R, columns=C, sparsity=sparsity), options.threads, timing)
        for sparsity in options.sparsity
        for R, C in BLOCKS
        if all(m.shape[0] % R == 0 and m.shape[1] % C == 0 for m in matrices)
    ]
    columns = ("block", "zeros", "squares kept", *(f"{shape}" for shape in SHAPES))
    show_table("one layer's products over dense", columns, list(cells(rows)))
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "blocks.json"
    file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    draw(rows, options.output / "blocks.png")
    print(file)


def draw(rows: list[Row], file: Path) -> None:
    """Speed against what is kept, a panel a shape, a line a sparsity for blocks one input wide."""
    import matplotlib as mpl

    with mpl.rc_context(NAMED_LINES):  # type: ignore[arg-type]  # the stub lists every key by name
        figure = blank(4.2)
        panels = figure.subplots(1, len(SHAPES), squeeze=False)[0]
        for axes, shape in zip(panels, SHAPES, strict=True):
            for colour, sparsity in zip(COLOURS, sorted({r.sparsity for r in rows}), strict=False):
                of = [row for row in rows if row.sparsity == sparsity]
                narrow = [(r.kept, r.gains[str(shape)]) for r in of if r.block.endswith("x1")]
                axes.plot(*zip(*narrow, strict=True), color=colour, lw=1)
                axes.scatter(
                    [r.kept for r in of],
                    [r.gains[str(shape)] for r in of],
                    color=colour,
                    s=14,
                    label=f"{sparsity:.0%} zeros",
                )
                for row in of:
                    note(axes, row.kept, row.gains[str(shape)], row.block.removeprefix("block:"))
            axes.set_title(f"{shape} tokens")
            axes.set_xlabel("share of squared weights kept")
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
        panels[0].set_ylabel("times as fast as dense, one layer's products")
        panels[-1].legend()
        figure.savefig(file)


def one_layer_of(model: Path) -> dict[Matrix, np.ndarray]:
    """The matrices of the middle layer of a model, with their weights."""
    stored = stored_weights(model, config := read_config(model))
    encoder = Encoder.found_in(stored.shapes, config)
    matrices = [m for m in encoder.matrices() if m.layer == encoder.layers // 2]
    tensors = float32_tensors(stored, [m.weight_name for m in matrices])
    return {m: tensors[m.weight_name] for m in matrices}


def row_of(
    matrices: Mapping[Matrix, np.ndarray], block: Block, threads: int, timing: TimingSettings
) -> Row:
    """What a block keeps of the matrices, and how much faster their products are together."""
    masks = {
        m: block.mask(torch.from_numpy(weight).square(), block.sparsity).numpy()
        for m, weight in matrices.items()
    }
    squares = sum(float(np.square(weight).sum()) for weight in matrices.values())
    kept = sum(float(np.square(weight * masks[m]).sum()) for m, weight in matrices.items())
    seconds = {way: dict.fromkeys(SHAPES, 0.0) for way in ("dense", "gathered")}
    for matrix, weight in matrices.items():
        gathered = Gathered.of(matrix, weight * masks[matrix], block)
        lowerings = {"dense": Dense.of(matrix, weight), "gathered": gathered}
        openers = {
            way: lambda chosen=lowering: opened_product(chosen, threads=threads)
            for way, lowering in lowerings.items()
        }
        for way, times in time_interleaved(openers, SHAPES, timing).items():
            for shape, rounds in zip(SHAPES, times, strict=True):
                seconds[way][shape] += median(rounds)
    gains = {str(s): seconds["dense"][s] / seconds["gathered"][s] for s in SHAPES}
    return Row(block=str(block), sparsity=block.sparsity, kept=kept / squares, gains=gains)


def cells(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    """The rows as text."""
    for row in rows:
        gains = (f"{gain:.1f}x" for gain in row.gains.values())
        yield (row.block, f"{row.sparsity:.0%}", f"{row.kept:.2f}", *gains)


if __name__ == "__main__":
    main()
