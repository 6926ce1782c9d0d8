"""How each matrix of a torch artefact is run, and why: a pure function of its pattern and weights.

Blocks go to the block-sparse kernel wherever it promises a gain on a GPU; 2:4 matrices are kept as
they are, and whether 2:4 tensor cores run them is measured where they run; all else is dense, or
what is left of it is. What is promised comes of two rates that public measurements give for an
H100: what its tensor cores do in a dense product, and what its L2 cache delivers, since every
group of R rows reads its kept inputs from there. What the exporting machine does plays no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from exporters.autotune.select import LEAST_GAIN, Choice, choose, forced
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, LoweringName, candidates_of
from exporters.lowering.compact import Compact
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.kernels.tiles import BYTES_OF, Number, rows_of_tiles
from spd_deploy.kernels.two_four import NUMBERS, takes_two_four
from spd_deploy.sessions.torch_network.plan import Kind

# Of an H100: dense products, and reads from its L2 cache. Assumed, not measured here.
_FLOPS_PER_SECOND: Mapping[Number, float] = {"fp16": 600e12, "bf16": 600e12, "fp32": 50e12}
_CACHE_BYTES_PER_SECOND = 5.5e12


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A matrix's lowering with its reason, and what multiplies it."""

    choice: Choice
    kind: Kind


def choose_torch(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    number: Number,
    way: LoweringName | None = None,
) -> dict[str, Chosen]:
    """A choice for every prunable matrix, by its name; ``way`` forces one.

    Raises:
        BadSetting: no matrix can be run in the way that is forced.
    """
    if way is not None:
        choices = forced(checkpoint, weights, way)
        return {
            name: Chosen(choice=one, kind="blocks" if one.lowering.feature_major else "dense")
            for name, one in choices.items()
        }
    ways = candidates_of(checkpoint, weights)
    plain = choose(checkpoint, weights, ways=ways)
    return {
        name: _chosen(known, plain[name], checkpoint.pattern_of(known.matrix), number)
        for name, known in ways.items()
    }


def _chosen(ways: Candidates, plain: Choice, pattern: Pattern | None, number: Number) -> Chosen:
    """By pattern; ``plain`` is what an ONNX artefact would run on the CPU."""
    match pattern:
        case Block() if "gathered" in ways.lowerings:
            return _blocks(ways, pattern, number)
        case NM():
            kind, reason = _two_four(ways.matrix, pattern, number)
        case Unstructured():
            kind, reason = "dense", "unstructured: tensor cores do not skip single zeros"
        case Block() | Structured() | None:
            return Chosen(choice=plain, kind="dense")
        case never:
            assert_never(never)
    said = "; ".join(part for part in (ways.left, reason) if part)
    return Chosen(choice=Choice(lowering=ways.lowerings[ways.plain], reason=said), kind=kind)


def _blocks(ways: Candidates, block: Block, number: Number) -> Chosen:
    """The kernel, where it promises a gain over what is left of the matrix dense."""
    gathered, dense = ways.lowerings["gathered"], ways.lowerings[ways.plain]
    gain = dense.flops_share / gathered.flops_share * rate_of(block.rows, number)
    tile = rows_of_tiles(block.rows)[0]
    if gain < LEAST_GAIN:
        reason = (
            f"the block-sparse kernel promises {gain:.1f}x: groups of {block.rows} rows use too "
            "little of each input they read"
        )
        return Chosen(choice=Choice(lowering=dense, reason=_said(ways, reason)), kind="dense")
    reason = (
        f"the block-sparse kernel: {block.rows} outputs at a time read the "
        f"{gathered.flops_share / dense.flops_share:.0%} of inputs they kept; up to {gain:.1f}x "
        "by rates that are assumed of an H100, not measured"
    )
    if block.rows % tile:
        reason += f"; groups are padded to {-(-block.rows // tile) * tile} rows"
    return Chosen(choice=Choice(lowering=gathered, reason=_said(ways, reason)), kind="blocks")


def rate_of(rows: int, number: Number) -> float:
    """The rate at which a group of so many rows multiplies, as a share of a dense product's.

    Rows of padding are multiplied for nothing, and each input that is read from the cache serves
    no more products than the group has rows.
    """
    tile = rows_of_tiles(rows)[0]
    filled = rows / (-(-rows // tile) * tile)
    served = 2.0 * min(rows, tile) / BYTES_OF[number]  # operations for each byte that is read
    fed = served * _CACHE_BYTES_PER_SECOND / _FLOPS_PER_SECOND[number]
    return min(1.0, filled, fed)


def _two_four(matrix: Matrix, pattern: NM, number: Number) -> tuple[Kind, str]:
    """2:4 tensor cores where PyTorch takes the matrix."""
    if (pattern.n, pattern.m) != (2, 4):
        return "dense", f"{pattern} has no kernel in PyTorch, so its zeros are multiplied"
    if number not in NUMBERS:
        return "dense", f"2:4 tensor cores multiply {' and '.join(NUMBERS)}, not {number}"
    if not takes_two_four(matrix.shape, number):
        return "dense", "PyTorch's 2:4 product needs outputs in 32s and inputs in 64s"
    return "2:4", "2:4 tensor cores on CUDA, for the shapes where they are measured faster there"


def _said(ways: Candidates, reason: str) -> str:
    """With the heads or neurons that are left."""
    return "; ".join(part for part in (ways.left, reason) if part)


def gathered_in(lowering: Lowering) -> Gathered | None:
    """The block-sparse part of a lowering, of what is left of the matrix."""
    inner = lowering.inner if isinstance(lowering, Compact) else lowering
    return inner if isinstance(inner, Gathered) else None


def choices_of(chosen: Mapping[str, Chosen]) -> dict[str, Choice]:
    """The lowerings with their reasons alone."""
    return {name: one.choice for name, one in chosen.items()}
