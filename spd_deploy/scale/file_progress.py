"""The progress through a file, in rows where their number is known, else in bytes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from spd_deploy.domain.progress import Advance, Progress

if TYPE_CHECKING:
    from spd_deploy.scale.chunks import Chunk

# Of the file, by its size in bytes: units in which it is a hundred steps long at least.
_UNITS = ((100_000_000, "MB", 1_000_000), (100_000, "kB", 1_000), (0, "bytes", 1))
_NOTE_EVERY_S = 10.0


class FileProgress:
    """Tells a listener of rows, their rate, and through it of the time that is left.

    The unit is chosen by the first chunk: it may hold the whole file.

    Args:
        progress: who listens.
        rows: of the file, where it says how many it has.
        size: bytes of the file; None for standard input.
        position: how many bytes of it were read.
        read: rows that an earlier run read.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        rows: int | None,
        size: int | None,
        position: Callable[[], int],
        read: int,
    ) -> None:
        self._progress = progress
        self._rows = None if rows is None else rows - read
        self._size = size
        self._position = position
        self._stage = contextlib.ExitStack()
        self._advance: Advance | None = None
        self._in_rows = True
        self._start_s = self._told_s = time.perf_counter()
        self._done = self._units = 0
        self._unit, self._unit_bytes = next(
            (name, count) for least, name, count in _UNITS if (size or 0) >= least
        )

    def begin(self, chunk: "Chunk") -> None:
        """A chunk begins; the first one opens the stage."""
        if self._advance is None:
            total, name = self._rows, "predict"
            if chunk.last:
                total = len(chunk.rows)
            elif total is None and self._size is not None:
                total, name = (
                    -(-self._size // self._unit_bytes),
                    f"predict, {self._unit} of the file",
                )
                self._in_rows = False
            if total is None:
                self._advance = self._tell
            else:
                self._advance = self._stage.enter_context(self._progress.stage(name, total))

    def advance(self, steps: int = 1, *, note: str | None = None) -> None:
        """Some rows are answered."""
        self._done += steps
        seconds = time.perf_counter() - self._start_s
        rate = f"{self._done / seconds:,.0f} rows/s" if seconds else None
        if not self._in_rows:
            units = self._position() // self._unit_bytes
            steps, self._units = units - self._units, units
        if self._advance is not None:
            self._advance(steps, note=rate)

    def _tell(self, steps: int = 1, *, note: str | None = None) -> None:
        """A line every ten seconds, where nobody knows how much is left."""
        now = time.perf_counter()
        if now - self._told_s >= _NOTE_EVERY_S:
            self._told_s = now
            self._progress.note(f"predict: {self._done:,} rows, {note}")

    def close(self) -> None:
        """Stop showing the bar; nothing if no chunk began."""
        self._stage.close()


@contextlib.contextmanager
def closing(progress: FileProgress) -> Iterator[FileProgress]:
    """End the stage with the block."""
    try:
        yield progress
    finally:
        progress.close()
