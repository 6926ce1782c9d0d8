"""The processes of one training: one, or several on GPUs, CPUs and nodes through ``accelerate``.

A run that no launcher started is one process, and nothing here costs time. Under ``accelerate
launch`` or ``torchrun`` each process computes its micro-batches of every step. PyTorch's
``DistributedDataParallel``, which ``accelerate`` sets up, averages the gradients.
"""

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import BadSetting
from spd_train.config import Device
from spd_train.data.batching import bounded

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True, slots=True)
class Distributed:
    """The number of processes, the rank of this one, its device, and the collective operations.

    Without an ``accelerator`` every operation returns what it is given.
    """

    world_size: int = 1
    rank: int = 0
    device: str = "cpu"
    accelerator: "Accelerator | None" = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The type of the device, ``cpu`` or ``cuda``, without its index."""
        return self.device.split(":")[0]

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the progress: it has rank 0."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, wrapped so that its backward pass averages gradients over all processes."""
        return module if self.accelerator is None else self.accelerator.prepare_model(module)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is True on any process. All processes get the same answer."""
        if self.accelerator is None:
            return flag
        mine = torch.tensor([float(flag)], device=self.device)
        total = self.accelerator.reduce(mine, reduction="sum")
        assert isinstance(total, Tensor)  # noqa: S101 - a tensor went in
        return bool(total.item() > 0)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.accelerator is None:
            return value
        summed = self.accelerator.reduce(value, reduction="sum")
        assert isinstance(summed, Tensor)  # noqa: S101 - a tensor went in
        return summed

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of every process with those of rank 0, in place."""
        if self.accelerator is not None:
            from accelerate.utils import broadcast as broadcast_tensor

            with torch.no_grad():
                for tensor in tensors:
                    tensor.copy_(broadcast_tensor(tensor.contiguous()))

    def barrier(self) -> None:
        """Block until every process has come to this call."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def init_distributed(device: Device) -> Distributed:
    """Join the process group that a launcher started; one process if there is none.

    Raises:
        BadSetting: the launcher's processes run on another type of device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Distributed(device=device)
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # The student's part has no gradient if the draw, equal on all processes, took the teacher's.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[unused])
    # At the interpreter's end the threads of the group could be destroyed while they run.
    atexit.register(accelerator.state.destroy_process_group)
    if accelerator.device.type != device:
        raise BadSetting(
            f"the launcher's processes run on {accelerator.device.type}",
            got=f"--device {device}",
            fix="launch with a matching configuration, or change --device",
        )
    return Distributed(
        world_size=accelerator.num_processes,
        rank=accelerator.process_index,
        device=str(accelerator.device),
        accelerator=accelerator,
    )


def micro_batches(
    windows: Sequence[int], *, world_size: int, rank: int, accumulate: int, most: int
) -> list[list[int]]:
    """The positions of a step's rows in each micro-batch of one process.

    Over all processes every row is computed once. Rows are dealt out in turn, so that the
    micro-batches of a batch sorted by length have similar lengths. A step with fewer rows than
    micro-batches leaves some of them empty.

    A micro-batch of more than ``most`` windows is computed as several. Every process has as many
    micro-batches as the others.

    Args:
        windows: how many windows each row of the step has.
        world_size: number of processes.
        rank: of this process, from 0.
        accumulate: micro-batches of each process.
        most: windows of a micro-batch; a row with more is alone.
    """
    parts = world_size * accumulate
    dealt = [range(len(windows))[part::parts] for part in range(parts)]
    split = [bounded(positions, windows, most) or [[]] for positions in dealt]
    by_rank = [
        [group for part in split[first : first + accumulate] for group in part]
        for first in range(0, parts, accumulate)
    ]
    missing = max(map(len, by_rank)) - len(by_rank[rank])
    return by_rank[rank] + [[] for _ in range(missing)]
