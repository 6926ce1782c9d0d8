"""Admission control: counts queued and running work, and refuses a request when it is too much.

A request is admitted with all its texts or not at all. Its slot is held by a ``with`` block, from
before tokenising until the answer is made or the client disconnects. Until a text is tokenised, its
characters are counted, and its tokens are estimated from them. All of it runs in the event loop's
thread, so it needs no lock.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from serve.retry_after import overloaded
from spd_deploy.domain.errors import TextTooLong

# Of English text with a vocabulary of 30,000 words.
_CHARS_PER_TOKEN = 4
_SPECIAL_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Load:
    """An amount of work.

    Attributes:
        items: texts or pairs.
        tokens: their tokens without padding; an estimate until they are tokenised.
        chars: characters that are not tokenised yet.
    """

    items: int = 0
    tokens: int = 0
    chars: int = 0

    def __add__(self, other: "Load") -> "Load":
        return Load(self.items + other.items, self.tokens + other.tokens, self.chars + other.chars)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.items - other.items, self.tokens - other.tokens, self.chars - other.chars)

    def less_an_eighth(self) -> "Load":
        """Seven eighths of it; a limit below eight stays as it is."""
        return self - Load(self.items // 8, self.tokens // 8, self.chars // 8)


def has_room(held: Load, added: Load, limit: Load) -> bool:
    """Whether ``held`` and ``added`` are within ``limit``; an idle server admits any request.

    Requests of several texts leave an eighth of the limit to those of a single one.
    """
    if held.items == 0:
        return True
    both = held + added
    if added.items > 1:
        limit = limit.less_an_eighth()
    return both.items <= limit.items and both.tokens <= limit.tokens and both.chars <= limit.chars


def load_of(sizes: Iterable[int], *, max_tokens: int) -> Load:
    """The work of texts of so many characters, of a model that reads at most ``max_tokens``."""
    load = Load()
    for chars in sizes:
        tokens = min(max_tokens, chars // _CHARS_PER_TOKEN + _SPECIAL_TOKENS)
        load += Load(1, tokens, chars)
    return load


class Admission:
    """The admitted work, and the limit on it."""

    def __init__(
        self,
        limit: Load,
        *,
        max_row_tokens: int,
        seconds_per_token: Callable[[], float],
        seconds_per_char: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Begin with no work.

        ``seconds_per_token`` is that of a token without padding, in batches with the usual padding.
        It and that of a character in the tokenizer are asked each time.
        """
        self._limit = limit
        self._max_row_tokens = max_row_tokens
        self._seconds_per_token, self._seconds_per_char = seconds_per_token, seconds_per_char
        self.held = Load()

    @property
    def drain_time_s(self) -> float:
        """Seconds until all admitted work is done."""
        chars_s = self.held.chars * self._seconds_per_char()
        return chars_s + self.held.tokens * self._seconds_per_token()

    @contextlib.contextmanager
    def slot_for(self, load: Load) -> Iterator["Slot"]:
        """Hold a slot for the texts of one request until the block ends.

        Raises:
            Overloaded: the queue has no room for them.
        """
        slot = Slot(self)
        try:
            slot.add(load)
            yield slot
        finally:
            self.held -= slot.load

    def refuse_overload(self, others: Load, wanted: Load) -> None:
        """Refuse a request that wants so much beside what the other requests hold.

        Raises:
            Overloaded: the work of the other requests leaves no room.
        """
        if not has_room(others, wanted, self._limit):
            raise overloaded("the queue is full", free_in_s=self.drain_time_s)

    def refuse_full(self) -> None:
        """Refuse any request where there is no room for one more text.

        Raises:
            Overloaded: the queue is full.
        """
        self.refuse_overload(self.held, Load(items=1))

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
        """Replace the estimate by the rows that texts have become, given their lengths in tokens.

        A text in windows is several rows.

        Raises:
            Overloaded: there is no room for that many tokens.
        """
        self.add(Load(len(lengths), sum(lengths)) - self.load)
