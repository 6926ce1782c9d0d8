"""The answers of ``spd predict`` as JSON Lines, CSV or TSV, each beside the fields of its row."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from spd_deploy.api.predictions import TextPrediction

KINDS = ("jsonl", "csv", "tsv")
_DELIMITERS = {"csv": ",", "tsv": "\t"}
# Of a score; more are not alike from one batch, machine or runtime to another.
_DIGITS = 6
_PREFIX = "predicted_"

# A row's fields by their names, or by position in a file without a header.
Fields = Mapping[str, Any] | Mapping[str | int, Any]


def kind_of_output(output: Path | None, requested: str | None, read: str) -> str:
    """How answers are written: as requested, by the name of the file, or as what was ``read``.

    Raises:
        click.UsageError: the name of the file promises a kind that is not written.
    """
    if requested is not None:
        return requested
    if output is None or output == Path("-"):
        return read
    suffix = output.suffix.lower().removeprefix(".")
    if suffix and suffix not in KINDS:
        raise click.UsageError(
            f"answers are not written as .{suffix}: name --output {', '.join(KINDS)}, or say "
            "--output-format"
        )
    return suffix or "jsonl"


def answer_fields(answer: TextPrediction) -> dict[str, Any]:
    """What is written of one row, its scores rounded; a regression has no label."""
    fields = answer.to_json()
    if answer.label is not None:
        fields["scores"] = {label: _rounded(score) for label, score in answer.scores.items()}
    return {**fields, "score": _rounded(answer.score)}


def text_of_answers(
    answers: Sequence[Mapping[str, Any]], rows: Sequence[Fields], labels: Sequence[str], kind: str
) -> tuple[str, dict[str, str]]:
    """All answers, each after the fields of its row; in a table each label has a column.

    A field of the answer that some row has too gets ``predicted_`` before its name.

    Returns:
        The text, and what each field of the answers is called in it.
    """
    if kind != "jsonl":
        answers = [_flat(answer, labels) for answer in answers]
    names = _renamed(answers, rows)
    whole = [
        {**{str(k): v for k, v in row.items()}, **{names[k]: v for k, v in answer.items()}}
        for row, answer in zip(rows, answers, strict=True)
    ]
    if kind == "jsonl":
        return "".join(map(_line, whole)), names
    columns = [*dict.fromkeys(str(name) for row in rows for name in row), *names.values()]
    return _table(whole, columns, _DELIMITERS[kind]), names


def _renamed(answers: Iterable[Mapping[str, Any]], rows: Iterable[Fields]) -> dict[str, str]:
    """What each field of the answers is called beside the fields of the rows."""
    taken = {str(name) for row in rows for name in row}
    found = {}
    for name in dict.fromkeys(name for answer in answers for name in answer):
        free = name
        while free in taken:
            free = _PREFIX + free
        found[name] = free
    return found


def _flat(answer: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The answer with a column for the score of each label, in the model's order."""
    scores = answer.get("scores", {})
    plain = {name: value for name, value in answer.items() if name != "scores"}
    return {**plain, **{f"score_{label}": scores[label] for label in labels if label in scores}}


def _line(value: Mapping[str, Any]) -> str:
    """One line of JSON; what JSON has no kind for, such as a date of a Parquet file, is text."""
    return json.dumps(value, ensure_ascii=False, default=str) + "\n"


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], delimiter: str) -> str:
    """Rows under column names; a row has nothing where it lacks a field."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """A value as a table has it: true, false, lists and objects as JSON has them."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _rounded(score: float) -> float:
    """To the digits that mean something."""
    return float(f"{score:.{_DIGITS}g}")
