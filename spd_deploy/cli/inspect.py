"""``spd inspect``: how sparse each matrix is, how it is run, and why."""

from pathlib import Path
from typing import Any

import click

from spd_deploy.api import inspection as api
from spd_deploy.cli.options.common import json_option
from spd_deploy.cli.options.measuring_options import measuring_options, show_measured
from spd_deploy.cli.output.console import TerminalProgress, footnotes, show_json, show_table
from spd_deploy.cli.output.engines import show_engine
from spd_deploy.cli.output.matrices_table import matrices_table


@click.command(
    epilog="""\b
Examples:
  spd inspect artefacts/mrpc
  spd inspect artefacts/mrpc --measure --batch 1 --seq 128
  spd inspect runs/mrpc --all
  spd inspect runs/mrpc --json"""
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Show each matrix in a row of its own, instead of one row for those that are alike.",
)
@measuring_options
@json_option("everything")
def inspect(path: Path, as_json: bool, every: bool, **settings: Any) -> None:
    """Show how sparse each matrix is, how it is run, and why.

    PATH is the folder of an artefact or of a checkpoint, or an address of one such as
    hf://OWNER/NAME@REVISION or s3://BUCKET/MODEL. For a checkpoint the command shows the
    lowering that spd export would choose. For a trt artefact it also shows the plan of the engine,
    and after spd build which matrices got a sparse kernel and what that gained.

    With --measure the artefact and a dense model of the same sizes run in turns. The table then
    shows for each matrix how much faster it became, how much its density promises, and what the
    rest was lost to. Both models run in ONNX Runtime in fp32, since only its profiler sees single
    operators, whatever runtime the artefact is served with.
    """
    found = api.inspect(path, **settings, progress=TerminalProgress())
    if as_json:
        show_json(found.to_json())
    elif found.measured is not None:
        show_measured(f"{found.task}, {found.pattern}", found.measured, every=every)
    else:
        show(found, every=every)
        if found.engine is not None:
            show_engine(found.path)


def show(found: api.Inspection, *, every: bool) -> None:
    """The matrices in groups that are alike, or each; the reasons as footnotes; then totals."""
    reasons = footnotes(row.reason for row in found.matrices)
    columns, rows = matrices_table(found.matrices, reasons, every=every)
    show_table(f"{found.task}, {found.pattern}: {found.kind}", columns, rows)
    click.echo()
    for reason, letter in reasons.items():
        click.echo(f"{letter}  {reason}")
    click.echo()
    for line in found.summary_lines():
        click.echo(line)
