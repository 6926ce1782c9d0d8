"""Which lowering and kernel each matrix of a torch artefact gets, and why.

A pure function of pattern, shape and precision; where these leave nothing to decide, the choice for
an ONNX artefact is taken (``autotune.select``). Blocks are multiplied by the block-sparse kernel
wherever it should be faster on a GPU. 2:4 matrices are stored as they are; whether 2:4 tensor cores
multiply them is measured on the GPU that serves them. All other matrices are dense, or what remains
of them is. The expected gain of the kernel is computed from two rates of an H100 that are publicly
measured: the rate of its tensor cores in a dense product, and the bandwidth of its L2 cache, from
which every group of rows reads its kept inputs. The exporting machine plays no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from exporters.autotune.select import MIN_GAIN, choose_lowerings, force_lowering
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, candidates_of
from exporters.lowering.choice import LoweringChoice
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.number_types import NUMBER_TYPES, FloatType
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.kernels.tiles import rows_of_tiles
from spd_deploy.kernels.two_four import TWO_FOUR_DTYPES, supports_two_four
from spd_deploy.sessions.torch_network.network_plan import MatrixKind

# Reads from the L2 cache of an H100. Assumed, not measured here.
_CACHE_BYTES_PER_SECOND = 5.5e12


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchChoice:
    """The lowering of one matrix with its reason, and the kernel that multiplies it."""

    choice: LoweringChoice
    kind: MatrixKind


def choose_torch_lowerings(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    precision: FloatType,
    lowering: LoweringName | None = None,
) -> dict[str, TorchChoice]:
    """A choice for every prunable matrix, by its name; ``lowering`` forces one.

    Raises:
        BadSetting: no matrix can have the lowering that is forced.
    """
    if lowering is not None:
        forced = force_lowering(checkpoint, weights, lowering)
        return {
            name: TorchChoice(choice=one, kind="dense" if one.lowering.block is None else "blocks")
            for name, one in forced.items()
        }
    candidates = candidates_of(checkpoint, weights)
    on_cpu = choose_lowerings(checkpoint, weights, candidates=candidates)
    return {
        name: _choose(one, on_cpu[name], checkpoint.pattern_of(one.matrix), precision)
        for name, one in candidates.items()
    }


def _choose(
    candidates: Candidates, on_cpu: LoweringChoice, pattern: Pattern | None, precision: FloatType
) -> TorchChoice:
    """The choice by pattern; ``on_cpu`` is that of an ONNX artefact, taken where it is dense."""
    match pattern:
        case Block() if "gathered" in candidates.lowerings:
            return _choose_for_blocks(candidates, pattern, precision)
        case NM():
            kind, reason = _two_four(candidates.matrix, pattern, precision)
        case Unstructured():
            kind, reason = "dense", "unstructured: tensor cores do not skip single zeros"
        case Block() | Structured() | None:
            return TorchChoice(choice=on_cpu, kind="dense")
        case never:
            assert_never(never)
    return TorchChoice(choice=candidates.choose(candidates.ungathered, reason), kind=kind)


def _choose_for_blocks(candidates: Candidates, block: Block, precision: FloatType) -> TorchChoice:
    """The block-sparse kernel, where it should be faster than what remains of the matrix dense."""
    gathered = candidates.lowerings["gathered"]
    dense = candidates.lowerings[candidates.ungathered]
    gain = dense.flops_share / gathered.flops_share * relative_rate(block.rows, precision)
    tile = rows_of_tiles(block.rows)[0]
    if gain < MIN_GAIN:
        reason = (
            f"dense: the block-sparse kernel is estimated at {gain:.1f}x the dense speed, because "
            f"groups of {block.rows} rows use too little of each input they read"
        )
        choice = candidates.choose(candidates.ungathered, reason)
        return TorchChoice(choice=choice, kind="dense")
    reason = (
        f"block-sparse kernel: {candidates.kept_inputs}; estimated at up to {gain:.1f}x the dense "
        "speed from published rates of an H100, not measured"
    )
    if block.rows % tile:
        reason += f"; groups are padded to {-(-block.rows // tile) * tile} rows"
    return TorchChoice(choice=candidates.choose("gathered", reason), kind="blocks")


def relative_rate(rows: int, precision: FloatType) -> float:
    """The rate at which a group of ``rows`` rows multiplies, as a share of a dense product's.

    Rows of padding are multiplied in vain, and each input that is read from the cache is used for
    no more products than the group has rows.
    """
    tile = rows_of_tiles(rows)[0]
    filled = rows / (-(-rows // tile) * tile)
    operations_per_byte = 2.0 * min(rows, tile) / NUMBER_TYPES[precision].bytes
    fed = operations_per_byte * _CACHE_BYTES_PER_SECOND / _flops_per_second(precision)
    return min(1.0, filled, fed)


def _flops_per_second(precision: FloatType) -> float:
    """The rate of an H100 in dense products. Assumed, not measured here."""
    match precision:
        case "fp16" | "bf16":
            return 600e12
        case "fp32":
            return 50e12
        case never:
            assert_never(never)


def _two_four(matrix: Matrix, pattern: NM, precision: FloatType) -> tuple[MatrixKind, str]:
    """2:4 tensor cores where PyTorch's product takes the matrix, with the reason."""
    if (pattern.n, pattern.m) != (2, 4):
        return "dense", f"{pattern} has no kernel in PyTorch, so its zeros are multiplied"
    if precision not in TWO_FOUR_DTYPES:
        return (
            "dense",
            f"2:4 tensor cores multiply {' and '.join(TWO_FOUR_DTYPES)}, not {precision}",
        )
    if not supports_two_four(matrix.shape, precision):
        return "dense", "PyTorch's 2:4 product needs outputs in 32s and inputs in 64s"
    return "2:4", "2:4 tensor cores on CUDA, for the shapes where they are measured to be faster"


def lowering_choices(choices: Mapping[str, TorchChoice]) -> dict[str, LoweringChoice]:
    """The lowerings with their reasons, without the kernels."""
    return {name: one.choice for name, one in choices.items()}
