"""The peak memory of distillation against that of plain fine-tuning, each in its own process.

Every arm takes the same steps, on the widest batches of an epoch. The peak is the kernel's
``VmHWM``, all of the process counted; why not ``ru_maxrss``, ``spd_deploy.benchmark.memory`` tells.

    python -m benchmarks.training_memory --model MINILM_FOLDER --data GLUE/MRPC --task mrpc
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.steps import (
    PLAIN,
    Setting,
    Step,
    distilled_step,
    network_of,
    parser_of,
    plain_step,
    setting_of,
)
from benchmarks.training import DISTILLED
from spd_deploy.benchmark.memory import bytes_in
from spd_deploy.cli.output.console import show_table

ARMS = (PLAIN, *DISTILLED)
_STATUS = Path("/proc/self/status")


def main() -> None:
    """Weigh one arm in this process, or all in processes of their own."""
    parser = parser_of(__doc__, steps=5)
    parser.add_argument("--arm", choices=ARMS, help="print this arm's bytes, and no table")
    options = parser.parse_args()
    if options.arm is not None:
        print(peak_bytes(setting_of(options), options.arm, options.steps))
        return
    peak = {name: weighed_apart(name) for name in ARMS}
    show_table(
        f"{options.task}, the widest batches of 32, {options.steps} steps",
        ["arm", "peak memory", f"to {PLAIN}"],
        [
            [name, f"{value / 2**20:.0f} MiB", f"{value / peak[PLAIN]:.2f}"]
            for name, value in peak.items()
        ],
    )


def weighed_apart(arm: str) -> int:
    """The peak of an arm in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.training_memory", *sys.argv[1:], "--arm", arm]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def peak_bytes(setting: Setting, arm: str, steps: int) -> int:
    """The most memory that this process has had after some steps of an arm."""
    step = step_of(setting, arm)
    batches = setting.batches(setting.steps_per_epoch)
    for batch in sorted(batches, key=lambda b: -b.ids_BS.numel())[:steps]:
        step(batch)
    return bytes_in(_STATUS.read_text(), "VmHWM")


def step_of(setting: Setting, arm: str) -> Step:
    """A step of the arm of this name."""
    if arm == PLAIN:
        return plain_step(setting)
    losses = DISTILLED[arm]
    return distilled_step(setting, network_of(setting, losses), losses)


if __name__ == "__main__":
    main()
