"""The processes of one training, through ``accelerate``: one, or many on GPUs, CPUs and nodes.

Started alone, this is one process and costs nothing. Under ``accelerate launch`` or ``torchrun``
each process computes its parts of every step; gradients are averaged by PyTorch's own distributed
data parallelism, which ``accelerate`` sets up.
"""

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import BadSetting
from spd_train.config import Device

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True, slots=True)
class Distributed:
    """How many processes there are, which one this is, and what they do together."""

    count: int = 1
    rank: int = 0
    device: str = "cpu"
    accelerator: "Accelerator | None" = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The kind of device, ``cpu`` or ``cuda``."""
        return self.device.split(":")[0]

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def prepared(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over all processes."""
        return module if self.accelerator is None else self.accelerator.prepare_model(module)

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all get the same answer at the same step."""
        if self.accelerator is None:
            return flag
        mine = torch.tensor([float(flag)], device=self.device)
        total = self.accelerator.reduce(mine, reduction="sum")
        assert isinstance(total, Tensor)  # noqa: S101 - a tensor went in
        return bool(total.item() > 0)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.accelerator is None:
            return value
        summed = self.accelerator.reduce(value, reduction="sum")
        assert isinstance(summed, Tensor)  # noqa: S101 - a tensor went in
        return summed

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main one's values, in place."""
        if self.accelerator is not None:
            from accelerate.utils import broadcast

            with torch.no_grad():
                for tensor in tensors:
                    tensor.copy_(broadcast(tensor.contiguous()))

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def start_processes(device: Device) -> Distributed:
    """Join the processes that a launcher started, or be the only one.

    Raises:
        BadSetting: the launcher's processes are to train on a device that there is none of.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Distributed(device=device)
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # A part that was drawn as teacher has no gradient, on any process: the draw is the same on all.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[unused])
    # Left to the interpreter's end, the group's threads are sometimes torn down while they run.
    atexit.register(accelerator.state.destroy_process_group)
    if accelerator.device.type != device:
        raise BadSetting(
            f"the launcher's processes run on {accelerator.device.type}",
            got=f"--device {device}",
            fix="launch with a matching configuration, or change --device",
        )
    return Distributed(
        count=accelerator.num_processes,
        rank=accelerator.process_index,
        device=str(accelerator.device),
        accelerator=accelerator,
    )


def parts_of(rows: int, *, count: int, rank: int, accumulate: int) -> list[list[int]]:
    """Which rows of a step each of this process's parts computes: every row once over all.

    Rows are dealt out in turn, so that parts of a batch sorted by length are alike in length. A
    step with fewer rows than parts leaves some parts empty.
    """
    parts = count * accumulate
    return [list(range(rows))[rank * accumulate + i :: parts] for i in range(accumulate)]
