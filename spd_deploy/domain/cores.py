"""How many cores this process may use, and so how many threads it takes where none are named."""

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Cores of the machine, without hyper-threads; 1 where that is unknown."""
    import psutil

    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def usable_cores() -> float:
    """Cores that this process may use: its affinity, less if a container's quota says so."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota = quota_cores(_quota())
    return cores if quota is None else min(cores, quota)


def quota_cores(cpu_max: str | None) -> float | None:
    """Cores that a control group's ``cpu.max`` grants; None for no limit.

    The file holds microseconds of processor time and the period they are granted for.
    """
    fields = (cpu_max or "max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return int(fields[0]) / int(fields[1])


def default_threads() -> int:
    """As many threads as there are cores that this process may use, hyper-threads left out."""
    return max(1, min(physical_cores(), int(usable_cores())))


def _quota() -> str | None:
    """What the control group says; None where there is none."""
    try:
        return _QUOTA.read_text(encoding="utf-8").strip()
    except OSError:
        return None
