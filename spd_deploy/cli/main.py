"""The command line ``spd``: one file a verb, all heavy imports inside the verbs."""

import click

from spd_deploy.cli.bench import bench
from spd_deploy.cli.build import build
from spd_deploy.cli.console import Group
from spd_deploy.cli.doctor import doctor
from spd_deploy.cli.evaluate import evaluate
from spd_deploy.cli.export import export
from spd_deploy.cli.inspect import inspect
from spd_deploy.cli.map import map_
from spd_deploy.cli.predict import predict
from spd_deploy.cli.prune import prune
from spd_deploy.cli.quickstart import quickstart
from spd_deploy.cli.serve import serve
from spd_deploy.cli.sweep import sweep
from spd_deploy.cli.train import train
from spd_deploy.domain.versions import PACKAGE


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name=PACKAGE, prog_name="spd")
def cli() -> None:
    """Sparse BERT classifiers that are really faster: train, export, serve, prove the speed.

    Start with: spd quickstart
    """


for verb in (
    quickstart,
    train,
    prune,
    sweep,
    map_,
    export,
    build,
    inspect,
    evaluate,
    predict,
    serve,
    bench,
    doctor,
):
    cli.add_command(verb)


def main() -> None:
    """Run the command line."""
    cli()
