"""``spd predict``: texts in, labels out; one line for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.answers import (
    KINDS,
    Fields,
    answer_fields,
    kind_of_output,
    text_of_answers,
)
from spd_deploy.cli.console import TerminalProgress
from spd_deploy.cli.options import device_option, runtime_option
from spd_deploy.cli.texts import STANDARD, from_arguments, rows_from_file
from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.files import refuse_existing, write_text
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.sessions.open import OpenedModel
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
    help="A file (.jsonl, .csv, .tsv, .parquet) with the columns text and, for pairs, text_pair; "
    "- for standard input.",
)
@click.option(
    "--input-format",
    type=click.Choice(KINDS),
    help="What standard input is.  [default: jsonl]",
)
@click.option("--text-column", help="Default: text, or the column the model was trained on.")
@click.option("--pair-column", help="Default: text_pair, or the column the model was trained on.")
@click.option(
    "--skip-broken-rows",
    is_flag=True,
    help="Leave rows without a usable text out of the answers, and say how many, instead of "
    "stopping at the first.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="A file for the answers: .jsonl, .csv or .tsv. It appears whole or not at all. "
    "[default: standard output]",
)
@click.option(
    "--output-format",
    type=click.Choice(KINDS),
    help="How answers are written.  [default: by the name of --output; on standard output as the "
    "input]",
)
@click.option("--overwrite", is_flag=True, help="Replace --output if it exists.")
@runtime_option
@device_option
@click.option(
    "--threads", type=click.IntRange(min=1), help="Default: the cores this process may use."
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
    overwrite: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
) -> None:
    """Classify texts given on the command line, or a file of them.

    For a task of pairs, the texts on the command line are taken two by two. Answers come in the
    order of the rows, each with all fields of its row.
    """
    from spd_deploy.sessions.open import open_path

    if texts and input_file is not None:
        raise click.UsageError("both texts and --input are given; leave one out")
    if not texts and input_file is None:
        raise click.UsageError("give texts, or a file of them with --input")
    if input_format is not None and input_file != STANDARD:
        raise click.UsageError("--input-format goes with --input -; a file's name says what it is")
    if skip_broken_rows and input_file is None:
        raise click.UsageError("--skip-broken-rows goes with --input")
    kind = kind_of_output(output, output_format, _read_kind(input_file, input_format))
    file = None if output is None or output == STANDARD else output
    if file is not None:
        refuse_existing(file, overwrite=overwrite)
    progress = TerminalProgress()
    opened = open_path(
        path, runtime_choice=RUNTIME_CHOICES[runtime], device=device, threads=threads
    )
    with opened.session:
        rows: list[tuple[Fields, Example]]
        if input_file is None:
            rows = [({}, example) for example in from_arguments(opened.task, texts)]
        else:
            found = rows_from_file(
                opened.task,
                input_file,
                text_column,
                pair_column,
                skip_broken=skip_broken_rows,
                note=progress.note,
                kind=input_format or "jsonl",
                open_tokenizer=lambda: opened.tokenizer,
            )
            rows = [(row.fields, example) for row, example in found]
        answers = classify(opened, [example for _, example in rows], progress)
        ran = opened.session.description
    fields = [row for row, _ in rows]
    text, names = text_of_answers(answers, fields, opened.task.labels, kind)
    if other := {name: ours for name, ours in names.items() if ours != name}:
        progress.note(
            f"rows have fields of their own called {', '.join(other)}: the answer's are "
            f"{', '.join(other.values())}"
        )
    if file is None:
        click.echo(text, nl=False)
    else:
        write_text(file, text)
        click.echo(f"{len(answers)} answers by {ran} in {file}", err=True)


def _read_kind(file: Path | None, input_format: str | None) -> str:
    """The kind of answers that fits the input: a table for a table, else JSON Lines."""
    if file is None or file == STANDARD:
        return input_format or "jsonl"
    suffixes = {suffix.lower().removeprefix(".") for suffix in file.suffixes[-2:]}
    return next((kind for kind in KINDS if kind in suffixes), "jsonl")


def classify(
    opened: "OpenedModel", examples: Sequence["Example"], progress: Progress
) -> list[dict[str, Any]]:
    """One answer for each example, in order."""
    from spd_deploy.sessions.offline import logits_of

    rows = [opened.tokenizer.encode(e.text, e.pair) for e in examples]
    for number, row in enumerate(rows, start=1):
        if row.empty:
            raise BadData(
                f"text {number} of {len(rows)} is empty",
                got="only characters that the tokenizer drops",
                fix="give some text, or leave it out",
            )
    with progress.stage("predict", len(rows)) as advance:
        logits_BC = logits_of(opened.session, opened.tokenizer, rows, advance)
    return [
        answer_fields(opened.task, answers_of(opened.task, logits_C), truncated=row.dropped > 0)
        for row, logits_C in zip(rows, logits_BC, strict=True)
    ]
