"""Tokenises the texts of requests: short ones at once, long ones in threads and in turns.

A request with long texts has a few thousand characters tokenised at a time, and then waits for the
others that wait. Texts that are cut beforehand have a thread of their own: of some, such as a
megabyte of spaces, all must be read to know where the first token ends. A text of a page is
therefore not held up by requests of megabytes.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from serve.pace import AveragePace
from serve.texts import Text, errors_at, tokens_of
from spd_deploy.domain.text import Side, Tokenizer, Tokens

if TYPE_CHECKING:
    from tokenizers import Encoding

T = TypeVar("T")

# Below this, texts are tokenised faster than a thread can be asked to do it.
_SHORT_CHARS = 1_000
# Characters that a request has tokenised at a time; a text is never divided.
_TURN_CHARS = 8_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenised:
    """The rows of a request, and the seconds that it waited for a thread and was tokenised."""

    rows: Sequence[Tokens]
    queue_s: float = 0.0
    tok_s: float = 0.0


class Tokenising:
    """A tokenizer and its threads."""

    def __init__(self, tokenizer: Tokenizer, *, threads: int, max_chars: int) -> None:
        """Of a text, about ``max_chars`` characters are read."""
        self._tokenizer, self._max_chars = tokenizer, max_chars
        self._threads = ThreadPoolExecutor(threads, "spd-tokenise")
        self._thread_of_cut = ThreadPoolExecutor(1, "spd-tokenise-cut")
        self._pace = AveragePace()

    @property
    def seconds_per_char(self) -> float:
        """Seconds that a character takes; 0 before the first long text."""
        return self._pace.seconds

    def seconds_of(self, chars: int) -> float:
        """Seconds to tokenise so many characters, without a wait."""
        return chars * self._pace.seconds

    def close(self) -> None:
        """End the threads; texts that wait are not tokenised."""
        for threads in (self._threads, self._thread_of_cut):
            threads.shutdown(wait=False, cancel_futures=True)

    async def tokens_of(
        self, texts: Sequence[Text], side: Side | None, reader: Tokenizer
    ) -> Tokenised:
        """The rows of the texts, cut at ``side`` or in windows, as ``reader`` reads them.

        Raises:
            Refusal: a text is empty for the tokenizer, or not Unicode.
        """
        max_chars = self._max_chars * most_windows(reader)

        def row_of(text: Text) -> Tokens:
            return tokens_of(reader, text, max_chars=max_chars, side=side)

        start = time.perf_counter()
        if sum(text.chars for text in texts) <= _SHORT_CHARS:
            rows = _each(row_of, texts)
            return Tokenised(rows=rows, tok_s=time.perf_counter() - start)
        rows, tok_s = await self._in_turns(row_of, texts, max_chars)
        return Tokenised(rows=rows, queue_s=time.perf_counter() - start - tok_s, tok_s=tok_s)

    async def encodings_of(
        self, texts: Sequence[Text], *, special_tokens: bool
    ) -> "list[Encoding]":
        """The tokens of each text with their places in it; none is cut.

        Raises:
            Refusal: a text is not Unicode.
        """

        def encoding_of(text: Text) -> "Encoding":
            return self._tokenizer.encoding(text.text, special_tokens=special_tokens)

        found, _ = await self._in_turns(encoding_of, texts, self._max_chars)
        return found

    async def _in_turns(
        self, make: Callable[[Text], T], texts: Sequence[Text], max_chars: int
    ) -> tuple[list[T], float]:
        """The results of ``make`` for each text, and the seconds that they took.

        Of a text, about ``max_chars`` characters are read.
        """
        loop, made, total_s = asyncio.get_running_loop(), [], 0.0

        def run(some: Sequence[Text]) -> tuple[list[T], float]:
            start = time.perf_counter()
            return _each(make, some), time.perf_counter() - start

        for some in _turns_of(texts):
            is_cut = any(len(part) > max_chars for text in some for part in text.parts)
            threads = self._thread_of_cut if is_cut else self._threads
            more, seconds = await loop.run_in_executor(threads, run, some)
            self._pace.learn(sum(min(text.chars, max_chars) for text in some), seconds)
            made += more
            total_s += seconds
        return made, total_s


def most_windows(reader: Tokenizer) -> int:
    """How many windows a text has at most; 1 where long texts are cut."""
    return 1 if reader.windows is None else reader.windows.most


def _each(make: Callable[[Text], T], texts: Sequence[Text]) -> list[T]:
    """The results of ``make`` for each text; a refusal tells the place of its text."""
    made = []
    for text in texts:
        with errors_at(text.where):
            made.append(make(text))
    return made


def _turns_of(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """The texts in groups of a few thousand characters, or of one longer text."""
    group: list[Text] = []
    chars = 0
    for text in texts:
        if group and chars + text.chars > _TURN_CHARS:
            yield group
            group, chars = [], 0
        group.append(text)
        chars += text.chars
    yield group
