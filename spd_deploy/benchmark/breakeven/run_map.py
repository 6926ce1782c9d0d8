"""Measures a break-even map on a CPU or a GPU: each product of a model's sizes, dense and sparse.

Nothing is trained: the time of a product does not depend on its weights' values, so they are drawn.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

from spd_deploy.benchmark.breakeven.cpu_products import time_on_cpu, versions_of
from spd_deploy.benchmark.breakeven.map_plan import MapPlan, settings_of
from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap, MapCell, MapMatrix
from spd_deploy.benchmark.breakeven.map_times import MapTimes
from spd_deploy.benchmark.breakeven.product_kernels import ProductKey, kernels_of, why_none
from spd_deploy.benchmark.breakeven.time_on_gpu import ProductClock, cuda_product_clock, time_on_gpu
from spd_deploy.benchmark.device.cuda_tools import uuid
from spd_deploy.benchmark.device.watch_gpu import GpuStates, StateReader, state_reader, watching
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.machine.facts import this_machine
from spd_deploy.timing.machine_load import LoadObserver, load_average

TimePart = Callable[[MapMatrix], MapTimes]


def measure_map(
    plan: MapPlan,
    *,
    progress: Progress | None = None,
    product_clock: ProductClock | None = None,
    read_state: StateReader | None = None,
) -> BreakEvenMap:
    """Time every product of the plan on this machine's CPU, or on PyTorch's current GPU.

    ``product_clock`` times a GPU's products and ``read_state`` reads its state; tests replace them.

    Raises:
        Unavailable: a runtime is not installed or does not have one of the precisions, or there is
            no GPU.
    """
    keys = tuple(keys_of(plan))
    versions = versions_of(plan.runtimes)
    with ExitStack() as stack:
        watch: GpuStates | None = None
        if plan.device == "cuda":
            clock = product_clock or cuda_product_clock()
            watch = stack.enter_context(watching(read_state or state_reader(uuid())))
            time_part: TimePart = partial(time_on_gpu, keys=keys, plan=plan, clock=clock)
        else:
            time_part = partial(time_on_cpu, keys=keys, plan=plan)
        observer = LoadObserver(load_average())
        cells: list[MapCell] = []
        with (progress or Silent()).stage("map", len(plan.parts)) as advance:
            for part in plan.parts:
                cells += cells_of(part, plan, time_part(part))
                advance(note=str(part))
    return BreakEvenMap(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        conditions=observer.conditions(),
        settings=settings_of(plan),
        model=plan.model,
        parts=plan.parts,
        cells=tuple(cells),
        device=plan.device,
        states=() if watch is None else tuple(watch.during),
        runtimes=versions,
    )


def keys_of(plan: MapPlan) -> Iterator[ProductKey]:
    """Every product to time: in each runtime and precision the dense one, then each pattern's."""
    runtimes: tuple[CpuRuntime | None, ...] = plan.runtimes or (None,)
    for runtime in runtimes:
        for precision in plan.precisions:
            yield ProductKey(pattern=None, kernel="dense", precision=precision, runtime=runtime)
            for pattern in plan.patterns:
                for kernel in kernels_of(pattern, plan.device):
                    yield ProductKey(
                        pattern=pattern, kernel=kernel, precision=precision, runtime=runtime
                    )


def cells_of(part: MapMatrix, plan: MapPlan, times: MapTimes) -> Iterator[MapCell]:
    """The cells of one size of matrix: every pattern by every kernel, at every number of tokens."""
    timed = list(dict.fromkeys(key for key, _ in (*times.seconds, *times.reasons)))
    for dense in [key for key in timed if key.pattern is None]:
        for pattern in plan.patterns:
            alike = (pattern, dense.precision, dense.runtime)
            keys = [key for key in timed if (key.pattern, key.precision, key.runtime) == alike]
            for key in keys or (None,):
                yield from (_cell(part, times, dense, pattern, key, n) for n in plan.tokens)


def _cell(
    part: MapMatrix,
    times: MapTimes,
    dense: ProductKey,
    pattern: Pattern,
    key: ProductKey | None,
    tokens: int,
) -> MapCell:
    """One cell; a ``key`` of None is a pattern that nothing skips the zeros of."""
    reason = (
        why_none(pattern, dense.runtime) if key is None else times.reasons.get((key, tokens), "")
    )
    on_gpu = dense.runtime is None
    return MapCell(
        shape=part.shape,
        tokens=tokens,
        pattern=str(pattern),
        sparsity=pattern.sparsity,
        precision=dense.precision.value,
        dense_s=times.seconds[dense, tokens],
        sparse_s=() if key is None or reason else times.seconds[key, tokens],
        reason=reason,
        kernel=key.kernel if key is not None and on_gpu else "",  # a CPU has one for each pattern
        runtime=dense.runtime or "",
    )
