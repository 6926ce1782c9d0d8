"""Who may come in: a count of the work in the house, and a refusal at once when it is full.

All of a request's texts are let in or none. A place is held from before the text is tokenised
until its answer is made, or until its client leaves, by a ``with`` block that cannot forget it.
Used from the event loop's thread only, so it needs no lock.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.domain.errors import Overloaded, TextTooLong

_MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Load:
    """An amount of work."""

    items: int = 0
    tokens: int = 0

    def __add__(self, other: "Load") -> "Load":
        """Both."""
        return Load(self.items + other.items, self.tokens + other.tokens)

    def __sub__(self, other: "Load") -> "Load":
        """One without the other."""
        return Load(self.items - other.items, self.tokens - other.tokens)


def has_room(held: Load, asked: Load, limit: Load) -> bool:
    """Whether ``asked`` fits beside ``held``; an idle server takes any request."""
    both = held + asked
    return held.items == 0 or (both.items <= limit.items and both.tokens <= limit.tokens)


def retry_after_s(tokens: int, seconds_per_token: float) -> int:
    """Whole seconds until ``tokens`` will have been run, at least 1 and at most a minute."""
    return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(tokens * seconds_per_token)))


class Admission:
    """The work in the house, and the limit on it."""

    def __init__(
        self, limit: Load, *, max_row_tokens: int, seconds_per_token: Callable[[], float]
    ) -> None:
        """Nothing is in the house; ``seconds_per_token`` tells how fast it leaves."""
        self._limit = limit
        self._max_row_tokens = max_row_tokens
        self._seconds_per_token = seconds_per_token
        self.held = Load()

    @contextlib.contextmanager
    def place_for(self, items: int) -> Iterator["Slot"]:
        """Hold places for the texts of one request until the block ends.

        Raises:
            Overloaded: there are not enough.
        """
        place = Slot(self)
        try:
            place.add(Load(items=items))
            yield place
        finally:
            self.held -= place.load

    def refuse_overload(self, own: Load, asked: Load) -> None:
        """Refuse what has no room beside the work of the others."""
        if not has_room(self.held - own, own + asked, self._limit):
            seconds = retry_after_s(self.held.tokens, self._seconds_per_token())
            raise Overloaded(
                "the queue is full", fix=f"try again in {seconds} s", retry_after_s=seconds
            )

    def refuse_wide(self, length: int) -> None:
        """Refuse a row that no batch could hold.

        Raises:
            TextTooLong: it has more tokens than any batch may have.
        """
        if length > self._max_row_tokens:
            raise TextTooLong(
                "the text has more tokens than this server runs at once",
                got=f"{length}, {self._max_row_tokens} allowed",
                fix="send a shorter text, or start the server with a larger --max-batch-tokens",
            )


class Slot:
    """What one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.load = Load()

    def add(self, asked: Load) -> None:
        """Hold more, or raise ``Overloaded`` and hold what was held."""
        self._admission.refuse_overload(self.load, asked)
        self.load += asked
        self._admission.held += asked

    def measure(self, lengths: Sequence[int]) -> None:
        """The texts are tokenised: count their tokens.

        Raises:
            Overloaded: there is no room for that many tokens.
        """
        self.add(Load(tokens=sum(lengths)))
