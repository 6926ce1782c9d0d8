"""Classify a file of any length: read, answer and write chunk by chunk, and resume after a kill.

cost = predict_file(model, request, progress=progress, streams=standard_streams())
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from spd_deploy.domain.errors import Interrupted, SpdError
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Columns
from spd_deploy.scale.answer_sink import AnswerSink, sink_for
from spd_deploy.scale.chunks import Chunk, chunks_of
from spd_deploy.scale.cost import FileCost
from spd_deploy.scale.file_progress import FileProgress, closing
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.parquet_answers import ParquetRows, row_count, write_parquet
from spd_deploy.scale.partial_output import PartialOutput, RunState, partial_output
from spd_deploy.scale.run_chunks import Logits, answered_by, run_chunks
from spd_deploy.scale.text_rows import STANDARD, RowReader

if TYPE_CHECKING:
    from spd_deploy.domain.text import Tokens
    from spd_deploy.sessions.open import OpenedModel
    from spd_train.data.rows import DataRow, Fault


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """Standard input and output, in bytes."""

    input: BinaryIO
    output: BinaryIO


def predict_file(
    opened: "OpenedModel",
    request: FileRequest,
    *,
    progress: Progress,
    streams: Streams,
    stopped: Callable[[], bool] = lambda: False,
) -> FileCost:
    """Classify every row; the output has their order.

    Args:
        opened: the model.
        request: what is read and written.
        progress: is shown how far it is.
        streams: what ``-`` stands for.
        stopped: whether to stop; what is written stays for ``resume``.

    Raises:
        SpdError: a broken row, a column that is missing, an output that exists or cannot be
            written, or an unfinished one of something else.
    """
    opened = opened.reading(request.windows)
    if request.output is None:
        with _read(request, streams) as stream:
            state = RunState()
            sink = AnswerSink(
                opened.task,
                request.format,
                state,
                lambda content, _: _print(streams.output, content),
                windows=opened.tokenizer.windows,
                note=progress.note,
            )
            _answer(opened, request, sink, stream, progress, stopped)
        return cost_of(sink.state)
    with (
        partial_output(
            request.output,
            request.belongs_to(opened),
            overwrite=request.overwrite,
            resume=request.resume,
            note=progress.note,
        ) as partial,
        _kept(partial, progress),
    ):
        if not partial.state.ended:
            with _read(request, streams) as stream:
                passed = ParquetRows(request.input) if _passes(request) else None
                sink = sink_for(
                    partial,
                    opened.task,
                    request.format,
                    windows=opened.tokenizer.windows,
                    passed=passed,
                    note=progress.note,
                )
                _answer(opened, request, sink, stream, progress, stopped)
        partial.finish(write_parquet if request.format.kind == "parquet" else None)
    return cost_of(partial.state)


def cost_of(state: RunState) -> FileCost:
    """The cost of the rows of a state."""
    return FileCost(
        rows=state.written,
        skipped=sum(count for count, _ in state.broken.values()),
        seconds=state.seconds,
        tokens=state.tokens,
        truncated=state.truncated,
        windows=state.windows,
    )


def _answer(
    opened: "OpenedModel",
    request: FileRequest,
    sink: AnswerSink,
    stream: BinaryIO,
    progress: Progress,
    stopped: Callable[[], bool],
) -> None:
    """Answer the rows that are left."""
    from spd_train.data.broken_rows import BrokenRows
    from spd_train.data.examples import no_usable_rows

    before = sink.state
    start_s = time.perf_counter()
    reader = _reader(opened, request, before)
    broken = BrokenRows.from_json(before.broken)
    chunks = chunks_of(
        islice(request.rows(opened.task, stream), before.read, None),
        lambda rows: _encoded(reader, opened, rows),
        skip_broken=request.skip_broken_rows,
        read=before.read,
        broken=broken,
        limits=request.limits,
        arriving=request.input == STANDARD,
    )
    shown = _progress(request, progress, stream, before)

    def advance(steps: int = 1, *, note: str | None = None) -> None:
        """Some rows are answered.

        Raises:
            Interrupted: a signal came.
        """
        shown.advance(steps)
        if stopped():
            again = ", with --resume" if request.resumable else ""
            raise Interrupted("stopped by a signal", fix=f"run the command again{again}")

    def write(chunk: Chunk, logits_BC: Logits) -> None:
        """Write one chunk, with the time that it took until now."""
        sink.write(
            chunk,
            logits_BC,
            reader.columns,
            lambda: before.seconds + time.perf_counter() - start_s,
        )

    with closing(shown):
        run_chunks(chunks, answered_by(opened, shown.begin, advance), write)
    if not sink.state.written:
        raise no_usable_rows(request.name)
    if broken.count:
        progress.note(str(broken))


def _encoded(
    reader: RowReader, opened: "OpenedModel", rows: Sequence["DataRow"]
) -> "list[Tokens | Fault]":
    """The token ids of each row, or why it has none."""
    from spd_train.data.examples import NO_TOKENS, Example

    read = [reader.read(row) for row in rows]
    sound = [one for one in read if isinstance(one, Example)]
    encoded = iter(opened.tokenizer.encode_all([(one.text, one.pair) for one in sound]))
    found: list[Tokens | Fault] = []
    for one in read:
        if isinstance(one, Example):
            tokens = next(encoded)
            found.append(NO_TOKENS if tokens.empty else tokens)
        else:
            found.append(one)
    return found


def _reader(opened: "OpenedModel", request: FileRequest, state: RunState) -> RowReader:
    """Finds the texts of rows, in the columns of earlier runs where there were some."""
    known = state.columns.get("texts")
    return RowReader(
        task=opened.task,
        text_column=request.text_column,
        pair_column=request.pair_column,
        columns=Columns(text=known[0], pair=known[1]) if known else None,
    )


def _passes(request: FileRequest) -> bool:
    """Whether rows are passed on as Arrow has them."""
    return request.format.kind == "parquet" and request.input.suffix.lower() == ".parquet"


def _progress(
    request: FileRequest, progress: Progress, stream: BinaryIO, state: RunState
) -> FileProgress:
    """The progress through the input, in rows of a Parquet file, else in bytes."""
    standard = request.input == STANDARD
    return FileProgress(
        progress,
        rows=row_count(request.input) if request.input.suffix.lower() == ".parquet" else None,
        size=None if standard else request.input.stat().st_size,
        position=lambda: 0 if standard else stream.tell(),
        read=state.read,
    )


@contextlib.contextmanager
def _read(request: FileRequest, streams: Streams) -> Iterator[BinaryIO]:
    """The bytes of the input."""
    from spd_train.data.text_stream import opened_file

    if request.input == STANDARD:
        yield streams.input
    else:
        with opened_file(request.input) as stream:
            yield stream


@contextlib.contextmanager
def _kept(partial: PartialOutput, progress: Progress) -> Iterator[None]:
    """Say after an error that what was written before it is kept."""
    try:
        yield
    except (SpdError, KeyboardInterrupt):
        if partial.state.written and partial.state.belongs_to:
            progress.note(
                f"{partial.state.written:,} rows are kept: the same command with --resume goes on "
                "behind them"
            )
        raise


def _print(stream: BinaryIO, content: bytes) -> None:
    """Write to standard output at once."""
    stream.write(content)
    stream.flush()
