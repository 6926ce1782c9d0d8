"""What the GPU's own clock shows: each arm's fastest way, its limit, and a speed-up with its proof.

Pure, as all judging is. Arms are compared by the GPU's clock with a hot cache, each in the way that
is its fastest: by CUDA graph or launched. The baseline at a shape is the fastest dense arm there.

The word "faster" is kept back from a sparse arm in which nothing skipped a zero. Matrices that
run ``compact`` are smaller dense ones, and ``gathered`` ones are standard operators over the kept
inputs: what they leave out they leave out by construction. Any other way needs a kernel for it,
which must be among those the session knows for certain, or among those that were traced. That goes
for ``dense`` ones too where the runtime takes kernels as it likes, as TensorRT does. Kernels are
chosen for each shape, so each has its own proof.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spd_deploy.benchmark.device.device_records import MODES, Cache, DeviceSeries, KernelTrace, Mode
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import SpeedUp, speed_up_of
from spd_deploy.domain.roofline import Bound
from spd_deploy.domain.shapes import Shape

# Lowerings that need no kernel of their own to leave zeros out.
_BY_CONSTRUCTION = frozenset({"dense", "compact", "gathered"})
_SPARSE_NAME = re.compile(r"sparse|sptensor|spmma|_sp_", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """The least time of an arm's work at the rates that were measured, and what bounds it."""

    seconds: float
    bound: Bound


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRow:
    """One arm at one shape by the GPU's clock, in its fastest way.

    Attributes:
        gpu_s, host_s, enqueue_s: medians of that way, with a hot cache.
        cold_s: the GPU's median with a cold one; None where it was not measured.
        other_s: the GPU's median in the other way, hot; None where it cannot run so.
        to_device_s, to_host_s: medians of the copies.
        limit: None where its work or the rate of its precision is not known.
        speed_up: over the fastest dense arm at this shape; None for that arm, or without any.
    """

    arm: str
    shape: Shape
    mode: Mode
    gpu_s: float
    host_s: float
    enqueue_s: float
    cold_s: float | None
    other_s: float | None
    to_device_s: float | None
    to_host_s: float | None
    limit: Limit | None
    speed_up: SpeedUp | None
    against: str | None

    @property
    def share(self) -> float | None:
        """How much of the limit it reached; 1 would be all."""
        return None if self.limit is None else self.limit.seconds / self.gpu_s

    @property
    def enqueue_share(self) -> float:
        """The host's time for enqueueing over the GPU's time for running."""
        return self.enqueue_s / self.gpu_s


def device_rows(report: Report) -> tuple[DeviceRow, ...]:
    """A row for each arm and shape that the GPU's clock saw."""
    if report.gpu is None:
        return ()
    names = [arm.name for arm in report.arms]
    found = []
    for shape in report.settings.shapes:
        fastest = {name: way for name in names if (way := fastest_way(report, name, shape))}
        dense = [name for name in report.dense if name in fastest]
        base = min(dense, key=lambda name: _hot_s(report, name, shape, fastest[name]), default=None)
        found += [_row(report, name, shape, fastest, base) for name in fastest]
    return tuple(found)


def fastest_way(report: Report, arm: str, shape: Shape) -> Mode | None:
    """The way of the smaller median; None where the arm was not run on its own at all."""
    ways = [way for way in MODES if _rounds(report, arm, shape, way)]
    return min(ways, key=lambda way: _hot_s(report, arm, shape, way), default=None)


def unproven(report: Report, name: str, shape: Shape) -> str | None:
    """Why a gain of this arm at a shape may not be called one of sparsity; None where it may."""
    if report.gpu is None:
        return None
    return why_unproven(report.arm(name), report.gpu.arm(name).ran_at(shape))


def why_unproven(facts: ArmFacts, ran: KernelTrace) -> str | None:
    """The same, of what is known of an arm, and of what it ran."""
    if facts.sparsity is None:
        return None  # it claims none
    ways = {part for group in facts.lowered for part in re.split(r",\s*", group.lowering)}
    if facts.runs_dense and not facts.left_to_runtime:
        return "no sparse kernel ran: all its matrices run dense"
    if ways <= _BY_CONSTRUCTION and not facts.runs_dense:
        return None
    if sparse_kernels(ran):
        return None
    if ran.sparse_kernels is not None:
        return f"no sparse kernel ran: {facts.runtime.runtime} took dense ones"
    if ran.kernels is None:
        return "which kernels ran is not known"
    return f"no sparse kernel is among the {len(ran.kernels)} kernels that ran"


def sparse_kernels(ran: KernelTrace) -> tuple[str, ...]:
    """The kernels that skip zeros: those the session knows, else traced ones with such names."""
    traced = tuple(k.name for k in ran.kernels or () if _SPARSE_NAME.search(k.name))
    return ran.sparse_kernels or traced


def _row(
    report: Report, arm: str, shape: Shape, fastest: dict[str, Mode], base: str | None
) -> DeviceRow:
    """One arm at one shape."""
    gpu = report.gpu
    assert gpu is not None  # noqa: S101 - the caller has looked
    mode = fastest[arm]
    rounds, copies = _rounds(report, arm, shape, mode), gpu.copies_of(arm, shape)
    return DeviceRow(
        arm=arm,
        shape=shape,
        mode=mode,
        gpu_s=_median([r.gpu_s for r in rounds]),
        host_s=_median([r.host_s for r in rounds]),
        enqueue_s=_median([r.enqueue_s for r in rounds]),
        cold_s=_gpu_s(_rounds(report, arm, shape, mode, "cold")),
        other_s=_gpu_s(_rounds(report, arm, shape, next(m for m in MODES if m != mode))),
        to_device_s=_median([c.to_device_s for c in copies]) if copies else None,
        to_host_s=_median([c.to_host_s for c in copies]) if copies else None,
        limit=_limit(report, arm, shape),
        speed_up=None if base in (None, arm) else _over(report, base, arm, shape, fastest),
        against=base,
    )


def _over(
    report: Report, base: str | None, arm: str, shape: Shape, fastest: dict[str, Mode]
) -> SpeedUp:
    """An arm against the fastest dense one, paired by the round."""
    assert base is not None  # noqa: S101 - the caller has looked
    slow, fast = (_rounds(report, one, shape, fastest[one]) for one in (base, arm))
    found = speed_up_of([r.gpu_s for r in slow], [r.gpu_s for r in fast])
    return replace(found, unproven=unproven(report, arm, shape))


def _limit(report: Report, arm: str, shape: Shape) -> Limit | None:
    """The arm's least time at the rates of this run."""
    gpu = report.gpu
    assert gpu is not None  # noqa: S101 - the caller has looked
    work = gpu.arm(arm).work_at(shape)
    rate = gpu.flops_per_s(report.arm(arm).precision)
    if work is None or rate is None:
        return None
    seconds, bound = work.least_s(flops_per_s=rate, bytes_per_s=gpu.copied.bytes_per_s)
    return Limit(seconds=seconds, bound=bound)


def _rounds(
    report: Report, arm: str, shape: Shape, mode: Mode, cache: Cache = "hot"
) -> tuple[DeviceSeries, ...]:
    """The rounds of one way, where none is missing: pairs need them all."""
    if report.gpu is None:
        return ()
    found = report.gpu.rounds(arm, shape, mode, cache)
    return found if len(found) == report.settings.rounds else ()


def _hot_s(report: Report, arm: str, shape: Shape, mode: Mode) -> float:
    """The GPU's median of one way."""
    return _median([r.gpu_s for r in _rounds(report, arm, shape, mode)])


def _gpu_s(rounds: Sequence[DeviceSeries]) -> float | None:
    """The GPU's median; None of no rounds."""
    return _median([r.gpu_s for r in rounds]) if rounds else None


def _median(rounds: Sequence[Sequence[float]]) -> float:
    """Of all samples together."""
    return float(statistics.median(np.concatenate([np.asarray(r) for r in rounds]).tolist()))
