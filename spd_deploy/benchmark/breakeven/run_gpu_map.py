"""Measures a break-even map on a GPU: each product of a model's sizes, dense and by every way.

By the GPU's clock, each product in a CUDA graph of several runs that is launched while the GPU is
busy, so that no launch is in its time (``cuda_clock``), and with weights in the L2 cache as far
as they fit, which favours dense products if anything: they have more to fetch. Products
take turns in rounds as on a CPU.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from exporters.precision import Precision
from spd_deploy.benchmark.breakeven.gpu_products import (
    Product,
    Way,
    product_by,
    refused,
    ways_of,
    why_none,
)
from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap, MapCell, MapMatrix
from spd_deploy.benchmark.breakeven.run_map import MapPlan, placed, settings_of
from spd_deploy.benchmark.device.cuda_tools import uuid
from spd_deploy.benchmark.device.watch_gpu import Looker, looker_of, watching
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.machine.facts import this_machine
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.timing.cuda_clock import TimedGraph
from spd_deploy.timing.host_clock import collect
from spd_deploy.timing.machine_load import LoadObserver, load_average
from spd_deploy.timing.rounds import interleave

if TYPE_CHECKING:
    from torch import Tensor

_REPEATS = 10  # of a product in its graph


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A product: a pattern in one way, or the dense one, which has none, at a number of tokens."""

    pattern: Pattern | None
    way: Way
    tokens: int


class Stopwatch(Protocol):
    """Times products on a device; the real one by graph on a GPU."""

    @property
    def device(self) -> str:
        """Where the products' numbers lie, as PyTorch calls it."""
        ...

    def ready(self, product: Product) -> Any:
        """Whatever makes it quick to time again; raises what PyTorch does where it cannot run."""
        ...

    def seconds(self, ready: Any) -> float:
        """Of one run."""
        ...


class GraphStopwatch:
    """Times products in CUDA graphs."""

    device = "cuda"

    def __init__(self) -> None:
        """Find the GPU.

        Raises:
            Unavailable: there is none.
        """
        refuse_without_cuda()

    def ready(self, product: Product) -> Any:
        """The product, warm, so many times in a graph."""
        return TimedGraph(product, runs=_REPEATS)

    def seconds(self, ready: Any) -> float:
        """Of one run of those in the graph."""
        return float(ready.seconds())


def measure_map_on_gpu(
    plan: MapPlan,
    *,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
    looker: Looker | None = None,
) -> BreakEvenMap:
    """Time every product of the plan on PyTorch's current device.

    Raises:
        Unavailable: there is none.
    """
    stopwatch = stopwatch or GraphStopwatch()
    observer = LoadObserver(load_average())
    cells: list[MapCell] = []
    with (
        watching(looker or looker_of(uuid())) as seen,
        (progress or Silent()).stage("map", len(plan.parts)) as advance,
    ):
        for part in plan.parts:
            cells += _cells_of(part, plan, stopwatch)
            advance(note=str(part))
    return BreakEvenMap(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        conditions=observer.conditions(),
        effort=settings_of(plan),
        model=plan.model,
        parts=plan.parts,
        cells=tuple(cells),
        device="cuda",
        looks=tuple(seen.during),
    )


def _cells_of(part: MapMatrix, plan: MapPlan, watch: Stopwatch) -> Iterator[MapCell]:
    """All cells of one size of matrix, the dense product taking turns with all sparse ones."""
    for tokens in plan.tokens:
        with _prepared(part, plan, tokens, watch) as (ready, reasons):
            seconds = _in_turns(ready, plan, watch)
        dense_s = seconds[Key(pattern=None, way="dense", tokens=tokens)]
        for pattern in plan.patterns:
            for way in ways_of(pattern) or ("",):
                key = Key(pattern=pattern, way=way, tokens=tokens) if way else None
                reason = why_none(pattern) if key is None else reasons.get(key, "")
                yield MapCell(
                    shape=part.shape,
                    tokens=tokens,
                    pattern=str(pattern),
                    sparsity=pattern.sparsity,
                    precision=Precision.FP16.value,
                    dense_s=dense_s,
                    sparse_s=() if key is None or reason else seconds[key],
                    reason=reason,
                    way=way,
                )


@contextmanager
def _prepared(
    part: MapMatrix, plan: MapPlan, tokens: int, watch: Stopwatch
) -> Iterator[tuple[dict[Key, Any], dict[Key, str]]]:
    """The products that run here, ready, and why the others do not; gone with the context."""
    import torch

    device = watch.device
    draw = torch.Generator().manual_seed(0)
    weight_NK = torch.randn(part.shape, generator=draw)
    x_TK = torch.randn((tokens, part.shape[1]), generator=draw).half().to(device)
    ready: dict[Key, Any] = {}
    reasons: dict[Key, str] = {}
    dense = Key(pattern=None, way="dense", tokens=tokens)
    ready[dense] = watch.ready(product_by("dense", _on(device, weight_NK), x_TK, None))
    for pattern in plan.patterns:
        pruned_NK = _on(device, pruned(weight_NK, pattern)) if ways_of(pattern) else weight_NK
        for way in ways_of(pattern):
            key = Key(pattern=pattern, way=way, tokens=tokens)
            try:
                ready[key] = _made_ready(watch, way, pruned_NK, x_TK, pattern)
            except SpdError as err:
                reasons[key] = str(err)
    try:
        yield ready, reasons
    finally:
        ready.clear()


def _made_ready(
    watch: Stopwatch, way: Way, weight_NK: "Tensor", x_TK: "Tensor", pattern: Pattern
) -> Any:
    """A product, ready; what only shows when it runs is refused in words too."""
    product = product_by(way, weight_NK, x_TK, pattern)
    try:
        return watch.ready(product)
    except RuntimeError as err:
        raise refused(err) from err


def pruned(weight_NK: "Tensor", pattern: Pattern) -> "Tensor":
    """The drawn weight under the pattern's mask by magnitude."""
    on = placed(pattern, (weight_NK.shape[0], weight_NK.shape[1]))
    return weight_NK * on.mask(weight_NK.abs(), on.sparsity)


def _on(device: str, weight_NK: "Tensor") -> "Tensor":
    """In half precision on the device."""
    return weight_NK.half().to(device)


def _in_turns(
    ready: Mapping[Key, Any], plan: MapPlan, watch: Stopwatch
) -> dict[Key, tuple[float, ...]]:
    """The median seconds of each product in each round."""
    medians: dict[Key, list[float]] = {key: [] for key in ready}
    for _, key in interleave(tuple(ready), plan.effort.rounds):
        seconds = collect(partial(watch.seconds, ready[key]), plan.effort.series)
        medians[key].append(median(seconds))
    return {key: tuple(rounds) for key, rounds in medians.items()}
