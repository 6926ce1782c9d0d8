"""Runs of a sweep as tasks of Ray: each waits in Ray's queue for its cores or its share of a GPU.

A task starts ``spd train`` as its child and waits for it. The machines of the cluster share the
output folder, the model and the data under the same paths.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from spd_deploy.domain.errors import SpdError, Unavailable, first_line
from spd_deploy.domain.ray_cluster import whole_cluster, whole_machine
from spd_train.sweep.capacity import Capacity
from spd_train.sweep.child import Child, RunEnd, is_running

_POLL_S = 0.2
# In which Ray has ended the process of a run whose worker died.
_FREE_WITHIN_S = 15.0


def run_as_child(command: Sequence[str], log: Path, threads: int) -> RunEnd:
    """Start a run on this machine and wait for it; Ray's cancelling asks it to save its state.

    It stays in the process group of Ray's worker, which Ray ends as a whole if the worker dies.
    """
    deadline_s = time.perf_counter() + _FREE_WITHIN_S
    while is_running(log) and time.perf_counter() < deadline_s:
        time.sleep(_POLL_S)
    try:
        child = Child([sys.executable, *command[1:]], log, threads=threads, apart=False)
    except SpdError as err:
        return RunEnd(reason=str(err))
    try:
        while (end := child.poll()) is None:
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        child.interrupt()
        while (end := child.poll()) is None:
            time.sleep(_POLL_S)
    finally:
        child.kill()
    return end


class RayRuns:
    """Starts runs as tasks.

    Args:
        ray: the module, connected.
        capacity: threads of each run, and its share of a GPU.

    Raises:
        Unavailable: no machine of the cluster has what a run needs.
    """

    def __init__(self, ray: ModuleType, capacity: Capacity) -> None:
        kind, needed = ("GPU", 1) if capacity.gpus else ("CPU", capacity.threads)
        if whole_machine(ray, kind) < needed:
            raise Unavailable(
                f"no machine of the Ray cluster has {needed} {kind}",
                got=f"{whole_machine(ray, kind)} on the largest",
                fix="use --device cpu" if capacity.gpus else "raise --jobs",
            )
        self.at_once = int(whole_cluster(ray, kind, each=needed) / (capacity.gpus or 1))
        self._ray, self._threads = ray, capacity.threads
        # What Ray would try again would find the folder begun; the sweep itself resumes it.
        self._task = ray.remote(num_cpus=capacity.threads, num_gpus=capacity.gpus, max_retries=0)(
            run_as_child
        )

    def start(self, command: Sequence[str], log: Path) -> "RayRun":
        """Hand a run to Ray."""
        return RayRun(self._ray, self._task.remote(list(command), log.absolute(), self._threads))


class RayRun:
    """A run that Ray has queued or started."""

    def __init__(self, ray: ModuleType, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def poll(self) -> RunEnd | None:
        """The outcome of the run; None while it waits or runs."""
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            end: RunEnd = self._ray.get(self._reference)
        except self._ray.exceptions.TaskCancelledError:
            return RunEnd()
        except self._ray.exceptions.RayError as err:
            return RunEnd(reason=f"{type(err).__name__}: {first_line(err)}", lost=True)
        return end

    def interrupt(self) -> None:
        """Ask it to save its state and end; one that still waits is taken out of the queue."""
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        """As Ray ends tasks: it may save its state."""
        self.interrupt()
