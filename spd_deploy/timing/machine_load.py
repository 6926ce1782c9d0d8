"""Work of other processes while something is timed."""

import os
import time
from dataclasses import dataclass

from spd_deploy.domain.cores import usable_cores

# Share of the usable cores.
_MAX_BUSY_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuTimes:
    """Processor seconds spent up to a point in time, by the whole machine and by this process."""

    clock_s: float
    machine_s: float
    own_s: float


def cpu_times() -> CpuTimes:
    """The seconds up to now. Time that other guests of the host took counts as the machine's."""
    import psutil

    times = psutil.cpu_times()._asdict()
    busy = ("user", "nice", "system", "irq", "softirq", "steal")
    own = psutil.Process().cpu_times()
    return CpuTimes(
        clock_s=time.perf_counter(),
        machine_s=sum(float(times.get(kind, 0.0)) for kind in busy),
        own_s=own.user + own.system,
    )


def others_cores(before: CpuTimes, after: CpuTimes) -> float:
    """Cores that other processes kept busy between two points in time, on average."""
    elapsed_s = max(after.clock_s - before.clock_s, 1e-9)
    others_s = (after.machine_s - before.machine_s) - (after.own_s - before.own_s)
    return max(0.0, others_s / elapsed_s)


def is_busy(cores: float) -> bool:
    """Whether so much other work moves a measured speed-up by more than its tolerance."""
    return cores > _MAX_BUSY_SHARE * usable_cores()


def load_average() -> float | None:
    """Processes that wanted to run in the last minute; None where the system does not count."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Work of other processes during a measurement.

    Attributes:
        load_before: processes wanting to run in the minute before; None where not counted.
        others_cores: cores kept busy by other processes, on average over the timed part.
    """

    load_before: float | None
    others_cores: float


class LoadObserver:
    """Observes the machine from its creation to :meth:`conditions`."""

    def __init__(self, load_before: float | None) -> None:
        """Start to observe; ``load_before`` is from before our own preparations."""
        self._load_before = load_before
        self._before = cpu_times()

    def conditions(self) -> Conditions:
        """The work of other processes from the start up to now."""
        return Conditions(
            load_before=self._load_before, others_cores=others_cores(self._before, cpu_times())
        )
