"""The block-sparse kernel alone, on a GPU, against cuBLAS on the kept work and the whole product.

Three arms take turns at each product of BERT-base and BERT-large: the kernel; ``kept``, cuBLAS on
a dense product of the same operations, ``[N, J] x [J, T]``, which no sparse kernel can beat by
much; and ``dense``, cuBLAS on the whole ``[N, K] x [K, T]``. Each is captured in a CUDA graph and
timed by CUDA events, its launch not included: ``hot``, one after another, and ``cold``, with the L2
cache overwritten in between. What counts is the kernel's rate as a share of ``kept``'s, and its
speed-up over ``dense``; medians of all rounds, and every sample is in the file. It is written
anew after each product, so whatever ends the run leaves what was measured; a case that does not run
stands there with the reason.

    python -m benchmarks.kernel --output DIR                    # a GPU of compute capability 8.0 on
    python -m benchmarks.kernel --tokens 4096 --density 0.1 --rows 64 128 --output DIR
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from spd_deploy.domain.documents import text_of
from spd_deploy.domain.errors import SpdError, reason_of
from spd_deploy.domain.files import refuse_existing, replacing, write_text
from spd_deploy.kernels.launch import block_linear, refuse_no_triton
from spd_deploy.kernels.tiles import Tile
from spd_deploy.kernels.weights import BlockWeight, dtype_of
from spd_deploy.machine.facts import this_machine
from spd_deploy.sessions.torch_network.load import refuse_unsupported_gpu
from spd_deploy.timing.cuda_clock import TimedGraph

SCHEMA = 1
# The prunable products of a layer, as N x K, with what follows each in the network.
PRODUCTS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    model: {
        "qkv": (3 * H, H),
        "attention output": (H, H),
        "first": (4 * H, H),
        "second": (H, 4 * H),
    }
    for model, H in {"base": 768, "large": 1024}.items()
}
TOKENS = (128, 512, 1024, 4096, 16384)
ARMS = ("kernel", "kept", "dense")
_IN_A_GRAPH = 10
# More than the L2 cache of any GPU known.
_FLUSH_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One product: sizes, share of inputs kept, height of blocks, numbers, tokens."""

    model: str
    product: str
    outputs: int
    inputs: int
    density: float
    rows: int
    number: str
    tokens: int

    def __str__(self) -> str:
        """Such as ``base first 3072x768 at 10%, 64x1, fp16, 4096 tokens``."""
        sizes = f"{self.model} {self.product} {self.outputs}x{self.inputs} at {self.density:.0%}"
        return f"{sizes}, {self.rows}x1, {self.number}, {self.tokens} tokens"

    @property
    def kept(self) -> int:
        """Inputs that each group of rows keeps."""
        return max(1, round(self.density * self.inputs))

    @property
    def flops(self) -> float:
        """Floating-point operations of the kept inputs."""
        return 2.0 * self.outputs * self.kept * self.tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Seconds of every sample by arm, one after another and with a cold cache; and the tile."""

    case: Case
    tile: Tile
    hot: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cold: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def rate(self, arm: str) -> float:
        """Operations that are left, a second; of ``dense`` those of the whole product."""
        flops = self.case.flops * (self.case.inputs / self.case.kept if arm == "dense" else 1)
        return flops / median(self.hot[arm])

    @property
    def share(self) -> float:
        """The kernel's rate as a share of cuBLAS's on the kept work."""
        return median(self.hot["kept"]) / median(self.hot["kernel"])

    def gain(self, samples: Mapping[str, Sequence[float]]) -> float:
        """How many times as fast as the dense product."""
        return median(samples["dense"]) / median(samples["kernel"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Lacking:
    """A case that did not run here, and why."""

    case: Case
    reason: str


def main() -> None:
    """Measure each case, print a line each; after each product, write JSON and Markdown."""
    options = parsed()
    try:
        refuse_existing(options.output, overwrite=False)
        refuse_unsupported_gpu()
        refuse_no_triton()
        machine = asdict(this_machine())
        found: list[Result | Lacking] = []
        for _, together in groupby(cases(options), key=lambda case: (case.model, case.product)):
            found += [tried(case, options.rounds) for case in together]
            write(found, options.output, machine)
    except SpdError as err:
        sys.exit(f"benchmarks.kernel: {err}")
    print(options.output / "kernel.md")


def tried(case: Case, rounds: int) -> Result | Lacking:
    """A case measured; or why it was not, which costs no other."""
    try:
        return measured(case, rounds)
    except Exception as err:  # noqa: BLE001 - the cases after it are to run
        print(f"{case}: {reason_of(err)}", file=sys.stderr, flush=True)
        return Lacking(case=case, reason=reason_of(err))


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=PRODUCTS, default=list(PRODUCTS))
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS))
    parser.add_argument("--density", nargs="+", type=float, default=[0.1, 0.25])
    parser.add_argument("--rows", nargs="+", type=int, default=[64], help="heights of blocks")
    parser.add_argument("--number", nargs="+", choices=["fp16", "bf16"], default=["fp16", "bf16"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All combinations in which blocks divide the outputs."""
    for model in options.model:
        for product, (N, K) in PRODUCTS[model].items():
            for density in options.density:
                for rows in options.rows:
                    for number in options.number:
                        for tokens in options.tokens:
                            case = Case(
                                model=model,
                                product=product,
                                outputs=N,
                                inputs=K,
                                density=density,
                                rows=rows,
                                number=number,
                                tokens=tokens,
                            )
                            if N % rows == 0:
                                yield case


def measured(case: Case, rounds: int) -> Result:
    """The three arms in turn, in a new order each round; the tile is tuned first."""
    weight, x_KT = operands(case)
    tile = tuned_tile(weight, x_KT)
    arms = runs(case, weight, x_KT, tile)
    many = {name: TimedGraph(run, runs=_IN_A_GRAPH) for name, run in arms.items()}
    once = {name: TimedGraph(run, runs=1) for name, run in arms.items()}
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    hot: dict[str, list[float]] = {name: [] for name in arms}
    cold: dict[str, list[float]] = {name: [] for name in arms}
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(ARMS, len(ARMS)):
            hot[name].append(many[name].seconds())
            cold[name].append(once[name].seconds(before=flush.zero_))
    result = replace(Result(case=case, tile=tile), hot=hot, cold=cold)
    print(line_of(result), flush=True)
    return result


def operands(case: Case) -> tuple[BlockWeight, Tensor]:
    """A random balanced weight, and activations."""
    kind = dtype_of(case.number)
    groups = case.outputs // case.rows
    values_GRJ = torch.randn(groups, case.rows, case.kept, device="cuda").to(kind)
    order = torch.stack([torch.randperm(case.inputs, device="cuda") for _ in range(groups)])
    weight = BlockWeight.of(
        values_GRJ * case.kept**-0.5,
        order[:, : case.kept].sort(1).values.int(),
        torch.zeros(case.outputs, device="cuda"),
        columns=1,
        inputs=case.inputs,
    )
    return weight, torch.randn(case.inputs, case.tokens, device="cuda").to(kind)


def tuned_tile(weight: BlockWeight, x_KT: Tensor) -> Tile:
    """The tile that Triton's tuner takes for the product."""
    from spd_deploy.kernels.sources.tuned import tile_of, tuned_block_linear

    block_linear(x_KT, weight)
    return tile_of(tuned_block_linear.best_config)


def runs(
    case: Case, weight: BlockWeight, x_KT: Tensor, tile: Tile
) -> dict[str, Callable[[], Tensor]]:
    """What each arm launches; J of the kept work is padded as the kernel's is."""
    kind = x_KT.dtype
    J = weight.values_GRJ.shape[2]
    kept_NJ = torch.randn(case.outputs, J, device="cuda").to(kind)
    kept_JT = torch.randn(J, case.tokens, device="cuda").to(kind)
    dense_NK = torch.randn(case.outputs, case.inputs, device="cuda").to(kind)
    return {
        "kernel": lambda: block_linear(x_KT, weight, tile),
        "kept": lambda: kept_NJ @ kept_JT,
        "dense": lambda: dense_NK @ x_KT,
    }


COLUMNS = (
    "model", "product", "N x K", "kept", "block", "numbers", "tokens", "kernel us", "kept us",
    "dense us", "kernel TFLOP/s", "of kept's rate", "over dense", "over dense, cold", "tile",
)  # fmt: skip


def cells(result: Result) -> tuple[str, ...]:
    """A result as the cells of a table's row."""
    case, tile = result.case, result.tile
    times = (f"{median(result.hot[arm]) * 1e6:.1f}" for arm in ARMS)
    side = "tokens" if tile.swap_operands else "rows"
    return (
        case.model,
        case.product,
        f"{case.outputs}x{case.inputs}",
        f"{case.density:.0%}",
        f"{case.rows}x1",
        case.number,
        str(case.tokens),
        *times,
        f"{result.rate('kernel') / 1e12:.0f}",
        f"{result.share:.0%}",
        f"{result.gain(result.hot):.2f}x",
        f"{result.gain(result.cold):.2f}x",
        f"{tile.rows}x{tile.tokens}x{tile.inputs}, {tile.warps} warps, {tile.stages} stages, "
        f"{side} first",
    )


def line_of(result: Result) -> str:
    """A result as a line for the terminal."""
    return "  ".join(cells(result))


def write(found: Sequence[Result | Lacking], output: Path, machine: Mapping[str, Any]) -> None:
    """``kernel.json`` with every sample, and ``kernel.md`` to read, in place of earlier ones."""
    results = [one for one in found if isinstance(one, Result)]
    lacking = [one for one in found if isinstance(one, Lacking)]
    document = {
        "schema": SCHEMA,
        "machine": machine,
        "cuda": torch.version.cuda,
        "results": [asdict(result) for result in results],
        "lacking": [asdict(one) for one in lacking],
    }
    name = torch.cuda.get_device_name()
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k in _NAMED)
    table = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, results)]
    text = "".join(f"| {' | '.join(row)} |\n" for row in table)
    text += "".join(f"\nNot run: {one.case}: {one.reason}\n" for one in lacking)
    with replacing(output) as draft:
        draft.mkdir()
        write_text(draft / "kernel.json", text_of(document))
        write_text(
            draft / "kernel.md",
            f"# The block-sparse kernel\n\n{name}; {versions}, CUDA {torch.version.cuda}. "
            "`python -m benchmarks.kernel`; medians, by CUDA events, in CUDA graphs.\n\n" + text,
        )


_NAMED = ("spd-deploy", "torch", "triton")


if __name__ == "__main__":
    main()
