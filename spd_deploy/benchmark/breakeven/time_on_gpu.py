"""Times the products of a break-even map on a GPU, by its own clock.

Each product is captured in a CUDA graph several times over, so that no launch is in its time.
Weights stay in the L2 cache as far as they fit. That favours dense products, which read more.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from spd_deploy.benchmark.breakeven.gpu_products import Product, product_by, refused
from spd_deploy.benchmark.breakeven.map_plan import MapPlan, pattern_on_shape
from spd_deploy.benchmark.breakeven.map_records import MapMatrix
from spd_deploy.benchmark.breakeven.map_times import MapTimes
from spd_deploy.benchmark.breakeven.product_kernels import ProductKey
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.timing.cuda_clock import TimedGraph
from spd_deploy.timing.interleaved import time_interleaved

if TYPE_CHECKING:
    from torch import Tensor

_RUNS_IN_GRAPH = 10


class ProductClock(Protocol):
    """Times products on a device."""

    @property
    def device(self) -> str:
        """The device of the products' tensors, as PyTorch names it."""
        ...

    def prepare(self, product: Product) -> Callable[[], float]:
        """A function that runs the product and returns the seconds of one run.

        Raises:
            RuntimeError: PyTorch cannot run or capture it.
        """
        ...


class GraphClock:
    """Times products in CUDA graphs on PyTorch's current device."""

    device = "cuda"

    def prepare(self, product: Product) -> Callable[[], float]:
        """Warm the product up and capture it."""
        return TimedGraph(product, runs=_RUNS_IN_GRAPH).seconds


def cuda_product_clock() -> ProductClock:
    """The clock of PyTorch's current device.

    Raises:
        Unavailable: there is none.
    """
    refuse_without_cuda()
    return GraphClock()


def time_on_gpu(
    part: MapMatrix, keys: Sequence[ProductKey], plan: MapPlan, clock: ProductClock
) -> MapTimes:
    """Time the products of one size of matrix, in turns, at one number of tokens after another."""
    seconds: dict[tuple[ProductKey, int], tuple[float, ...]] = {}
    reasons: dict[tuple[ProductKey, int], str] = {}
    for tokens in plan.tokens:
        times, failed = _time_tokens(part, keys, tokens, plan, clock)
        seconds |= {(key, tokens): rounds for key, rounds in times.items()}
        reasons |= {(key, tokens): reason for key, reason in failed.items()}
    return MapTimes(seconds=seconds, reasons=reasons)


def _time_tokens(
    part: MapMatrix, keys: Sequence[ProductKey], tokens: int, plan: MapPlan, clock: ProductClock
) -> tuple[dict[ProductKey, tuple[float, ...]], Mapping[ProductKey, str]]:
    """Times at one number of tokens; the products' memory is free again afterwards."""
    prepared, failed = _prepared(part, keys, tokens, clock)
    openers = {key: partial(_opened, run) for key, run in prepared.items()}
    shape = Shape(batch=1, seq=tokens)
    times = time_interleaved(openers, [shape], plan.timing, seconds=lambda run: float(run()))
    return {key: rounds for key, (rounds,) in times.items()}, failed


def _opened(run: Callable[[], float]) -> AbstractContextManager[Callable[[Shape], float]]:
    """A prepared product as interleaved timing opens models; it has one shape alone."""
    return nullcontext(lambda shape: run())


def _prepared(
    part: MapMatrix, keys: Sequence[ProductKey], tokens: int, clock: ProductClock
) -> tuple[Mapping[ProductKey, Callable[[], float]], Mapping[ProductKey, str]]:
    """The products that run here, ready to be timed, and why the others do not."""
    import torch

    draw = torch.Generator().manual_seed(0)
    weight_NK = torch.randn(part.shape, generator=draw)
    x_TK = torch.randn((tokens, part.shape[1]), generator=draw).half().to(clock.device)
    weights: dict[Pattern | None, Any] = {}
    prepared: dict[ProductKey, Callable[[], float]] = {}
    failed: dict[ProductKey, str] = {}
    for key in keys:
        if key.pattern not in weights:
            pruned_NK = weight_NK if key.pattern is None else pruned(weight_NK, key.pattern)
            weights[key.pattern] = pruned_NK.half().to(clock.device)
        try:
            prepared[key] = _prepare(clock, key, weights[key.pattern], x_TK)
        except SpdError as err:
            if key.pattern is None:  # nothing can be compared with it
                raise
            failed[key] = str(err)
    return prepared, failed


def _prepare(
    clock: ProductClock, key: ProductKey, weight_NK: "Tensor", x_TK: "Tensor"
) -> Callable[[], float]:
    """One product; a library's refusal that only shows when it runs is raised as ours."""
    product = product_by(key.kernel, weight_NK, x_TK, key.pattern)
    try:
        return clock.prepare(product)
    except RuntimeError as err:
        raise refused(err) from err


def pruned(weight_NK: "Tensor", pattern: Pattern) -> "Tensor":
    """The weight under the pattern's mask by magnitude."""
    on = pattern_on_shape(pattern, (weight_NK.shape[0], weight_NK.shape[1]))
    return weight_NK * on.mask(weight_NK.abs(), on.sparsity)
