"""``spd push``: a checkpoint or an artefact to the Hugging Face hub, with a model card."""

from pathlib import Path
from typing import Any

import click

from spd_deploy.api import pushing as api
from spd_deploy.cli.options.common import default_of, json_option
from spd_deploy.cli.output.console import TerminalProgress, show_json


@click.command(
    epilog="""\b
Examples:
  spd push artefacts/reviews OWNER/reviews --card-only
  spd push artefacts/reviews OWNER/reviews --report reports/reviews --license apache-2.0
  spd push runs/reviews OWNER/reviews-checkpoint --private --revision v1.1"""
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repo")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Report of spd bench with this artefact, a folder or its report.json: the card then has "
    "its latency and speed-up.  [default: none; the card says that speed was not measured]",
)
@click.option(
    "--license",
    metavar="NAME",
    help="Licence of the model as the hub spells it, such as apache-2.0 or mit.  [default: that of "
    "the model that it was made from, if that came from the hub and names one]",
)
@click.option(
    "--private",
    is_flag=True,
    help="Make a private repository. If there is a public one already, nothing is pushed.",
)
@click.option(
    "--revision",
    metavar="NAME",
    help="Branch to push to; it is made where there is none.  [default: the main branch]",
)
@click.option(
    "--message",
    metavar="TEXT",
    default=default_of(api.push, "message"),
    show_default=True,
    help="First line of the commit's message.",
)
@click.option(
    "--card-only",
    is_flag=True,
    help="Write the card into FOLDER, show it, and push nothing. No network is needed.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Write the card anew, if FOLDER has a README.md. Without this it is pushed as it is, so "
    "that you can edit it.",
)
@json_option("the result")
def push(as_json: bool, **options: Any) -> None:
    """Write a model card for FOLDER, an artefact or a checkpoint, and push both to REPO on the hub.

    REPO is OWNER/NAME, or NAME of your own account; it is made if there is none. The card is
    FOLDER/README.md. It holds what the model's records say: task, recipe, scores with intervals,
    calibration, speed, limits. What no record holds is left out, or said to be not measured.

    The token is that of hf auth login, or HF_TOKEN. The files of the model are pushed as one
    commit; the teacher, the log and the state of a training are not.
    """
    found = api.push(**options, progress=TerminalProgress())
    if as_json:
        show_json(found.to_json())
    elif found.pushed is None:
        click.echo(found.card.read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(f"card    {found.card}")
        click.echo(f"pushed  {len(found.files)} files, {found.bytes / 1e6:.1f} MB")
        click.echo(f"commit  {found.pushed.commit}")
        click.echo(f"page    {found.pushed.url}")
        click.echo(f"next    spd serve hf://{found.pushed.repository}")
