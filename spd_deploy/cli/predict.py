"""``spd predict``: one answer with label and scores for each text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.api.loading import load
from spd_deploy.cli.answers import (
    KINDS,
    Fields,
    answer_fields,
    kind_of_output,
    text_of_answers,
)
from spd_deploy.cli.console import TerminalProgress
from spd_deploy.cli.options import THREADS, device_option, runtime_option
from spd_deploy.cli.texts import STANDARD, from_arguments, rows_from_file
from spd_deploy.domain.files import refuse_existing, write_text
from spd_deploy.domain.text import EncodesOnce

if TYPE_CHECKING:
    from spd_deploy.sessions.protocol import Device
    from spd_train.data.examples import Example


@click.command(
    epilog="""\b
Examples:
  spd predict artefacts/opinions "The film was not boring."
  spd predict artefacts/mrpc "He bought a car." "A car was bought by him."
  spd predict artefacts/mrpc --input pairs.jsonl --output answers.jsonl
  spd predict artefacts/reviews --input reviews.csv --output scored.csv --skip-broken-rows
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
    type=click.Choice(KINDS),
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
    help="File to write the answers to: .jsonl, .csv or .tsv. It appears whole or not at all.  "
    "[default: standard output]",
)
@click.option(
    "--output-format",
    type=click.Choice(KINDS),
    help="Format of the answers.  [default: by the name of --output; on standard output, the "
    "format of the input]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file in --output.")
@runtime_option
@device_option
@THREADS
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
    overwrite: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
) -> None:
    """Classify texts from the command line, or from a file.

    PATH is the folder of an artefact or of a checkpoint. If the model reads pairs, the texts on the
    command line are taken two by two. The answers have the order of the rows, and each repeats the
    fields of its row.
    """
    _refuse_sources(texts, input_file, input_format, skip_broken_rows=skip_broken_rows)
    kind = kind_of_output(output, output_format, _read_kind(input_file, input_format))
    file = None if output is None or output == STANDARD else output
    if file is not None:
        refuse_existing(file, overwrite=overwrite)
    progress = TerminalProgress()
    with load(path, runtime=runtime, device=device, threads=threads) as model:
        encoder = EncodesOnce(model.tokenizer)
        if input_file is None:
            rows: list[tuple[Fields, Example]] = [
                ({}, example) for example in from_arguments(model.task, texts)
            ]
        else:
            found = rows_from_file(
                model.task,
                input_file,
                text_column,
                pair_column,
                skip_broken=skip_broken_rows,
                note=progress.note,
                kind=input_format or "jsonl",
                open_tokenizer=lambda: encoder,
            )
            rows = [(row.fields, example) for row, example in found]
        examples = [example for _, example in rows]
        answers = model.classify(examples, progress=progress, encoder=encoder)
    fields = [row for row, _ in rows]
    text, names = text_of_answers(list(map(answer_fields, answers)), fields, model.labels, kind)
    if other := {name: ours for name, ours in names.items() if ours != name}:
        progress.note(
            f"rows have fields of their own called {', '.join(other)}: the answer's are "
            f"{', '.join(other.values())}"
        )
    if file is None:
        click.echo(text, nl=False)
    else:
        write_text(file, text)
        click.echo(f"{len(answers)} answers by {model.runtime} in {file}", err=True)


def _refuse_sources(
    texts: Sequence[str],
    input_file: Path | None,
    input_format: str | None,
    *,
    skip_broken_rows: bool,
) -> None:
    """Refuse texts from two sources or none, and options that go with another source.

    Raises:
        UsageError: with the option to leave out or to give.
    """
    if texts and input_file is not None:
        raise click.UsageError("both texts and --input are given; leave one out")
    if not texts and input_file is None:
        raise click.UsageError("give texts, or a file of them with --input")
    if input_format is not None and input_file != STANDARD:
        raise click.UsageError("--input-format goes with --input -; a file's name says what it is")
    if skip_broken_rows and input_file is None:
        raise click.UsageError("--skip-broken-rows goes with --input")


def _read_kind(file: Path | None, input_format: str | None) -> str:
    """The format of the input, which the answers have too: a table, or else JSON Lines."""
    if file is None or file == STANDARD:
        return input_format or "jsonl"
    suffixes = {suffix.lower().removeprefix(".") for suffix in file.suffixes[-2:]}
    return next((kind for kind in KINDS if kind in suffixes), "jsonl")
