"""Environment variables that stand for the options of a command, such as ``SPD_SERVE_PORT``."""

import difflib
import re
from collections.abc import Iterator, Mapping

import click

# Kubernetes sets such variables in every pod, for a Service that is called like the prefix.
_OF_KUBERNETES = re.compile(r"(PORT_\d+_.*|SERVICE_(HOST|PORT(_.*)?))")


def name_variables(command: click.Command, prefix: str) -> None:
    """Let each option of the command be set by a variable too, and show it in the help."""
    for one in command.params:
        if isinstance(one, click.Option):
            name = one.opts[0].removeprefix("--").replace("-", "_").upper()
            one.envvar, one.show_envvar = prefix + name, True


def unknown_variables(
    command: click.Command, prefix: str, environment: Mapping[str, str]
) -> Iterator[str]:
    """A line for each variable with the prefix that is no option, such as a misspelled one."""
    known = [one.envvar for one in command.params if isinstance(one.envvar, str)]
    for name in sorted(environment):
        if not name.startswith(prefix) or name in known:
            continue
        if _OF_KUBERNETES.fullmatch(name.removeprefix(prefix)):
            continue
        close = difflib.get_close_matches(name, known, 1)
        advice = f"did you mean {close[0]}?" if close else "see spd serve --help"
        yield f"{name} is no setting of spd serve, and is ignored; {advice}"
