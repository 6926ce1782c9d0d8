"""How many runs a sweep has at the same time.

On a CPU: one a core, each with one thread. On a GPU: as many as its memory holds. The memory of a
run is not known beforehand, so runs start one by one. PyTorch keeps the memory that it has
allocated, so a run that has logged its first score has about reached its peak. The driver then
reports the free memory, and the next run starts if twice the largest peak so far is free, since
the texts of another task may be longer.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import free_bytes
from spd_train.sweep.jobs import Job

# Another run starts if so many times the largest peak so far is free.
MARGIN = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The largest number of runs at the same time.

    Attributes:
        jobs: the largest number of runs.
        threads: CPU threads of each run.
        watch_gpu: whether the free memory of the GPU limits the number further.
        on_ray: whether Ray limits the number.
        gpus: share of a GPU that Ray gives each run.
    """

    jobs: int
    threads: int
    watch_gpu: bool = False
    on_ray: bool = False
    gpus: float = 0.0


def capacity_for(device: str, *, cores: int, jobs: int | None) -> Capacity:
    """The capacity of a machine.

    Args:
        device: ``cpu`` or ``cuda``.
        cores: number of CPU cores.
        jobs: the number of runs that the user asked for; the GPU's memory is then not watched.
    """
    if jobs is not None:
        return Capacity(jobs=jobs, threads=max(1, cores // jobs))
    return Capacity(jobs=cores, threads=1, watch_gpu=device == "cuda")


def capacity_on_ray(device: str, *, cores: int, jobs: int | None) -> Capacity:
    """The resources that Ray gives each run; Ray decides how many run at the same time.

    Args:
        device: ``cpu`` or ``cuda``.
        cores: number of CPU cores of a machine.
        jobs: the number of runs on each GPU, or on the cores of each machine.
    """
    if device == "cuda":
        return Capacity(jobs=sys.maxsize, threads=1, on_ray=True, gpus=1 / (jobs or 1))
    threads = max(1, cores // (jobs or cores))
    return Capacity(jobs=sys.maxsize, threads=threads, on_ray=True)


def may_start(free_bytes: int, most_taken_bytes: int, *, running: int, growing: int) -> bool:
    """Whether another run may start on the GPU.

    The first run always may. Another one may if no run still grows and ``MARGIN`` times the largest
    peak is free.

    Args:
        free_bytes: free memory of the GPU.
        most_taken_bytes: the largest peak of a run so far.
        running: number of runs.
        growing: number of runs that have not logged a score yet.
    """
    if running == 0:
        return True
    return growing == 0 and free_bytes >= MARGIN * most_taken_bytes


@dataclass(slots=True)
class GpuWatch:
    """Measures how much memory of a GPU each run takes.

    Attributes:
        free_bytes: returns the free memory of the GPU.
        most_taken_bytes: the largest peak of a run so far.
    """

    free_bytes: Callable[[], int]
    most_taken_bytes: int = 0
    _at_start: dict[Job, tuple[int, int]] = field(default_factory=dict)  # free bytes, scores

    def admits(self, *, running: int) -> bool:
        """Whether another run may start."""
        growing = len(self._at_start)
        if running and growing:
            return False
        return may_start(self.free_bytes(), self.most_taken_bytes, running=running, growing=growing)

    def started(self, job: Job, *, scores: int) -> None:
        """Note that ``job`` starts with ``scores`` in its log; a resumed job has some already."""
        self._at_start[job] = (self.free_bytes(), scores)

    def seen(self, job: Job, *, scores: int) -> None:
        """Measure the memory of ``job`` if its log has a new score, and so its peak is reached.

        A run that ended in the meantime makes the measured value too small, never too large, and
        only the largest value is used.
        """
        free_bytes, before = self._at_start[job]
        if scores > before:
            del self._at_start[job]
            taken = free_bytes - self.free_bytes()
            self.most_taken_bytes = max(self.most_taken_bytes, taken)

    def ended(self, job: Job) -> None:
        """Forget ``job``, which has ended."""
        self._at_start.pop(job, None)

    @property
    def growing(self) -> list[Job]:
        """The jobs that have not logged a new score since they started."""
        return list(self._at_start)


def gpu_free_bytes() -> int:
    """Free memory of the GPU that the runs will use.

    Raises:
        Unavailable: the driver does not report it.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    try:
        return free_bytes(gpu)
    except Unavailable as err:
        raise Unavailable(
            f"GPU {gpu} does not report its free memory",
            got=err.got or err.what,
            fix="set the number of runs with --jobs, or use --device cpu",
        ) from err
