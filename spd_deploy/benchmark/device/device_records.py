"""What a benchmark on a GPU adds to a report, as frozen values: raw samples, and the card's state.

A *launched* run enqueues its kernels one by one, a run by *graph* replays a CUDA graph. *Hot* runs
find what the last one left in the L2 cache, *cold* ones a cache that was written over. The clock of
``gpu_s`` is the GPU's own, by events before and after the run on its stream; ``host_s`` is the
host's, from before the first launch until the stream is idle, and ``enqueue_s`` the part of it that
the host spent enqueueing. Copies are timed apart and are in none of these.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.nvidia import Card, GpuState
from spd_deploy.domain.roofline import Work
from spd_deploy.domain.shapes import Shape

Mode = Literal["launched", "graph"]
Cache = Literal["hot", "cold"]
MODES: tuple[Mode, ...] = ("graph", "launched")
CACHES: tuple[Cache, ...] = ("hot", "cold")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSeries:
    """The runs of one arm at one shape in one round, one way; the module tells of the clocks."""

    arm: str
    shape: Shape
    round: int
    mode: Mode
    cache: Cache
    gpu_s: tuple[float, ...]
    host_s: tuple[float, ...]
    enqueue_s: tuple[float, ...]

    def __post_init__(self) -> None:
        """As many samples by each clock, and each a duration."""
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
        """Each a duration."""
        refuse_no_durations(self, self.to_device_s, self.to_host_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedKernel:
    """A kernel that ran, by the name the tracer has for it; copies and fills are none."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelTrace:
    """What one run at a shape launched: engines and sessions choose kernels for each shape anew.

    Attributes:
        kernels: the longest first; None where nothing traced it.
        said: what ran the matrices, as the session says after it; empty where it has one way.
        sparse_kernels: those it knows to skip zeros, as ``sessions.protocol`` has it.
    """

    shape: Shape
    kernels: tuple[TracedKernel, ...] | None
    said: str = ""
    sparse_kernels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeWork:
    """The least work of an arm at a shape (``domain.roofline``)."""

    shape: Shape
    work: Work


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that could not be measured here, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceArm:
    """What is known of an arm on the GPU besides its times.

    Attributes:
        dense: whether it is one of the dense arms, the fastest of which is the baseline.
        ran: what ran at each shape.
        device_bytes: the GPU's memory that opening and proving it took; None where not seen.
        work: at each shape.
        untimed: ways that its session could not run, such as a CUDA graph, with the reasons.
    """

    name: str
    dense: bool
    ran: tuple[KernelTrace, ...]
    device_bytes: int | None
    work: tuple[ShapeWork, ...]
    untimed: tuple[Skipped, ...] = ()

    def ran_at(self, shape: Shape) -> KernelTrace:
        """What ran at one shape of the report."""
        return next(one for one in self.ran if one.shape == shape)

    def work_at(self, shape: Shape) -> Work | None:
        """At one shape; None where it was not counted."""
        return next((one.work for one in self.work if one.shape == shape), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """A large square product in one precision: ``size`` rows and columns, by the GPU's clock."""

    precision: str
    size: int
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """It took some time."""
        refuse_no_durations(self, self.seconds)

    @property
    def flops_per_s(self) -> float:
        """Of the fastest run: a limit is what the GPU can do, not what it does on average."""
        return 2.0 * self.size**3 / min(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryCopy:
    """A large copy within the device's memory; ``moved_bytes`` counts both its ends."""

    moved_bytes: int
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """It took some time."""
        refuse_no_durations(self, self.seconds)

    @property
    def bytes_per_s(self) -> float:
        """Of the fastest run."""
        return self.moved_bytes / min(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicePart:
    """Everything that a run on a GPU adds to a report.

    Attributes:
        card: None where the driver does not tell of it.
        before, during, after: looks at its state.
        processes_before: that computed on the machine's GPUs before this one did.
        l2_bytes: of the cache that cold runs find written over.
        versions: of the CUDA libraries that PyTorch runs with.
        absent: arms and products that could not be run here.
    """

    card: Card | None
    before: GpuState | None
    during: tuple[GpuState, ...]
    after: GpuState | None
    processes_before: int | None
    l2_bytes: int
    versions: Mapping[str, str]
    peaks: tuple[Peak, ...]
    copied: MemoryCopy
    arms: tuple[DeviceArm, ...]
    series: tuple[DeviceSeries, ...]
    copies: tuple[CopySeries, ...]
    absent: tuple[Skipped, ...] = ()

    @property
    def dense(self) -> tuple[str, ...]:
        """The names of the dense arms."""
        return tuple(arm.name for arm in self.arms if arm.dense)

    def arm(self, name: str) -> DeviceArm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def rounds(self, arm: str, shape: Shape, mode: Mode, cache: Cache) -> tuple[DeviceSeries, ...]:
        """The series of one arm at one shape, one way, a round each; empty where it was not run."""
        wanted = (arm, shape, mode, cache)
        found = [s for s in self.series if (s.arm, s.shape, s.mode, s.cache) == wanted]
        return tuple(sorted(found, key=lambda s: s.round))

    def copies_of(self, arm: str, shape: Shape) -> tuple[CopySeries, ...]:
        """Its copies, a round each."""
        return tuple(c for c in self.copies if (c.arm, c.shape) == (arm, shape))

    def flops_per_s(self, precision: str) -> float | None:
        """What products of a precision reach at most here; None where that was not measured."""
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
