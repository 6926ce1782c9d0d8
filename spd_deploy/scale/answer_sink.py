"""Answered chunks to a file that grows, or to standard output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spd_deploy.api.predictions import prediction_of
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.tasks import Columns, Task
from spd_deploy.scale.answer_columns import AnswerColumns, answer_fields, flat_fields
from spd_deploy.scale.answer_formats import AnswerFormat, text_of
from spd_deploy.scale.chunks import Chunk
from spd_deploy.scale.parquet_answers import ParquetRows, arrow_of, schema_of
from spd_deploy.scale.partial_output import PartialOutput, RunState
from spd_deploy.scale.run_chunks import Logits

if TYPE_CHECKING:
    import pyarrow


class AnswerSink:
    """Turns logits into rows of the output, chunk by chunk.

    Args:
        task: says how logits become labels and scores.
        format_: of the output.
        state: how far earlier runs are.
        append: takes the bytes of each chunk, and how far the run is with it.
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
                of_rows=tuple(state.columns["of_rows"]), names=names, tabular=format_.tabular
            )

    def write(
        self, chunk: Chunk, logits_BC: Logits, texts: Columns | None, seconds: Callable[[], float]
    ) -> None:
        """Write one chunk.

        Args:
            chunk: the rows.
            logits_BC: the model's, in the order of the rows.
            texts: the columns that texts were read from.
            seconds: gives the time spent until now, in this and in earlier runs.

        Raises:
            BadData: a row does not fit the columns of the first chunk.
            EngineFailed: the model gave no number for a row.
            NotWritten: the disk is full.
        """
        answers = self._answers(chunk, logits_BC)
        if self._columns is None:
            columns = AnswerColumns.of(chunk.rows, answers[0], tabular=self._format.tabular)
            if columns.renamed:
                self._note(
                    f"rows have fields of their own called {', '.join(columns.renamed)}: the "
                    f"answer's are {', '.join(columns.renamed.values())}"
                )
            self._columns = columns
        else:
            self._columns.refuse_other(chunk.rows)
        content = self._content(self._columns, chunk, answers)
        before = self.state
        self.state = replace(
            before,
            read=chunk.read,
            written=before.written + len(chunk.rows),
            size=before.size + len(content),
            seconds=seconds(),
            tokens=before.tokens + sum(row.n_read for row in chunk.tokens),
            windows=before.windows + self._count(chunk),
            truncated=before.truncated + sum(row.dropped > 0 for row in chunk.tokens),
            broken=chunk.broken.kinds,
            columns={
                "of_rows": self._columns.of_rows,
                "names": self._columns.names,
                "texts": None if texts is None else [texts.text, texts.pair],
            },
        )
        self._append(content, self.state)

    def _count(self, chunk: Chunk) -> int:
        """How many windows the texts were read in; 0 where long texts are cut."""
        return 0 if self._windows is None else sum(len(row.windows) for row in chunk.tokens)

    def _answers(self, chunk: Chunk, logits_BC: Logits) -> list[Mapping[str, Any]]:
        """The fields of each answer, by their own names.

        Raises:
            EngineFailed: with the row.
        """
        found: list[Mapping[str, Any]] = []
        for row, tokens, logits_C in zip(chunk.rows, chunk.tokens, logits_BC, strict=True):
            try:
                answer: Mapping[str, Any] = answer_fields(
                    prediction_of(self._task, logits_C, tokens, windows=self._windows)
                )
            except EngineFailed as err:
                raise EngineFailed(f"{row.place}: {err.what}", fix=err.fix) from err
            found.append(
                flat_fields(answer, self._task.labels, self._task.separator)
                if self._format.tabular
                else answer
            )
        return found

    def _content(
        self, columns: AnswerColumns, chunk: Chunk, answers: Sequence[Mapping[str, Any]]
    ) -> bytes:
        """The bytes of one chunk."""
        if self._format.kind != "parquet":
            first = self.state.written == 0
            return text_of(self._format, columns, chunk.rows, answers, first=first)
        own = None if self._passed is None else self._passed.take(chunk.rows)
        content, self._schema = arrow_of(columns, chunk.rows, answers, own=own, schema=self._schema)
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
