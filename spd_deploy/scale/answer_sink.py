"""Answered windows to a file that grows, or to standard output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spd_deploy.api.predictions import prediction_of
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.tasks import Columns, Task
from spd_deploy.scale.answer_columns import AnswerColumns, answer_fields, flat_fields
from spd_deploy.scale.answer_formats import AnswerFormat, text_of
from spd_deploy.scale.parquet_answers import ParquetRows, arrow_of, schema_of
from spd_deploy.scale.partial_output import PartialOutput, RunState
from spd_deploy.scale.run_windows import Logits
from spd_deploy.scale.windows import Window

if TYPE_CHECKING:
    import pyarrow


class AnswerSink:
    """Turns logits into rows of the output, window by window.

    Args:
        task: says how logits become labels and scores.
        format_: of the output.
        state: how far earlier runs are.
        append: takes the bytes of each window, and how far the run is with it.
        windows: how long texts are read; None where they are cut.
        schema: of the rows that earlier runs wrote as Parquet.
        passed: the rows of a Parquet input, for an output of the same kind.
        note: is told which fields of the answer are renamed.
    """

    def __init__(
        self,
        task: Task,
        format_: AnswerFormat,
        state: RunState,
        append: Callable[[bytes, RunState], None],
        *,
        windows: TextWindows | None = None,
        schema: "pyarrow.Schema | None" = None,
        passed: ParquetRows | None = None,
        note: Callable[[str], None],
    ) -> None:
        self.state = state
        self._task = task
        self._format = format_
        self._append = append
        self._windows = windows
        self._schema = schema
        self._passed = passed
        self._note = note
        self._columns: AnswerColumns | None = None
        if names := state.columns.get("names"):
            self._columns = AnswerColumns(
                of_rows=tuple(state.columns["of_rows"]), names=names, table=format_.table
            )

    def write(
        self, window: Window, logits_BC: Logits, texts: Columns | None, seconds: Callable[[], float]
    ) -> None:
        """Write one window.

        Args:
            window: the rows.
            logits_BC: the model's, in the order of the rows.
            texts: the columns that texts were read from.
            seconds: gives the time spent until now, in this and in earlier runs.

        Raises:
            BadData: a row does not fit the columns of the first window.
            EngineFailed: the model gave no number for a row.
            NotWritten: the disk is full.
        """
        answers = self._answers(window, logits_BC)
        if self._columns is None:
            columns = AnswerColumns.of(window.rows, answers[0], table=self._format.table)
            if columns.renamed:
                self._note(
                    f"rows have fields of their own called {', '.join(columns.renamed)}: the "
                    f"answer's are {', '.join(columns.renamed.values())}"
                )
            self._columns = columns
        else:
            self._columns.refuse_other(window.rows)
        content = self._content(self._columns, window, answers)
        before = self.state
        self.state = replace(
            before,
            read=window.read,
            written=before.written + len(window.rows),
            size=before.size + len(content),
            seconds=seconds(),
            tokens=before.tokens + sum(row.n_read for row in window.tokens),
            windows=before.windows + self._count(window),
            truncated=before.truncated + sum(row.dropped > 0 for row in window.tokens),
            broken=window.broken.kinds,
            columns={
                "of_rows": self._columns.of_rows,
                "names": self._columns.names,
                "texts": None if texts is None else [texts.text, texts.pair],
            },
        )
        self._append(content, self.state)

    def _count(self, window: Window) -> int:
        """How many windows the texts were read in; 0 where long texts are cut."""
        return 0 if self._windows is None else sum(len(row.windows) for row in window.tokens)

    def _answers(self, window: Window, logits_BC: Logits) -> list[Mapping[str, Any]]:
        """The fields of each answer, by their own names.

        Raises:
            EngineFailed: with the row.
        """
        found: list[Mapping[str, Any]] = []
        for row, tokens, logits_C in zip(window.rows, window.tokens, logits_BC, strict=True):
            try:
                answer: Mapping[str, Any] = answer_fields(
                    prediction_of(self._task, logits_C, tokens, windows=self._windows)
                )
            except EngineFailed as err:
                raise EngineFailed(f"{row.place}: {err.what}", fix=err.fix) from err
            found.append(
                flat_fields(answer, self._task.labels, self._task.separator)
                if self._format.table
                else answer
            )
        return found

    def _content(
        self, columns: AnswerColumns, window: Window, answers: Sequence[Mapping[str, Any]]
    ) -> bytes:
        """The bytes of one window."""
        if self._format.kind != "parquet":
            first = self.state.written == 0
            return text_of(self._format, columns, window.rows, answers, first=first)
        own = None if self._passed is None else self._passed.take(window.rows)
        content, self._schema = arrow_of(
            columns, window.rows, answers, own=own, schema=self._schema
        )
        return content


def sink_for(
    partial: PartialOutput,
    task: Task,
    format_: AnswerFormat,
    *,
    windows: TextWindows | None,
    passed: ParquetRows | None,
    note: Callable[[str], None],
) -> AnswerSink:
    """The sink of a file, at the end of what earlier runs wrote."""
    resumed = format_.kind == "parquet" and partial.state.written
    return AnswerSink(
        task,
        format_,
        partial.state,
        partial.append,
        windows=windows,
        schema=schema_of(partial.rows_file) if resumed else None,
        passed=passed,
        note=note,
    )
