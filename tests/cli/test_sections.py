"""Help with many options is told apart by headings."""

import click
import pytest

from spd_deploy.cli.main import cli
from spd_deploy.cli.options.sections import Sectioned


def sectioned() -> list[Sectioned]:
    assert isinstance(cli, click.Group)
    return [verb for verb in cli.commands.values() if isinstance(verb, Sectioned)]


@pytest.mark.parametrize("verb", sectioned(), ids=lambda verb: str(verb.name))
def test_every_option_stands_once_under_a_heading(verb: Sectioned) -> None:
    """None is lost or without a heading, and each heading begins at an option that is there."""
    context = click.Context(verb, info_name="spd")
    options = [p for p in verb.get_params(context) if isinstance(p, click.Option)]

    lines = verb.get_help(context).splitlines()

    for heading in verb.headings.values():
        assert lines.count(f"{heading}:") == 1
    assert "Options:" not in lines
    for option in options:
        shown = [
            line for line in lines if line.startswith("  ") and option.opts[-1] in line.split()
        ]
        assert any(line[2] == "-" for line in shown), option.opts
