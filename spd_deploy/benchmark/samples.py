"""The samples that arms are compared by: one clock, one rule for the baseline of each shape."""

from collections.abc import Mapping
from dataclasses import dataclass

from spd_deploy.benchmark.device.device_records import MODES, Cache, DeviceSeries, Mode
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import Clock, DeviceDetails, Limit
from spd_deploy.benchmark.stats import median
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.speed_up import Rounds


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockSamples:
    """All samples by one clock.

    Attributes:
        rounds: seconds of each run, a sequence a round, by arm and shape. An arm that this clock
            did not time at a shape is missing.
        details: of the GPU's clock, by the same keys.
        baselines: the arms that others may be compared with.
    """

    clock: Clock
    rounds: Mapping[tuple[str, Shape], Rounds]
    details: Mapping[tuple[str, Shape], DeviceDetails]
    baselines: tuple[str, ...]

    def baseline_at(self, shape: Shape) -> str | None:
        """The arm that the others are compared with at a shape: the fastest of the baselines.

        It is chosen by the very samples that it is compared with, which favours it if anything.
        """
        timed = [name for name in self.baselines if (name, shape) in self.rounds]
        return min(timed, key=lambda name: median(self.rounds[name, shape]), default=None)


def host_samples(report: Report) -> ClockSamples:
    """Whole calls of the sessions by the host's clock."""
    keys = [(arm.name, shape) for shape in report.settings.shapes for arm in report.arms]
    rounds = {(name, shape): report.rounds(name, shape) for name, shape in keys}
    return ClockSamples(clock="host", rounds=rounds, details={}, baselines=report.baselines)


def device_samples(report: Report) -> ClockSamples:
    """Runs by the GPU's clock with a hot cache, each arm in its faster mode at each shape."""
    details: dict[tuple[str, Shape], DeviceDetails] = {}
    rounds: dict[tuple[str, Shape], Rounds] = {}
    for shape in report.settings.shapes:
        for arm in report.arms:
            if (mode := fastest_mode(report, arm.name, shape)) is not None:
                timed = _complete(report, arm.name, shape, mode)
                rounds[arm.name, shape] = [series.gpu_s for series in timed]
                details[arm.name, shape] = _details(report, arm.name, shape, mode)
    return ClockSamples(clock="device", rounds=rounds, details=details, baselines=report.baselines)


def fastest_mode(report: Report, arm: str, shape: Shape) -> Mode | None:
    """The mode of the smaller median; None where the GPU's clock did not time the arm at all."""
    medians = {mode: _gpu_s(report, arm, shape, mode) for mode in MODES}
    timed = {mode: seconds for mode, seconds in medians.items() if seconds is not None}
    return min(timed, key=lambda mode: timed[mode], default=None)


def _details(report: Report, arm: str, shape: Shape, mode: Mode) -> DeviceDetails:
    """The other times of an arm at a shape, and its limit."""
    assert report.device is not None  # noqa: S101 - the arm has a mode
    timed, copies = _complete(report, arm, shape, mode), report.device.copies_of(arm, shape)
    other = next(one for one in MODES if one != mode)
    return DeviceDetails(
        mode=mode,
        host_s=median([series.host_s for series in timed]),
        enqueue_s=median([series.enqueue_s for series in timed]),
        cold_s=_gpu_s(report, arm, shape, mode, "cold"),
        other_mode_s=_gpu_s(report, arm, shape, other),
        to_device_s=median([copy.to_device_s for copy in copies]) if copies else None,
        to_host_s=median([copy.to_host_s for copy in copies]) if copies else None,
        limit=_limit(report, arm, shape),
    )


def _limit(report: Report, arm: str, shape: Shape) -> Limit | None:
    """The arm's least time at the rates that were measured in this run."""
    assert report.device is not None  # noqa: S101 - the arm has a mode
    work = report.device.arm(arm).work_at(shape)
    rate = report.device.flops_per_s(report.arm(arm).precision)
    if work is None or rate is None:
        return None
    bytes_per_s = report.device.memory_copy.bytes_per_s
    seconds, bound = work.least_s(flops_per_s=rate, bytes_per_s=bytes_per_s)
    return Limit(seconds=seconds, bound=bound)


def _complete(
    report: Report, arm: str, shape: Shape, mode: Mode, cache: Cache = "hot"
) -> tuple[DeviceSeries, ...]:
    """The series of all rounds; empty where one is missing, since rounds are compared in pairs."""
    if report.device is None:
        return ()
    found = report.device.rounds(arm, shape, mode, cache)
    return found if len(found) == report.settings.rounds else ()


def _gpu_s(
    report: Report, arm: str, shape: Shape, mode: Mode, cache: Cache = "hot"
) -> float | None:
    """The median by the GPU's clock; None where a round is missing."""
    found = _complete(report, arm, shape, mode, cache)
    return median([series.gpu_s for series in found]) if found else None
