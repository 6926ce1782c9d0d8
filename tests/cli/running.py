"""Runs a command of ours in a folder, as if typed there."""

import os
from pathlib import Path

from click.testing import CliRunner, Result

from spd_deploy.cli.main import cli


def run_in(place: Path, command: str) -> Result:
    """What ``spd COMMAND`` gives in ``place``."""
    before = Path.cwd()
    os.chdir(place)
    try:
        return CliRunner().invoke(cli, command.split())
    finally:
        os.chdir(before)
