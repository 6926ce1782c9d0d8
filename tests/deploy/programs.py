"""What manifests and images run: the words of ``spd serve``, checked against its options."""

from collections.abc import Sequence
from typing import Any

import click

from spd_deploy.cli.main import cli


def serve_options(words: Sequence[str]) -> dict[str, Any]:
    """The options of ``spd serve`` as the command line reads them; a wrong one raises."""
    assert isinstance(cli, click.Group)
    assert words[0] == "serve"
    command = cli.commands["serve"]
    return dict(command.make_context("serve", list(words[1:])).params)
