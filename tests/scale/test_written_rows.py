"""What is written of a row is the row, in every format, or an error that names it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadData, BadSetting, NotWritten
from spd_deploy.scale.answer_columns import AnswerColumns
from spd_deploy.scale.answer_formats import AnswerFormat, text_of
from spd_deploy.scale.parquet_answers import arrow_of
from spd_deploy.scale.partial_output import PartialOutput, RunState, partial_output
from spd_train.data.rows import DataRow

ANSWER = {"label": "yes", "score": 0.5}
OF_THE_RUN = {"input": "rows.jsonl"}


def rows_of(values: Sequence[Mapping[str | int, Any]]) -> list[DataRow]:
    return [DataRow(file=Path("in.jsonl"), line=i + 1, fields=v) for i, v in enumerate(values)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_a_table_is_read_back_as_it_was_written(texts: list[str]) -> None:
    """Delimiters, quotes and every kind of line end stay in their field."""
    rows = rows_of([{"text": text, "id": "1"} for text in texts])
    columns = AnswerColumns(of_rows=("text", "id"), names={"label": "label"}, tabular=True)
    for kind, delimiter in (("csv", ","), ("tsv", "\t")):
        written = text_of(
            AnswerFormat(kind=kind), columns, rows, [{"label": "yes"}] * len(rows), first=True
        ).decode()

        found = list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter))
        assert found == [["text", "id", "label"], *([text, "1", "yes"] for text in texts)]


def test_a_column_that_occurs_twice_is_refused() -> None:
    """One of the two would be lost."""
    header = ("x", "x", "text")
    row = DataRow(file=Path("in.csv"), line=2, header=header, fields={"x": "2", "text": "a"})

    with pytest.raises(BadData, match=r"in\.csv: column 'x' occurs twice"):
        AnswerColumns.of([row], ANSWER, tabular=True)


LATER = [
    ([1, 2], 3.5),
    ([1, None], 2**40 + 0.5),
    ([{"a": 1}], {"a": 1, "b": 2}),
    ([[{"a": 1}]], [{"a": 1}, {"b": 2}]),
    ([1.5], 2**60 + 1),
    (["a"], 1),
]


@pytest.mark.parametrize(("first", "later"), LATER)
def test_a_value_that_parquet_would_change_is_refused_by_row(first: list[Any], later: Any) -> None:
    """A column has the type of its first chunk; what does not fit it whole is an error."""
    rows = rows_of([{"k": value} for value in first])
    columns = AnswerColumns.of(rows, ANSWER, tabular=True)
    _, schema = arrow_of(columns, rows, [ANSWER] * len(rows), own=None, schema=None)
    more = rows_of([{"k": first[0]}, {"k": later}])

    with pytest.raises(BadData, match=r"line 2: the field 'k' has another type"):
        arrow_of(columns, more, [ANSWER] * 2, own=None, schema=schema)


def test_a_value_that_parquet_keeps_is_written() -> None:
    """An object that lacks a field of its column gets none, and a whole number may be a float."""
    rows = rows_of([{"k": {"a": 1.5, "b": [1]}}])
    columns = AnswerColumns.of(rows, ANSWER, tabular=True)
    _, schema = arrow_of(columns, rows, [ANSWER], own=None, schema=None)

    content, _ = arrow_of(columns, rows_of([{"k": {"a": 2}}]), [ANSWER], own=None, schema=schema)

    assert pa.ipc.open_stream(content).read_all()["k"].to_pylist() == [{"a": 2.0, "b": None}]


@pytest.mark.parametrize("value", [{}, [{}], {"a": {}}])
def test_objects_without_fields_are_refused_before_the_end(value: Any) -> None:
    """Parquet has no such type, which must not be found when all rows are answered."""
    rows = rows_of([{"k": value}])

    with pytest.raises(BadData, match="'k' holds objects without a field"):
        arrow_of(
            AnswerColumns.of(rows, ANSWER, tabular=True), rows, [ANSWER], own=None, schema=None
        )


def begun(output: Path, **how: bool) -> Any:
    return partial_output(
        output,
        OF_THE_RUN,
        **{"overwrite": False, "resume": False, **how},
        note=lambda _: None,
    )


def append(partial: PartialOutput, content: bytes) -> None:
    partial.append(content, RunState(read=1, written=1))


def test_a_record_never_outlives_its_rows(tmp_path: Path) -> None:
    """A run that begins again and is stopped at once leaves nothing for --resume to continue."""
    output = tmp_path / "x.csv"
    with pytest.raises(KeyboardInterrupt), begun(output) as first:
        append(first, b"a,1\n")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), begun(output, overwrite=True):
        raise KeyboardInterrupt

    with begun(output, resume=True) as partial:
        assert partial.state.written == 0
        append(partial, b"b,2\n")
        partial.finish(None)

    assert output.read_bytes() == b"b,2\n"


def test_rows_that_are_missing_are_not_filled_with_zeros(tmp_path: Path) -> None:
    """A rows file that is shorter than recorded is refused."""
    output = tmp_path / "x.csv"
    with pytest.raises(KeyboardInterrupt), begun(output) as first:
        append(first, b"a,1\n")
        raise KeyboardInterrupt
    first.rows_file.write_bytes(b"a")

    with pytest.raises(BadSetting, match="1 bytes, 4 are recorded"), begun(output, resume=True):
        pass


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 1, "written": "x"}', '{"schema": 9}'])
def test_a_damaged_record_is_begun_again_as_the_error_says(tmp_path: Path, damage: str) -> None:
    """The error says --overwrite, and that works."""
    output = tmp_path / "x.csv"
    with pytest.raises(KeyboardInterrupt), begun(output) as first:
        append(first, b"a,1\n")
        raise KeyboardInterrupt
    first.rows_file.with_name("progress.json").write_text(damage)

    for resume in (False, True):
        with pytest.raises(BadSetting, match="--overwrite"), begun(output, resume=resume):
            pass
    with begun(output, overwrite=True) as partial:
        append(partial, b"b,2\n")
        partial.finish(None)

    assert output.read_bytes() == b"b,2\n"


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    """Not even by --overwrite: it may hold anything."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()

    with (
        pytest.raises(NotWritten, match="out is a folder"),
        begun(tmp_path / "out", overwrite=True),
    ):
        pass

    assert (tmp_path / "out" / "precious").exists()
