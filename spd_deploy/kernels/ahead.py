"""The block-sparse kernel compiled ahead of time, on a machine without a GPU.

To see what the compiler made of it, on any machine. Nothing that ships runs what comes of it: an
engine of TensorRT runs blocks in their gathered form, and a plugin with this kernel in it is not
built, since what it would gain cannot be measured yet.

Two forms come of it: the ``cubin``, machine code for one GPU, and PTX, which a driver compiles.
What PTX Triton writes by itself is as new as the assembler it carries, and drivers refuse PTX that
is newer than they are; so version 8.0 is asked for. It is CUDA 12.0's, and the first that has
Hopper's tensor-core instruction.
"""

import re
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import Unavailable
from spd_deploy.kernels.launch import FP_FUSION, refuse_no_triton
from spd_deploy.kernels.tiles import LEAST, Number, Tile

PTX_VERSION = 80
# What the compiler may take for granted: PyTorch's allocations begin at multiples of it, rows of
# activations and of values too where the number of tokens is a multiple of 16.
_ALIGNED = ("values", "rows", "x", "bias", "residual", "out", "J", "T")
_ALIGNED_STRIDES = ("stride_x", "stride_residual", "stride_out")
_POINTERS = ("values", "x", "residual", "out")
_TENSOR_CORE = re.compile(r"wgmma\.mma_async\S*|mma\.sync\S*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """One kernel for one generation of GPUs.

    Attributes:
        capability: the GPU's, as ``90`` for Hopper.
        shared_bytes: what a launch must ask for.
        threads: of a program.
    """

    name: str
    capability: int
    ptx: str
    cubin: bytes
    shared_bytes: int
    threads: int

    @property
    def tensor_core(self) -> str | None:
        """The tensor-core instruction in it; None where it multiplies without."""
        found = _TENSOR_CORE.search(self.ptx)
        return None if found is None else found[0]

    @property
    def ptx_version(self) -> str:
        """The version of the language that a driver must know."""
        found = re.search(r"^\.version (\S+)", self.ptx, re.MULTILINE)
        assert found is not None  # noqa: S101 - PTX begins with it
        return found[1]

    @property
    def parameters(self) -> int:
        """How many parameters the entry point has, Triton's own at the end included."""
        entry = self.ptx[self.ptx.index(".entry") :]
        return entry[: entry.index("{")].count(".param")


def compiled_linear(
    capability: int,
    number: Number,
    tile: Tile,
    *,
    group_rows: int,
    activation: str = "none",
    residual: bool = False,
    wide: bool = False,
    aligned: bool = True,
) -> Compiled:
    """The block-sparse product for groups of so many rows; ``aligned``: T is a multiple of 16.

    Raises:
        Unavailable: Triton is missing, or cannot compile it.
    """
    refuse_no_triton()
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from spd_deploy.kernels.sources.linear import block_linear

    constants = {
        "ACTIVATION": activation,
        "RESIDUAL": residual,
        "R_OK": group_rows % tile.rows == 0,
        "WIDE": wide,
        "TOKENS_FIRST": tile.tokens_first,
        "BLOCK_R": tile.rows,
        "BLOCK_T": tile.tokens,
        "BLOCK_J": tile.inputs,
    }
    names: list[str] = list(block_linear.arg_names)
    source = ASTSource(
        block_linear,
        signature={name: _kind(name, number, constants) for name in names},
        constexprs=constants,
        attrs=_alignments(names, aligned=aligned),
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages, "ptx_version": PTX_VERSION}
    try:
        made = compile_(
            source, target=GPUTarget("cuda", capability, 32), options={**options, **FP_FUSION}
        )
    except Exception as err:
        raise Unavailable(
            f"Triton cannot compile the block-sparse kernel for compute capability {capability}",
            got=err,
            fix="use another version of Triton, or another tile",
        ) from err
    return Compiled(
        name=str(made.metadata.name),
        capability=capability,
        ptx=str(made.asm["ptx"]),
        cubin=bytes(made.asm["cubin"]),
        shared_bytes=int(made.metadata.shared),
        threads=32 * tile.warps,
    )


def _kind(name: str, number: Number, constants: dict[str, Any]) -> str:
    """The type of a parameter, as Triton spells it."""
    if name in constants:
        return "constexpr"
    if name in _POINTERS:
        return f"*{number}"
    return {"rows": "*i32", "bias": "*fp32"}.get(name, "i32")


def _alignments(names: list[str], *, aligned: bool) -> dict[tuple[int], list[list[object]]]:
    """Which parameters are multiples of 16, by their places."""
    sure = [*_ALIGNED, *_ALIGNED_STRIDES] if aligned else [n for n in _ALIGNED if n != "T"]
    return {(names.index(name),): [["tt.divisibility", LEAST]] for name in sure}
