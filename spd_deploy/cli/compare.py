"""``spd compare``: where a sparse model answers otherwise than its dense model."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.api import comparison as api
from spd_deploy.cli.options.common import (
    THREADS,
    default_of,
    device_option,
    json_option,
    runtime_option,
    skip_broken_rows_option,
)
from spd_deploy.cli.options.long_text_options import long_text_options
from spd_deploy.cli.output.console import TerminalProgress, show_json, show_table

if TYPE_CHECKING:
    from spd_deploy.sessions.protocol import Device


@click.command(
    epilog="""\b
Examples:
  spd compare runs/reviews/teacher artefacts/reviews --data reviews.csv
  spd compare artefacts/dense artefacts/stsb --data GLUE/STS-B --group-by genre
  spd compare runs/reviews/teacher artefacts/reviews --data new.csv --rows 0 --json"""
)
@click.argument("dense", type=click.Path(path_type=Path))
@click.argument("sparse", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the task's train and dev file, or one labelled file, as spd train takes "
    "them. For the file that the sparse model was trained on, only its dev rows are compared.  "
    "[default: the Hugging Face hub for GLUE tasks; built-in tasks need none]",
)
@click.option(
    "--task",
    help="Name of the task that the data belongs to. Needed only for a model that does not say its "
    "own task.  [default: the sparse model's task]",
)
@click.option(
    "--split",
    default=default_of(api.compare, "split"),
    show_default=True,
    help="Which rows to compare: dev or train. A file without a dev file beside it is compared "
    "whole, unless the sparse model was trained on it.",
)
@click.option(
    "--group-by",
    metavar="COLUMN",
    help="Column of the data whose values are compared apart, such as a source or a genre.  "
    "[default: none]",
)
@click.option(
    "--rows",
    type=click.IntRange(0, 10_000),
    default=default_of(api.compare, "rows"),
    show_default=True,
    help="How many of the rows that differ most are listed, with the start of their texts.",
)
@skip_broken_rows_option
@long_text_options
@runtime_option
@device_option
@THREADS
@json_option("the result")
def compare(
    dense: Path,
    sparse: Path,
    data: Path | None,
    task: str | None,
    split: str,
    group_by: str | None,
    rows: int,
    skip_broken_rows: bool,
    long_texts: str | None,
    window_stride: int | None,
    window_pooling: str | None,
    max_windows: int | None,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare the answers of a dense and a sparse model on labelled data, row by row.

    DENSE and SPARSE are folders of artefacts or checkpoints. The command shows the scores and the
    calibration of both, which labels, lengths and groups lose most, and the rows that differ most.
    """
    found = api.compare(
        dense,
        sparse,
        data=data,
        task=task,
        split=split,
        group_by=group_by,
        rows=rows,
        skip_broken_rows=skip_broken_rows,
        long_texts=long_texts,  # type: ignore[arg-type]
        window_stride=window_stride,
        window_pooling=window_pooling,  # type: ignore[arg-type]
        max_windows=max_windows,
        runtime=runtime,
        device=device,
        threads=threads,
        progress=TerminalProgress(),
    )
    if as_json:
        show_json(found.to_json())
        return
    view = found.view()
    click.echo(view.title)
    for table in view.tables:
        click.echo()
        show_table(table.title, table.columns, table.rows)
    click.echo()
    for line in view.lines:
        click.echo(line)
