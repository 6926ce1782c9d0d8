"""``spd doctor``: what this machine can run, and why not the rest."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from spd_deploy.cli.options.common import json_option
from spd_deploy.cli.output.console import show_json

if TYPE_CHECKING:
    from spd_deploy.machine.check import Check

_NAME_WIDTH = 26


@click.command()
@json_option("the checks")
def doctor(as_json: bool) -> None:
    """Check what this machine can run, and explain what it cannot run.

    The checks are of the processor, the packages, ONNX Runtime, OpenVINO, PyTorch, NVIDIA's driver
    and TensorRT. Each check that fails has a reason and a remedy. Most machines fail some checks,
    so the exit code is 0 either way.

    \b
    Example:
      spd doctor
      spd doctor --json
    """  # noqa: D301  # click reads the \b as a character
    from spd_deploy.domain.versions import PACKAGE, version_of
    from spd_deploy.machine.doctor import all_checks

    checks = list(all_checks())
    if as_json:
        show_json({"version": version_of(PACKAGE), "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)


def _show(checks: Sequence["Check"]) -> None:
    """Print a line for each check under its group, with reason and remedy of a failed one."""
    console = Console(highlight=False, soft_wrap=True)
    group = None
    for check in checks:
        if check.group != group:
            console.print(Text(f"\n{check.group}" if group else check.group, style="bold"))
            group = check.group
        answer = Text("  yes  ", "green") if check.ok else Text("  no   ", "yellow")
        line = f"{check.name:<{_NAME_WIDTH}}{check.found or ''}".rstrip()
        console.print(answer + Text(line))
        if not check.ok:
            console.print(Text(f"         why: {check.reason}", "dim"))
            console.print(Text(f"         do:  {check.remedy}", "dim"))
