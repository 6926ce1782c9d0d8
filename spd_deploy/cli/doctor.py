"""``spd doctor``: what this machine can run, and why not the rest."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from spd_deploy.cli.console import show_json

if TYPE_CHECKING:
    from spd_deploy.machine.check import Check

_NAME_WIDTH = 26


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine can run, and for each thing it cannot, why and what to do.

    \b
    spd doctor
    spd doctor --json

    A "no" is no failure: most machines have some. The exit code is 0.
    """  # noqa: D301  # click reads the \b as a character
    from spd_deploy.domain.versions import PACKAGE, version_of
    from spd_deploy.machine.doctor import all_checks

    checks = list(all_checks())
    if as_json:
        show_json({"version": version_of(PACKAGE), "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)


def _show(checks: Sequence["Check"]) -> None:
    """A line a check under its group's name, and below a "no" its reason and remedy."""
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
