"""The number of PyTorch threads: the number asked for, or the number of free cores."""

import os
import time
from collections.abc import Callable

import click

from spd_deploy.domain.cores import default_threads, usable_cores
from spd_deploy.timing.machine_load import CpuTimes, cpu_times, others_cores

# Over a shorter time the load of other processes cannot be told from noise.
_MIN_OBSERVED_S = 1.0

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="COUNT",
    help="CPU threads of PyTorch. Lower it if other work needs the cores. No effect on a GPU.  "
    "[default: the physical cores that other processes leave free; OMP_NUM_THREADS if it is set]",
)


def fitting_threads(cores: int, *, elsewhere: float, others: float) -> int:
    """The number of threads that get a core each, at least 1.

    The threads of a matrix product wait for each other, so one that shares its core slows all of
    them down.

    Args:
        cores: number of cores that this process may use.
        elsewhere: number of other cores of the machine, on which other processes may run.
        others: number of cores that other processes keep busy.
    """
    return max(1, min(cores, round(cores - max(0.0, others - elsewhere))))


def choose_threads(
    requested: int | None, before: CpuTimes, note: Callable[[str], None]
) -> int | None:
    """The number of threads to use; None leaves the choice to PyTorch.

    PyTorch reads OMP_NUM_THREADS itself; launchers of several processes set it.

    Args:
        requested: the number that the user gave.
        before: processor times at the start of the time over which other processes are observed.
        note: reports the number that was chosen, and why.
    """
    if requested is not None:
        return requested
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    if chosen := os.environ.get("OMP_NUM_THREADS"):
        note(f"threads: {chosen}, as OMP_NUM_THREADS says (change it with --threads)")
        return None
    cores = default_threads()
    if cores > 1:
        time.sleep(max(0.0, _MIN_OBSERVED_S - (time.perf_counter() - before.clock_s)))
    others = others_cores(before, cpu_times())
    elsewhere = (os.cpu_count() or 1) - usable_cores()
    threads = fitting_threads(cores, elsewhere=elsewhere, others=others)
    busy = f", other processes keep {others:.1f} busy" if threads < cores else ""
    note(f"threads: {threads} of {cores} cores{busy} (change it with --threads)")
    return threads


def use_free_threads(
    requested: int | None, before: CpuTimes, note: Callable[[str], None]
) -> int | None:
    """Set PyTorch's threads to what :func:`choose_threads` says, and return the number."""
    threads = choose_threads(requested, before, note)
    use_threads(threads)
    return threads


def use_threads(count: int | None) -> None:
    """Set the number of PyTorch's threads; None leaves it as it is."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
