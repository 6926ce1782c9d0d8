"""The command line ``spd``: one file a verb, all heavy imports inside the verbs."""

import click

from spd_deploy.cli.console import Group
from spd_deploy.domain.versions import PACKAGE


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name=PACKAGE, prog_name="spd")
def cli() -> None:
    """Sparse BERT classifiers that are really faster: train, export, serve, prove the speed.

    Start with: spd quickstart
    """


def main() -> None:
    """Run the command line."""
    cli()
