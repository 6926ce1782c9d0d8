"""Admission control: counts queued and running work, and refuses a request when it is too much.

A request is admitted with all its texts or not at all. Its slot is held by a ``with`` block, from
before tokenising until the answer is made or the client disconnects. All of it runs in the event
loop's thread, so it needs no lock.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.domain.errors import Overloaded, TextTooLong

_MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Load:
    """An amount of work: texts or pairs, and their tokens without padding."""

    items: int = 0
    tokens: int = 0

    def __add__(self, other: "Load") -> "Load":
        return Load(self.items + other.items, self.tokens + other.tokens)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.items - other.items, self.tokens - other.tokens)


def has_room(held: Load, added: Load, limit: Load) -> bool:
    """Whether ``held`` and ``added`` are within ``limit``; an idle server admits any request."""
    if held.items == 0:
        return True
    both = held + added
    return both.items <= limit.items and both.tokens <= limit.tokens


def retry_after_s(tokens: int, seconds_per_token: float) -> int:
    """Seconds until ``tokens`` have been run, as a whole number from 1 to 60."""
    return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(tokens * seconds_per_token)))


class Admission:
    """The admitted work, and the limit on it."""

    def __init__(
        self, limit: Load, *, max_row_tokens: int, seconds_per_token: Callable[[], float]
    ) -> None:
        """Begin with no work; ``seconds_per_token`` is asked for the model's present pace."""
        self._limit = limit
        self._max_row_tokens = max_row_tokens
        self._seconds_per_token = seconds_per_token
        self.held = Load()

    @contextlib.contextmanager
    def slot_for(self, items: int) -> Iterator["Slot"]:
        """Hold a slot for the texts of one request until the block ends.

        Raises:
            Overloaded: the queue has no room for so many texts.
        """
        slot = Slot(self)
        try:
            slot.add(Load(items=items))
            yield slot
        finally:
            self.held -= slot.load

    def refuse_overload(self, others: Load, wanted: Load) -> None:
        """Refuse a request that wants so much beside what the other requests hold.

        Raises:
            Overloaded: the work of the other requests leaves no room.
        """
        if not has_room(others, wanted, self._limit):
            seconds = retry_after_s(self.held.tokens, self._seconds_per_token())
            raise Overloaded(
                "the queue is full", fix=f"try again in {seconds} s", retry_after_s=seconds
            )

    def refuse_too_long(self, length: int) -> None:
        """Refuse a row that is longer than any batch.

        Raises:
            TextTooLong: the row has more tokens than ``max_batch_tokens``.
        """
        if length > self._max_row_tokens:
            raise TextTooLong(
                "the text has more tokens than this server runs at once",
                got=f"{length}, {self._max_row_tokens} allowed",
                fix="send a shorter text, or start the server with a larger --max-batch-tokens",
            )


class Slot:
    """The work that one request has reserved."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.load = Load()

    def add(self, added: Load) -> None:
        """Reserve more.

        Raises:
            Overloaded: there is no room; the slot keeps its size.
        """
        others, wanted = self._admission.held - self.load, self.load + added
        self._admission.refuse_overload(others, wanted)
        self.load, self._admission.held = wanted, others + wanted

    def measure(self, lengths: Sequence[int]) -> None:
        """Reserve the tokens of texts that are now tokenised, given their lengths.

        Raises:
            Overloaded: there is no room for that many tokens.
        """
        self.add(Load(tokens=sum(lengths)))
