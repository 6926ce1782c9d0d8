"""Values of the device part of a report: raw samples by the GPU's clock, and the card's state.

In mode ``launched`` a run enqueues its kernels one by one, in mode ``graph`` it replays a CUDA
graph. A ``hot`` run finds what the last run left in the L2 cache, a ``cold`` run finds a cache that
was overwritten. Each run has three times:

    gpu_s       between two events on its stream, by the GPU's clock
    host_s      from before the first launch until the stream is idle, by the host's clock
    enqueue_s   the part of ``host_s`` that the host spent enqueueing

Copies are timed apart and are in none of these.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.nvidia import GpuProperties, GpuState
from spd_deploy.domain.roofline import Work
from spd_deploy.domain.shapes import Shape

Mode = Literal["launched", "graph"]
Cache = Literal["hot", "cold"]
MODES: tuple[Mode, ...] = ("graph", "launched")
CACHES: tuple[Cache, ...] = ("hot", "cold")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSeries:
    """The runs of one arm at one shape in one round, in one mode and state of the cache."""

    arm: str
    shape: Shape
    round: int
    mode: Mode
    cache: Cache
    gpu_s: tuple[float, ...]
    host_s: tuple[float, ...]
    enqueue_s: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse samples that are no durations, and clocks with different numbers of samples."""
        refuse_no_durations(self, self.gpu_s, self.host_s, self.enqueue_s)
        if not len(self.gpu_s) == len(self.host_s) == len(self.enqueue_s):
            raise BadReport(
                f"the clocks of {self.arm} at {self.shape} do not fit together", fix="measure again"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CopySeries:
    """Copies of one arm's ids to the device and of its logits back, by events, in one round."""

    arm: str
    shape: Shape
    round: int
    to_device_s: tuple[float, ...]
    to_host_s: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse samples that are no durations."""
        refuse_no_durations(self, self.to_device_s, self.to_host_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedKernel:
    """A kernel that ran, by the tracer's name for it; copies and fills do not count."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelTrace:
    """The kernels of one run of an arm at a shape.

    Attributes:
        kernels: the longest first; None where nothing traced them.
        described: what ran the matrices, in the session's words; empty where it has one way.
        sparse_kernels: those that the session knows to skip zeros, as ``Description`` has it.
    """

    shape: Shape
    kernels: tuple[TracedKernel, ...] | None
    described: str = ""
    sparse_kernels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeWork:
    """The least work of an arm at a shape (``domain.roofline``)."""

    shape: Shape
    work: Work


@dataclass(frozen=True, kw_only=True, slots=True)
class UntimedMode:
    """A mode that an arm could not be run in at a shape, and why."""

    mode: Mode
    shape: Shape
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceArm:
    """The facts of an arm on the GPU besides its times.

    Attributes:
        traces: the kernels that ran, one for each shape of the report.
        device_bytes: memory of the GPU that opening and checking it took.
        work: one for each shape; empty where the size of its numbers is not known.
        untimed: modes that its session could not run.
    """

    name: str
    traces: tuple[KernelTrace, ...]
    device_bytes: int | None
    work: tuple[ShapeWork, ...]
    untimed: tuple[UntimedMode, ...] = ()

    def trace_at(self, shape: Shape) -> KernelTrace:
        """The kernels that ran at one shape of the report."""
        return next(one for one in self.traces if one.shape == shape)

    def work_at(self, shape: Shape) -> Work | None:
        """The least work at one shape; None where it was not counted."""
        return next((one.work for one in self.work if one.shape == shape), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """A large square product in one precision: ``size`` rows and columns, by the GPU's clock."""

    precision: str
    size: int
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse samples that are no durations."""
        refuse_no_durations(self, self.seconds)

    @property
    def flops_per_s(self) -> float:
        """The rate of the fastest run: a limit is what the GPU can do, not its average."""
        return 2.0 * self.size**3 / min(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryCopy:
    """A large copy within the device's memory; ``moved_bytes`` counts reads and writes."""

    moved_bytes: int
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse samples that are no durations."""
        refuse_no_durations(self, self.seconds)

    @property
    def bytes_per_s(self) -> float:
        """The rate of the fastest copy."""
        return self.moved_bytes / min(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicePart:
    """The part of a report that only a GPU has.

    Attributes:
        card: None where the driver tells nothing of it.
        before, during, after: the card's state, read at these times.
        processes_before: other processes that computed on the machine's GPUs before the run.
        l2_bytes: size of the cache that is overwritten before a cold run.
        versions: of the CUDA libraries that PyTorch runs with.
        arms: in the order of the report's arms.
    """

    card: GpuProperties | None
    before: GpuState | None
    during: tuple[GpuState, ...]
    after: GpuState | None
    processes_before: int | None
    l2_bytes: int
    versions: Mapping[str, str]
    peaks: tuple[Peak, ...]
    memory_copy: MemoryCopy
    arms: tuple[DeviceArm, ...]
    series: tuple[DeviceSeries, ...]
    copies: tuple[CopySeries, ...]

    def arm(self, name: str) -> DeviceArm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def rounds(self, arm: str, shape: Shape, mode: Mode, cache: Cache) -> tuple[DeviceSeries, ...]:
        """The series of one arm at one shape, a round each; empty where it was not run so."""
        wanted = (arm, shape, mode, cache)
        found = [s for s in self.series if (s.arm, s.shape, s.mode, s.cache) == wanted]
        return tuple(sorted(found, key=lambda s: s.round))

    def copies_of(self, arm: str, shape: Shape) -> tuple[CopySeries, ...]:
        """The copies of one arm at one shape, a round each."""
        return tuple(c for c in self.copies if (c.arm, c.shape) == (arm, shape))

    def flops_per_s(self, precision: str) -> float | None:
        """The peak rate of products in a precision; None where it was not measured."""
        return next((p.flops_per_s for p in self.peaks if p.precision == precision), None)


def refuse_no_durations(of: object, *clocks: Iterable[float]) -> None:
    """Refuse samples that are missing or no durations.

    Raises:
        BadReport: some are.
    """
    for seconds in map(tuple, clocks):
        if not seconds or not all(0 < s < math.inf for s in seconds):
            raise BadReport(
                f"the samples of a {type(of).__name__} are missing or no durations",
                fix="measure again",
            )
