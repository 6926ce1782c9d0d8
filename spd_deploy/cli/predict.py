"""``spd predict``: texts in, labels out; one line for each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.console import TerminalProgress
from spd_deploy.cli.options import device_option, runtime_option
from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.files import refuse_existing, write_text
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.tasks import Columns, Task

if TYPE_CHECKING:
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Device
    from spd_train.data.examples import Example
    from spd_train.data.rows import DataRow


@click.command(
    epilog="""\b
Examples:
  spd predict artefacts/opinions "The film was not boring."
  spd predict artefacts/mrpc "He bought a car." "A car was bought by him."
  spd predict artefacts/mrpc --input pairs.jsonl --output answers.jsonl

\b
A line of pairs.jsonl:
  {"text": "He bought a car.", "text_pair": "A car was bought by him."}
A line of answers.jsonl:
  {"label": "equivalent", "score": 0.93, "scores": {"equivalent": 0.93, ...}, "truncated": false}"""
)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    help="A .jsonl, .csv or .tsv file with the columns text and, for pairs, text_pair.",
)
@click.option("--text-column", help="Default: text, or the column the model was trained on.")
@click.option("--pair-column", help="Default: text_pair, or the column the model was trained on.")
@click.option("--output", type=click.Path(path_type=Path), help="A file for the answers, as JSONL.")
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
    text_column: str | None,
    pair_column: str | None,
    output: Path | None,
    overwrite: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
) -> None:
    """Classify texts given on the command line, or a file of them.

    For a task of pairs, the texts on the command line are taken two by two.
    """
    from spd_deploy.sessions.open import open_path

    if texts and input_file is not None:
        raise click.UsageError("both texts and --input are given; leave one out")
    if not texts and input_file is None:
        raise click.UsageError("give texts, or a file of them with --input")
    if output is not None:
        refuse_existing(output, overwrite=overwrite)
    opened = open_path(path, asked=RUNTIME_CHOICES[runtime], device=device, threads=threads)
    with opened.session:
        if input_file is None:
            examples = from_arguments(opened.task, texts)
        else:
            examples = from_file(opened.task, input_file, text_column, pair_column)
        answers = classify(opened, examples, TerminalProgress())
        ran = opened.session.description
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    if output is None:
        click.echo(lines, nl=False)
    else:
        write_text(output, lines)
        click.echo(f"{len(answers)} answers by {ran} in {output}", err=True)


def from_arguments(task: Task, texts: Sequence[str]) -> list["Example"]:
    """Examples from the command line, two texts each for a task of pairs."""
    from spd_train.data.examples import Example

    for text in texts:
        if not text.strip():
            raise BadData("a text is empty", fix="give some text")
    if not task.has_pair:
        return [Example(text=text) for text in texts]
    if len(texts) % 2:
        raise BadData(
            f"{task.name} compares two texts", got=f"{len(texts)} texts", fix="give them in pairs"
        )
    return [Example(text=a, pair=b) for a, b in zip(texts[::2], texts[1::2], strict=True)]


def from_file(
    task: Task, file: Path, text_column: str | None, pair_column: str | None
) -> list["Example"]:
    """Examples from a file, one a row; every row is read before any is answered."""
    from spd_train.data.examples import examples_from_rows
    from spd_train.data.folders import in_glue_layout
    from spd_train.data.rows import read_rows

    rows = list(read_rows(file, quotes=not in_glue_layout(task, file)))
    if not rows:
        raise BadData(f"{file} holds no rows", fix="check the file")
    columns = _columns(task, rows[0], text_column, pair_column)
    return examples_from_rows(task, columns, rows)


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
    found = []
    for row, logits_C in zip(rows, logits_BC, strict=True):
        answers = answers_of(opened.task, logits_C)
        found.append(
            {
                "label": answers[0].label,
                "score": answers[0].score,
                "scores": {answer.label: answer.score for answer in answers},
                "truncated": row.dropped > 0,
            }
        )
    return found


def _columns(
    task: Task, row: "DataRow", text_column: str | None, pair_column: str | None
) -> Columns:
    """The columns asked for, else the server's names where the file has them, else the task's."""
    ours = Columns(text="text", pair="text_pair" if task.has_pair else None)
    known = ours if "text" in row.names else task.columns
    return Columns(
        text=text_column or known.text,
        pair=(pair_column or known.pair) if task.has_pair else None,
    )
