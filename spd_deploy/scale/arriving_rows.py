"""Rows of a pipe in groups: full ones while they come fast, else what has come.

A program that writes a row and waits for its answer gets it without closing the pipe.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

PAUSE_S = 0.1
# Rows are read ahead up to so many groups.
_GROUPS_AHEAD = 8


def groups_of(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """The rows in groups of ``size``; only the last may be smaller."""
    source = iter(rows)
    while group := list(islice(source, size)):
        yield group


def arriving_groups(rows: Iterable[T], size: int, *, pause_s: float = PAUSE_S) -> Iterator[list[T]]:
    """The rows in groups of ``size``; a smaller one, and an empty one, where they pause.

    Args:
        rows: read in a thread, since reading them may wait for hours.
        size: of a full group.
        pause_s: seconds in which a group has to fill.

    Raises:
        Exception: what reading the rows raised, behind the rows before it.
    """
    arrivals = _Arrivals[T](size)
    thread = threading.Thread(target=arrivals.read, args=(rows,), name="spd-rows", daemon=True)
    thread.start()
    try:
        while (group := arrivals.take(pause_s)) is not None:
            if group:
                yield group
                if len(group) < size and not arrivals.ended:
                    yield []
    finally:
        arrivals.close()


class _Arrivals(Generic[T]):
    """Rows that were read and not taken yet."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: deque[T] = deque()
        self._changed = threading.Condition()
        self.ended = self._closed = False
        self._error: BaseException | None = None

    def read(self, rows: Iterable[T]) -> None:
        """Read all rows, but not far ahead; this is the thread's function."""
        try:
            for row in rows:
                self._rows.append(row)
                if len(self._rows) >= self._size and not self._wait_for_room():
                    return
        except BaseException as err:  # noqa: BLE001  # it is raised where the rows are taken
            self._error = err
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def take(self, pause_s: float) -> list[T] | None:
        """A full group, or what has come within ``pause_s``; None behind the last row."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or len(self._rows) >= self._size, pause_s)
            ended = self.ended  # no row comes after this
            group = [self._rows.popleft() for _ in range(min(self._size, len(self._rows)))]
            self._changed.notify_all()
        if group or not ended:
            return group
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Read no more; a read that waits for the pipe ends with its next row."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Tell that a group is full, and wait while many rows are ahead; False once closed."""
        with self._changed:
            self._changed.notify_all()
            most = _GROUPS_AHEAD * self._size
            self._changed.wait_for(lambda: self._closed or len(self._rows) < most)
            return not self._closed
