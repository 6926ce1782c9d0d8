"""Kernels to run a product, and which of them skip the zeros of a pattern on a device.

dense                a dense product, zeros and all
gathered             blocks: kept rows of a feature-major input, then one batched dense product
triton               blocks: this project's Triton kernel, which gathers as it multiplies
sparse tensor cores  2:4: cuSPARSELt or CUTLASS, through ``torch.sparse``
compact              structured: a smaller dense product
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from exporters.autotune.select import why_zeros_are_multiplied
from exporters.precision import Precision
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.sessions.protocol import Device

ProductKernel = Literal["dense", "gathered", "triton", "sparse tensor cores", "compact"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductKey:
    """One product of a map.

    Attributes:
        pattern: None for the dense product.
        runtime: what runs it on a CPU; None on a GPU, where PyTorch runs all.
    """

    pattern: Pattern | None
    kernel: ProductKernel
    precision: Precision
    runtime: CpuRuntime | None = None


def kernels_of(pattern: Pattern, device: Device) -> tuple[ProductKernel, ...]:
    """The kernels that skip zeros of a pattern; empty where nothing does."""
    match pattern:
        case Block():
            return ("gathered",) if device == "cpu" else ("gathered", "triton")
        case Structured():
            return ("compact",)
        case NM(n=2, m=4):
            return () if device == "cpu" else ("sparse tensor cores",)
        case NM() | Unstructured():
            return ()
        case never:
            assert_never(never)


def why_none(pattern: Pattern, runtime: CpuRuntime | None) -> str:
    """Why nothing skips the zeros of a pattern that has no kernel; a runtime of None is a GPU's."""
    match pattern:
        case Block() | Structured():
            raise AssertionError(f"{pattern} has a kernel")
        case NM() | Unstructured() if runtime is not None:
            return why_zeros_are_multiplied(pattern, runtime)
        case NM():
            return f"{pattern}: tensor cores skip zeros of 2:4 alone"
        case Unstructured():
            return f"{pattern}: no library here skips single zeros in half precision"
        case never:
            assert_never(never)
