"""How many runs fit on the machine at once.

On a CPU that is one a core, each with one thread. On a GPU its memory decides, and nobody knows
beforehand what a run will take. So runs are started one by one: PyTorch keeps the memory that it
once took, so a run that has written its first score has about reached its peak. Then what is
left is asked of the driver, and the next one starts if twice the most that any run took so
far is free: the texts of another task may be longer.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import free_bytes
from spd_train.sweep.jobs import Job

# Share of free memory to need that lets another run start.
MARGIN = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The most processes at once, the threads of each, and whether a GPU's memory decides too."""

    processes: int
    threads: int
    watch_gpu: bool = False


def room_for(device: str, *, cores: int, processes: int | None) -> Capacity:
    """The room on a machine with ``cores``; ``processes`` is what the user asked for, if they did.

    Who names a number has it, and answers for the memory.
    """
    if processes is not None:
        return Capacity(processes=processes, threads=max(1, cores // processes))
    return Capacity(processes=cores, threads=1, watch_gpu=device == "cuda")


def may_start(free_bytes: int, most_taken_bytes: int, *, running: int, growing: int) -> bool:
    """Whether a GPU takes another run.

    Alone a run may always try; beside others only when none of them still grows and there is
    room for the largest so far, twice.
    """
    if running == 0:
        return True
    return growing == 0 and free_bytes >= MARGIN * most_taken_bytes


@dataclass(slots=True)
class GpuWatch:
    """Keeps account of what runs took of a GPU's memory."""

    free_bytes: Callable[[], int]
    most_taken_bytes: int = 0
    _at_start: dict[Job, tuple[int, int]] = field(default_factory=dict)  # free bytes, scores

    def admits(self, *, running: int) -> bool:
        """Whether another run may start."""
        growing = len(self._at_start)
        if running and growing:
            return False  # without asking
        return may_start(self.free_bytes(), self.most_taken_bytes, running=running, growing=growing)

    def started(self, job: Job, *, scores: int) -> None:
        """The job begins to take memory; a resumed one has ``scores`` in its log already."""
        self._at_start[job] = (self.free_bytes(), scores)

    def seen(self, job: Job, *, scores: int) -> None:
        """The job has that many scores in its log now; with a new one it has what it needs.

        A run that ended meanwhile makes the difference too small, never too large, and the
        largest of all is what counts.
        """
        free_bytes, before = self._at_start[job]
        if scores > before:
            del self._at_start[job]
            taken = free_bytes - self.free_bytes()
            self.most_taken_bytes = max(self.most_taken_bytes, taken)

    def ended(self, job: Job) -> None:
        """The job is gone."""
        self._at_start.pop(job, None)

    @property
    def growing(self) -> list[Job]:
        """The jobs that have not settled yet."""
        return list(self._at_start)


def gpu_free_bytes() -> int:
    """Free memory of the GPU that the runs will use.

    Raises:
        Unavailable: the driver does not tell.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    try:
        return free_bytes(gpu)
    except Unavailable as err:
        raise Unavailable(
            f"GPU {gpu} does not tell how much memory it has free",
            got=err.got or err.what,
            fix="say with --processes how many runs fit at once, or use --device cpu",
        ) from err
