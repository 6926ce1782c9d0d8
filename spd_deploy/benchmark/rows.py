"""Rows of a judgement: one arm at one shape by the host's clock or by the GPU's."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from spd_deploy.benchmark.device.device_records import Mode
from spd_deploy.benchmark.stats import Estimate
from spd_deploy.domain.roofline import Bound
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.speed_up import SpeedUp

Clock = Literal["host", "device"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """The least time of an arm's work at the rates of this GPU, and the rate that bounds it."""

    seconds: float
    bound: Bound


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceDetails:
    """Times of a row by the GPU's clock besides its latency; medians in seconds.

    Attributes:
        mode: the arm's faster mode, which the row's latency is of, with a hot cache.
        host_s, enqueue_s: the host's part of the same runs.
        cold_s: the same with a cold cache; None where it was not measured.
        other_mode_s: the other mode, with a hot cache; None where it cannot run so.
        to_device_s, to_host_s: the copies.
        limit: None where its work or the peak rate of its precision is not known.
    """

    mode: Mode
    host_s: float
    enqueue_s: float
    cold_s: float | None
    other_mode_s: float | None
    to_device_s: float | None
    to_host_s: float | None
    limit: Limit | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRow:
    """One arm at one shape by one clock.

    Attributes:
        p90, p99: None where there are too few samples for them.
        tokens_per_s: tokens of one run over its median time.
        speed_up: over the baseline; None for the baseline itself, or without one.
        against: the arm that it is compared with.
        device: of a row by the GPU's clock.
    """

    arm: str
    shape: Shape
    clock: Clock
    samples: int
    p50: Estimate
    p90: Estimate | None
    p99: Estimate | None
    tokens_per_s: float
    speed_up: SpeedUp | None
    against: str | None = None
    device: DeviceDetails | None = None

    @property
    def reached(self) -> float | None:
        """The limit as a share of the time that the arm took; 1 is the limit itself."""
        if self.device is None or self.device.limit is None:
            return None
        return self.device.limit.seconds / self.p50.value

    @property
    def enqueue_share(self) -> float:
        """The host's time for enqueueing over the GPU's time for running; 0 by the host's clock."""
        return 0.0 if self.device is None else self.device.enqueue_s / self.p50.value

    def to_json(self) -> dict[str, Any]:
        """The row with its shape spelled and its verdict beside the numbers."""
        value = {**asdict(self), "shape": str(self.shape)}
        if self.speed_up is not None:
            value["speed_up"] = {**asdict(self.speed_up), "verdict": self.speed_up.verdict}
        return value
