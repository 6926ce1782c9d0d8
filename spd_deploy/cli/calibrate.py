"""``spd calibrate``: scores that mean what they say, and thresholds that keep a promise."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.api import calibrating as api
from spd_deploy.cli.options.common import (
    THREADS,
    device_option,
    finite,
    json_option,
    runtime_option,
    skip_broken_rows_option,
)
from spd_deploy.cli.options.long_text_options import long_text_options
from spd_deploy.cli.output.console import TerminalProgress, show_json

if TYPE_CHECKING:
    from spd_deploy.sessions.protocol import Device


@click.command(
    epilog="""\b
Examples:
  spd calibrate runs/reviews --data reviews.csv --output runs/calibrated
  spd calibrate runs/spam --data mail.csv --threshold-for spam:precision=0.95 --output runs/sure
  spd calibrate artefacts/spam --data mail.csv --abstain-below 0.8 --output artefacts/sure"""
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the task's files, or one labelled file, as spd train takes them. Of the data "
    "that the model was trained on, its validation rows are taken; of other data all dev rows.  "
    "[default: the Hugging Face hub for GLUE tasks; built-in tasks need none]",
)
@click.option(
    "--task",
    help="Name of the task that the data belongs to. Needed only for a model that does not say its "
    "own task.  [default: the model's task]",
)
@click.option(
    "--threshold-for",
    multiple=True,
    metavar="LABEL:GOAL",
    help="Choose the score from which on a label is given: LABEL:precision=0.95 for the largest "
    "recall at that precision, LABEL:recall=0.9 for the largest precision at that recall, LABEL:f1 "
    "for the largest F1. * stands for every label. May be given several times. Earlier thresholds "
    "of the model are replaced.  [default: the label with the largest score is given; of a "
    "multi-label model each label from 0.5 on]",
)
@click.option(
    "--abstain-below",
    type=click.FloatRange(0.0, 1.0),
    callback=finite,
    metavar="SCORE",
    help="Give no label where the score of the best one is smaller. spd evaluate shows how many "
    "rows that leaves, and how right they are.  [default: a label is always given]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write: a checkpoint, or an artefact where PATH is one.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is in --output.")
@skip_broken_rows_option
@long_text_options
@runtime_option
@device_option
@THREADS
@json_option("the result")
def calibrate(
    path: Path,
    data: Path | None,
    task: str | None,
    threshold_for: tuple[str, ...],
    abstain_below: float | None,
    output: Path,
    overwrite: bool,
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
    """Fit a model's scores to the truth, and choose thresholds, on rows it did not learn from.

    PATH is the folder of a checkpoint, of spd or of Transformers. Its last layer is divided by the
    temperature that fits the rows best, so that every runtime and protocol gives calibrated
    scores; no label changes by that. Of an artefact only thresholds and --abstain-below can be set.
    """
    found = api.calibrate(
        path,
        output=output,
        data=data,
        task=task,
        threshold_for=threshold_for,
        abstain_below=abstain_below,
        skip_broken_rows=skip_broken_rows,
        long_texts=long_texts,  # type: ignore[arg-type]
        window_stride=window_stride,
        window_pooling=window_pooling,  # type: ignore[arg-type]
        max_windows=max_windows,
        overwrite=overwrite,
        runtime=runtime,
        device=device,
        threads=threads,
        progress=TerminalProgress(),
    )
    if as_json:
        show_json(found.to_json())
    else:
        click.echo(found.view().text())
