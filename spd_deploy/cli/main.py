"""The command line ``spd``: an entry file a command, all heavy imports inside the commands."""

import click

from spd_deploy.cli.bench import bench
from spd_deploy.cli.build import build
from spd_deploy.cli.calibrate import calibrate
from spd_deploy.cli.compare import compare
from spd_deploy.cli.distil import distil
from spd_deploy.cli.doctor import doctor
from spd_deploy.cli.evaluate import evaluate
from spd_deploy.cli.export import export
from spd_deploy.cli.inspect import inspect
from spd_deploy.cli.map import map_
from spd_deploy.cli.output.console import Group
from spd_deploy.cli.predict import predict
from spd_deploy.cli.prune import prune
from spd_deploy.cli.push import push
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
    """Make BERT classifiers sparse and faster: train, export, measure, serve.

    The commands are listed in the order in which they are used. Start with: spd quickstart
    """


# In the order of the pipeline, each with its line in ``spd --help``.
COMMANDS: tuple[tuple[click.Command, str], ...] = (
    (quickstart, "Try everything on built-in data: train, export, measure."),
    (doctor, "Say what this machine can run, and why not the rest."),
    (map_, "Measure what each sparsity pattern gains on this machine."),
    (train, "Train a dense teacher and distil a sparse model from it."),
    (sweep, "Train a grid of tasks, patterns, recipes and seeds."),
    (prune, "Prune a fine-tuned model without labels or training."),
    (distil, "Prune a pretrained encoder on texts, for any task."),
    (calibrate, "Fit a model's scores to the truth, and choose thresholds."),
    (export, "Turn a checkpoint into an artefact that runs fast."),
    (build, "Build the TensorRT engine of a trt artefact."),
    (inspect, "Show how sparse each matrix is, how it is run, and why."),
    (evaluate, "Score a model on labelled data."),
    (compare, "Compare the answers of a dense and a sparse model."),
    (bench, "Measure artefacts against a dense baseline."),
    (predict, "Classify texts from the command line or a file."),
    (push, "Publish a model with its card on the Hugging Face hub."),
    (serve, "Answer requests over HTTP."),
)
for command, line in COMMANDS:
    command.short_help = line
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    cli()
