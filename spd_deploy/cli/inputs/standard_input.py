"""Standard input that can be waited for and given up: a pipe may be silent for hours."""

import io
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from spd_deploy.domain.errors import Interrupted

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LOOK_EVERY_S = 0.2


class StoppableInput(io.RawIOBase):
    """The bytes of a pipe, a terminal or a file, until a signal comes.

    A read that blocks in a thread cannot be interrupted, and keeps the process from ending.
    """

    def __init__(self, raw: io.FileIO, stopped: Callable[[], bool]) -> None:
        self._raw, self._stopped = raw, stopped

    def readable(self) -> bool:
        """True, as ``io.BufferedReader`` asks for."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        """The bytes that have come, as soon as there are any; 0 at the end.

        Raises:
            Interrupted: a signal came while nothing did.
        """
        while not select.select([self._raw], [], [], _LOOK_EVERY_S)[0]:
            if self._stopped():
                raise Interrupted("stopped by a signal", fix="run the command again")
        return self._raw.readinto(buffer)


def standard_input(stopped: Callable[[], bool]) -> BinaryIO:
    """The bytes of standard input, of which none was read; in a test it may be in memory."""
    raw = getattr(sys.stdin.buffer, "raw", None)
    if not isinstance(raw, io.FileIO):
        return sys.stdin.buffer
    return cast("BinaryIO", io.BufferedReader(StoppableInput(raw, stopped)))
