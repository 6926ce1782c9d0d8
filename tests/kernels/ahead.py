"""Compiles the block-sparse kernel for GPUs that are not here, to see what the compiler made of it.

Two forms come of it: PTX, which shows the instructions, and the ``cubin``, machine code for one
generation of GPUs, which tells of registers.
"""

import re
from dataclasses import dataclass
from typing import Any

from triton import compile as compile_
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels.launch import FP_FUSION
from spd_deploy.kernels.sources.linear import block_linear
from spd_deploy.kernels.sources.stationary import block_linear_stationary
from spd_deploy.kernels.stationary import StationaryTile
from spd_deploy.kernels.tiles import MIN_TILE_SIDE, Tile

# What the compiler may take for granted: PyTorch's allocations begin at multiples of it, rows of
# activations and of values too where the dtype of tokens is a multiple of 16.
_ALIGNED = ("values", "rows", "x", "bias", "residual", "out", "J", "T")
_ALIGNED_STRIDES = ("stride_x", "stride_residual", "stride_out")
_POINTERS = ("values", "x", "residual", "out")
_TENSOR_CORE = re.compile(r"wgmma\.mma_async\S*|mma\.sync\S*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """One kernel for one generation of GPUs; ``shared_bytes`` is what a launch asks for."""

    ptx: str
    cubin: bytes
    shared_bytes: int

    @property
    def tensor_core(self) -> str | None:
        """The tensor-core instruction in it; None where it multiplies without."""
        found = _TENSOR_CORE.search(self.ptx)
        return None if found is None else found[0]


def compiled_linear(
    capability: int,
    dtype: FloatType,
    tile: Tile,
    *,
    group_rows: int,
    activation: str = "none",
    residual: bool = False,
    aligned: bool = True,
) -> Compiled:
    """The block-sparse product for groups of so many rows; ``aligned``: T is a multiple of 16."""
    constants = {
        "ACTIVATION": activation,
        "RESIDUAL": residual,
        "WIDE": False,
        **tile.constants,
        "R_OK": group_rows % tile.rows == 0,
    }
    names: list[str] = list(block_linear.arg_names)
    source = ASTSource(
        block_linear.fn,
        signature={name: _kind(name, dtype, constants) for name in names},
        constexprs=constants,
        attrs=_alignments(names, aligned=aligned),
    )
    return _compiled(source, capability, tile.options)


def compiled_stationary(
    capability: int,
    tile: StationaryTile,
    *,
    inputs: int,
    activation: str = "none",
    residual: bool = False,
) -> Compiled:
    """The product with weights in shared memory, in fp16, for groups as high as the tile."""
    constants = {
        "ACTIVATION": activation,
        "RESIDUAL": residual,
        "WIDE": False,
        "J": inputs,
        **tile.constants,
        "R_OK": True,
    }
    names: list[str] = list(block_linear_stationary.arg_names)
    sure = [name for name in (*_ALIGNED, *_ALIGNED_STRIDES, "R") if name in names]
    source = ASTSource(
        block_linear_stationary.fn,
        signature={name: _kind(name, "fp16", constants) for name in names},
        constexprs=constants,
        attrs={
            (names.index(name),): [["tt.divisibility", MIN_TILE_SIDE]]
            for name in sure
            if name not in constants
        },
    )
    return _compiled(source, capability, {"num_warps": tile.warps})


def _compiled(source: ASTSource, capability: int, options: dict[str, int]) -> Compiled:
    """What Triton makes of a source for a generation of GPUs."""
    made = compile_(
        source, target=GPUTarget("cuda", capability, 32), options={**options, **FP_FUSION}
    )
    return Compiled(
        ptx=str(made.asm["ptx"]),
        cubin=bytes(made.asm["cubin"]),
        shared_bytes=int(made.metadata.shared),
    )


def _kind(name: str, dtype: FloatType, constants: dict[str, Any]) -> str:
    """The type of a parameter, as Triton spells it."""
    if name in constants:
        return "constexpr"
    if name in _POINTERS:
        return f"*{dtype}"
    return {"rows": "*i32", "bias": "*fp32"}.get(name, "i32")


def _alignments(names: list[str], *, aligned: bool) -> dict[tuple[int], list[list[object]]]:
    """Which parameters are multiples of 16, by their places."""
    sure = [*_ALIGNED, *_ALIGNED_STRIDES] if aligned else [n for n in _ALIGNED if n != "T"]
    return {(names.index(name),): [["tt.divisibility", MIN_TILE_SIDE]] for name in sure}
