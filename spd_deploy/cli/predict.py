"""``spd predict``: one answer with label and scores for each text."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from spd_deploy.api.loading import load
from spd_deploy.api.predicting import opened_for_file
from spd_deploy.api.values import read_windows
from spd_deploy.cli.inputs.standard_input import standard_input
from spd_deploy.cli.inputs.text_inputs import STANDARD, from_arguments
from spd_deploy.cli.long_run.signals import stop_on_signals
from spd_deploy.cli.options.common import THREADS, device_option, ray_option, runtime_option
from spd_deploy.cli.options.long_text_options import long_text_options
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.domain.files import refuse_existing_file, write_bytes
from spd_deploy.scale.answer_columns import AnswerColumns, answer_fields, flat_fields
from spd_deploy.scale.answer_formats import KINDS, TEXT_KINDS, AnswerFormat, format_of, text_of
from spd_deploy.scale.file_request import FileRequest

if TYPE_CHECKING:
    from spd_deploy.api.loading import Model
    from spd_deploy.domain.long_texts import LongTextChoice
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Device

_STOPS = "stops and keeps the rows that are written; a second Ctrl-C stops at once"


@click.command(
    epilog="""\b
Examples:
  spd predict artefacts/opinions "The film was not boring."
  spd predict artefacts/mrpc "He bought a car." "A car was bought by him."
  spd predict artefacts/mrpc --input pairs.jsonl --output answers.jsonl
  spd predict artefacts/reviews --input reviews.csv --output scored.csv --skip-broken-rows
  spd predict artefacts/reviews --input rows.parquet --output scored.parquet --resume
  spd predict artefacts/reviews --input long.csv --output scored.csv --long-texts windows
  spd predict artefacts/reviews --input rows.parquet --output scored.parquet --ray 10.0.0.1:6379
  zcat reviews.csv.gz | spd predict artefacts/reviews --input - --input-format csv > scored.csv

\b
A line of pairs.jsonl:
  {"id": 7, "text": "He bought a car.", "text_pair": "A car was bought by him."}
A line of answers.jsonl, which begins with the fields of its row:
  {"id": 7, "text": ..., "label": "equivalent", "score": 0.93, "scores": {...}, "truncated": false}
The columns that are added to a CSV or TSV file:
  label,score,truncated,score_not_equivalent,score_equivalent"""
)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    help="File of texts to classify: .jsonl, .csv, .tsv or .parquet; the text formats also as .gz, "
    ".bz2, .xz or .zst. - reads standard input.  [default: the TEXTS]",
)
@click.option(
    "--input-format",
    type=click.Choice(TEXT_KINDS),
    help="Format of standard input, with --input -.  [default: jsonl]",
)
@click.option(
    "--text-column",
    help="Column of the file that holds the text.  [default: text, or the column that the model "
    "was trained on]",
)
@click.option(
    "--pair-column",
    help="Column of the file that holds the second text of a pair.  [default: text_pair, or the "
    "column that the model was trained on]",
)
@click.option(
    "--skip-broken-rows",
    is_flag=True,
    help="Leave rows without a text out of the answers and count them, instead of stopping at the "
    "first.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write the answers to: .jsonl, .csv, .tsv (also .gz, .bz2, .xz or .zst) or "
    ".parquet. It appears when all rows are answered; until then they are in a folder beside it, "
    "with .partial behind its name.  [default: standard output]",
)
@click.option(
    "--output-format",
    type=click.Choice(KINDS),
    help="Format of the answers.  [default: by the name of --output; on standard output, the "
    "format of the input]",
)
@long_text_options
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace the file in --output, and begin again where one is unfinished.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with an unfinished --output, after a crash or Ctrl-C. The answers are those of a "
    "run that was never stopped. Begins with the first row where nothing is unfinished.",
)
@runtime_option
@device_option
@THREADS
@ray_option(
    "With --input: run the model on the machines of a Ray cluster, as often as it has GPUs, or "
    "cores for --threads, which are 1 by default then. The file is read and written here."
)
def predict(
    path: Path,
    texts: tuple[str, ...],
    input_file: Path | None,
    input_format: str | None,
    text_column: str | None,
    pair_column: str | None,
    skip_broken_rows: bool,
    output: Path | None,
    output_format: str | None,
    long_texts: str | None,
    window_stride: int | None,
    window_pooling: str | None,
    max_windows: int | None,
    overwrite: bool,
    resume: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    ray: str | None,
) -> None:
    """Classify texts from the command line, or a file of any length.

    PATH is the folder of an artefact or of a checkpoint, or an address of one such as
    hf://OWNER/NAME@REVISION or s3://BUCKET/MODEL. If the model reads pairs, the texts on the
    command line are taken two by two. The answers have the order of the rows, and each repeats the
    fields of its row. A field of the answer that rows have too gets predicted_ before its name.
    """
    _refuse_sources(
        texts, input_file, input_format, skip_broken_rows=skip_broken_rows, resume=resume, ray=ray
    )
    windows = read_windows(long_texts, window_stride, window_pooling, max_windows)
    file = None if output is None or output == STANDARD else output
    format_ = format_of(file, output_format, _read_kind(input_file, input_format))
    if input_file is None and format_.kind == "parquet":
        raise click.UsageError("Parquet goes with --input; name --output .jsonl, .csv or .tsv")
    if input_file is not None:
        request = FileRequest(
            input=input_file,
            output=file,
            format=format_,
            stdin_kind=input_format or "jsonl",
            text_column=text_column,
            pair_column=pair_column,
            skip_broken_rows=skip_broken_rows,
            overwrite=overwrite,
            resume=resume,
            windows=windows,
        )
    if file is not None:
        refuse_existing_file(file, overwrite=overwrite)
    if input_file is None:
        with load(path, runtime=runtime, device=device, threads=threads) as model:
            _predict_texts(model, texts, windows, file, format_)
        return
    progress, answers = TerminalProgress(), sys.stdout.buffer
    with (
        # Ray prints what happens to its processes, and knows standard output only.
        contextlib.nullcontext() if ray is None else contextlib.redirect_stdout(sys.stderr),
        opened_for_file(
            path, runtime=runtime, device=device, threads=threads, ray=ray, progress=progress
        ) as opened,
    ):
        _predict_file(opened, request, progress, answers)


def _predict_texts(
    model: "Model",
    texts: Sequence[str],
    windows: "LongTextChoice",
    file: Path | None,
    format_: AnswerFormat,
) -> None:
    """Answer the texts of the command line."""
    from spd_train.data.rows import DataRow

    examples = from_arguments(model.task, texts)
    found = model.classify(examples, progress=TerminalProgress(), windows=windows)
    answers = [answer_fields(one) for one in found]
    if format_.tabular:
        answers = [flat_fields(answer, model.labels, model.task.separator) for answer in answers]
    rows = [DataRow(file=Path("texts.jsonl"), line=i + 1) for i in range(len(answers))]
    columns = AnswerColumns.of(rows, answers[0], tabular=format_.tabular)
    content = text_of(format_, columns, rows, answers, first=True)
    if file is None:
        click.echo(content.decode(), nl=False)
    else:
        write_bytes(file, content)
        click.echo(f"{len(answers)} answers by {model.runtime} in {file}", err=True)


def _predict_file(
    opened: "OpenedModel", request: FileRequest, progress: TerminalProgress, answers: BinaryIO
) -> None:
    """Answer the rows of a file, and say what it cost."""
    from spd_deploy.scale.predict_file import Streams, predict_file

    with stop_on_signals(_STOPS) as stopped:
        cost = predict_file(
            opened,
            request,
            progress=progress,
            streams=Streams(input=standard_input(stopped), output=answers),
            stopped=stopped,
        )
    click.echo(str(cost), err=True)
    if request.output is not None:
        runtime = opened.session.description
        click.echo(f"{cost.rows} answers by {runtime} in {request.output}", err=True)


def _refuse_sources(
    texts: Sequence[str],
    input_file: Path | None,
    input_format: str | None,
    *,
    skip_broken_rows: bool,
    resume: bool,
    ray: str | None,
) -> None:
    """Refuse texts from two sources or none, and options that go with another source.

    Raises:
        UsageError: with the option to leave out or to give.
    """
    if texts and input_file is not None:
        raise click.UsageError("both texts and --input are given; leave one out")
    if ray is not None and input_file is None:
        raise click.UsageError(f"--ray goes with --input; its address was read as {ray!r}")
    if not texts and input_file is None:
        raise click.UsageError("give texts, or a file of them with --input")
    if input_format is not None and input_file != STANDARD:
        raise click.UsageError("--input-format goes with --input -; a file's name says what it is")
    if skip_broken_rows and input_file is None:
        raise click.UsageError("--skip-broken-rows goes with --input")
    if resume and input_file is None:
        raise click.UsageError("--resume goes with --input")


def _read_kind(file: Path | None, input_format: str | None) -> str:
    """The format of the input, which the answers have too where nothing else is said."""
    from spd_train.data.formats import kind_of

    if file is None or file == STANDARD:
        return input_format or "jsonl"
    return kind_of(file)
