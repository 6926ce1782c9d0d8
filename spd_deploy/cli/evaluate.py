"""``spd evaluate``: the official metrics of an artefact or checkpoint on a split."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.api import evaluation as api
from spd_deploy.cli.options.common import (
    THREADS,
    default_of,
    device_option,
    finite,
    json_option,
    revision_option,
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
  spd evaluate artefacts/mrpc --task mrpc --data GLUE/MRPC --split dev
  spd evaluate artefacts/reviews --data reviews.csv --json"""
)
@click.argument("path", type=click.Path(path_type=Path))
@revision_option
@click.option(
    "--task",
    help="Name of the task that the data belongs to. Needed only for a model that does not say its "
    "own task, such as a folder from the Hugging Face hub.  [default: the model's task]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the task's train and dev file, or one labelled file, as spd train takes "
    "them. For the file that the model was trained on, only its dev rows are scored: the "
    "tenth that training left out.  [default: the Hugging Face hub for GLUE tasks; built-in tasks "
    "need none]",
)
@click.option(
    "--split",
    default=default_of(api.evaluate, "split"),
    show_default=True,
    help="Which rows to score: dev or train. A file without a dev file beside it is scored whole, "
    "unless the model was trained on it.",
)
@skip_broken_rows_option
@click.option(
    "--abstain-below",
    type=click.FloatRange(0.0, 1.0),
    callback=finite,
    metavar="SCORE",
    help="A score for the table of coverage: how many rows are answered, and how well, if answers "
    "with a smaller score are left out. spd calibrate stores one in the model.  [default: the "
    "usual scores alone]",
)
@long_text_options
@runtime_option
@device_option
@THREADS
@json_option("the result")
def evaluate(
    path: Path,
    revision: str | None,
    task: str | None,
    data: Path | None,
    split: str,
    skip_broken_rows: bool,
    abstain_below: float | None,
    long_texts: str | None,
    window_stride: int | None,
    window_pooling: str | None,
    max_windows: int | None,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a model on labelled data with the official metrics of its task.

    PATH is the folder of an artefact or of a checkpoint, a model on the Hugging Face hub as
    OWNER/NAME@REVISION, or an address such as s3://BUCKET/MODEL. A checkpoint runs in PyTorch.
    """
    found = api.evaluate(
        path,
        revision=revision,
        task=task,
        data=data,
        split=split,
        skip_broken_rows=skip_broken_rows,
        abstain_below=abstain_below,
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
    scores = [(m, "-" if v is None else f"{v:.4f}") for m, v in found.scores.items()]
    rows = [*scores, *found.calibration_rows()]
    width = max(20, *(len(name) for name, _ in rows))
    for name, shown in rows:
        click.echo(f"{name:<{width}} {shown}")
    click.echo(
        f"{found.task}, {found.split}: {found.rows} rows in {found.seconds:.1f} s by "
        f"{found.runtime}"
    )
    if found.coverage:
        table = found.coverage_table()
        show_table("", table.columns, table.rows)
