"""With how many threads PyTorch computes: as many as were asked for, or as the machine has free."""

import os
import time
from collections.abc import Callable

import click

from spd_deploy.domain.cores import default_threads, usable_cores
from spd_deploy.timing.machine_load import CpuTimes, cpu_times, others_cores

# Shorter than this, what others do is not told from noise.
_LEAST_OBSERVED_S = 1.0

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads to compute with on the CPU.  [default: the physical cores that other work leaves "
    "free; OMP_NUM_THREADS where it is set]",
)


def fitting_threads(cores: int, *, elsewhere: float, others: float) -> int:
    """Threads that find a core each.

    Threads of one product wait for each other, so one that shares its core holds all of them up.

    Args:
        cores: that this process may use.
        elsewhere: cores of the machine that it may not use, on which others may run.
        others: cores that other processes keep busy.
    """
    return max(1, min(cores, round(cores - max(0.0, others - elsewhere))))


def choose_threads(asked: int | None, before: CpuTimes, note: Callable[[str], None]) -> int | None:
    """How many threads to take, told with the reason; None leaves the choice to PyTorch.

    PyTorch reads OMP_NUM_THREADS itself, which launchers of several processes set.

    Args:
        asked: the user's own number.
        before: since when other processes are looked at.
        note: told what was chosen.
    """
    if asked is not None or "OMP_NUM_THREADS" in os.environ:
        return asked
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    cores = default_threads()
    if cores > 1:
        time.sleep(max(0.0, _LEAST_OBSERVED_S - (time.perf_counter() - before.clock_s)))
    others = others_cores(before, cpu_times())
    elsewhere = (os.cpu_count() or 1) - usable_cores()
    threads = fitting_threads(cores, elsewhere=elsewhere, others=others)
    busy = f", other work keeps {others:.1f} busy" if threads < cores else ""
    note(f"threads: {threads} of {cores} cores{busy} (--threads takes another number)")
    return threads


def use_threads(count: int | None) -> None:
    """Have PyTorch compute with ``count`` threads."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
