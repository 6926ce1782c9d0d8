"""Classifies the texts of a request: check, admit, tokenise, run, and read the logits.

It serves every protocol. All of it runs in the event loop, but for tokenising long texts.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serve.admission import Admission, Load, load_of
from serve.batching import BatchResult, slowest_of
from serve.deadline import NO_DEADLINE, Deadline
from serve.engine import Engine
from serve.metrics import Metrics
from serve.open_model import ServedModel
from serve.request_record import ModelWork, begin_work
from serve.settings import ServeSettings
from serve.text_windows import (
    AS_SERVED,
    AskedWindows,
    reader_of,
    refuse_too_many_windows,
    results_of_texts,
    settings_of_model,
    windows_of,
)
from serve.texts import (
    Text,
    errors_at,
    refuse_blank,
    refuse_too_many_characters,
    refuse_truncated,
    refuse_wrong_arity,
)
from serve.tokenising import Tokenised, Tokenising, most_windows
from spd_deploy.domain.answers import Answer, answers_of, decided_of
from spd_deploy.domain.decision import Decided
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Side, Tokenizer, Tokens

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class Classified:
    """The answer to one text, labels best first, with its tokens read and its tokens cut off.

    Tokens are read in ``windows``, which share some; one for a text that fits or is cut.

    ``logits_C`` has the model's outputs in their order; ``decided`` says which labels are given.
    """

    answers: list[Answer]
    decided: Decided
    logits_C: NDArray[np.float32]
    n_tokens: int
    dropped_tokens: int
    windows: int = 1

    @property
    def given(self) -> list[str]:
        """The labels that are given: one, several of a multi-label model, none if it abstains."""
        return [self._names[i] for i in self.decided.given]

    @property
    def label(self) -> str | None:
        """The label that is given, the best of several; None where the model abstains."""
        return None if self.decided.abstained else self._names[self.decided.best]

    @property
    def _names(self) -> dict[int, str]:
        """The labels by their place among the model's outputs."""
        return {answer.index: answer.label for answer in self.answers}


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds of a request.

    Attributes:
        tok_queue_s: waiting for a tokeniser thread.
        tok_s: tokenising.
        queue_s: the queue of its slowest row.
        run_s: the batch of that row.
    """

    tok_queue_s: float
    tok_s: float
    queue_s: float
    run_s: float

    def server_timing(self) -> str:
        """The value of the header ``Server-Timing``: milliseconds with three decimals."""
        stages = {
            "tok_queue": self.tok_queue_s,
            "tok": self.tok_s,
            "queue": self.queue_s,
            "run": self.run_s,
        }
        return ", ".join(f"{name};dur={1000 * value:.3f}" for name, value in stages.items())


# Gets the texts of an answered request, its answers, the task that they are of, and how long texts
# were asked to be read.
AfterAnswer = Callable[[Sequence[Text], Sequence[Classified], Task, AskedWindows], None]


class Classifier:
    """An open model with its engine, its admission control and its tokeniser threads."""

    def __init__(self, served: ServedModel, settings: ServeSettings, metrics: Metrics) -> None:
        """Start the engine; :meth:`close` ends it.

        Raises:
            BadSetting: the server's window stride is not smaller than the model's windows.
        """
        settings = settings_of_model(settings, served.task.windows)
        pairs = served.takes_pairs
        self._reader = served.tokenizer.in_windows(windows_of(settings, AS_SERVED), pairs=pairs)
        if settings.window_stride is not None:  # a request may ask for windows with it
            windows = windows_of(settings, AskedWindows(long_texts="windows"))
            served.tokenizer.in_windows(windows, pairs=pairs)
        self.served = served
        self.in_use = 0  # requests that this version still has to answer
        self.after_answer: AfterAnswer | None = None
        self._settings, self._metrics = settings, metrics.of_model(served.name)
        self.engine = Engine(
            served.session,
            served.tokenizer.pad,
            outputs=served.task.outputs,
            known_good=served.tokenizer.encode("A text that every model has scores for."),
            max_padded_tokens=settings.max_batch_tokens,
            max_rows=settings.max_batch_rows,
            max_batch_s=settings.max_batch_s,
            stall_timeout_s=settings.stall_timeout_s,
            metrics=self._metrics,
        )
        self.admission = Admission(
            Load(settings.max_queue_items, settings.max_queue_tokens, settings.max_queue_chars),
            max_row_tokens=settings.max_batch_tokens,
            seconds_per_token=lambda: self.engine.seconds_per_token,
            seconds_per_char=lambda: self._tokenising.seconds_per_char,
        )
        self._tokenising = Tokenising(
            served.tokenizer, threads=settings.tokenizer_threads, max_chars=self._max_chars
        )
        self._metrics.watch_queue(
            lambda: self.admission.held.items,
            lambda: self.admission.held.tokens,
            lambda: self.admission.held.chars,
        )

    async def classify(
        self,
        texts: Sequence[Text],
        *,
        truncate: bool,
        raw_scores: bool,
        request_id: str,
        side: Side | None = None,
        asked: AskedWindows = AS_SERVED,
        deadline: Deadline = NO_DEADLINE,
    ) -> tuple[list[Classified], Timing]:
        """The answers to the texts in their order, and where the time went.

        Cancelling the call frees the request's slot and removes its rows from the queue. The log
        names a row that fails by its ``request_id``. Texts are cut at ``side``, by default where
        training cut them; or they are read in windows, as the request or the server says.

        Raises:
            Refusal: a text is empty, too long or of the wrong kind for the model; the queue is
                full; the model failed on one of the texts; or the deadline cannot be met.
        """
        reader = self._reader_for(asked)
        for text in texts:
            with errors_at(text.where):
                self._refuse_unfit(text, reader, truncate=truncate)
        load = self._load_of(texts, reader)
        with self.used(), self.admission.slot_for(load) as slot:
            deadline.refuse_within(self._completion_time_s(load))
            work = begin_work(self.served.name, len(texts))
            async with deadline.limit():
                tokenised = await self._tokenising.tokens_of(texts, side, reader)
                rows = tokenised.rows
                work.tokenised(rows, tokenised.tok_s, queue_s=tokenised.queue_s)
                self._metrics.texts_tokenised(
                    tokenised.tok_s,
                    queue_s=tokenised.queue_s,
                    truncated=sum(row.dropped > 0 for row in rows),
                    windows=sum(len(row.windows) for row in rows if row.overflowing),
                )
                places = [text.where for text in texts]
                self._refuse_rows(places, rows, truncate=truncate)
                refuse_too_many_windows(rows, self._settings)
                slot.measure([len(window) for row in rows for window in row.windows])
                ran = await self._run(places, rows, request_id)
        return self._answered(places, tokenised, ran, work, raw_scores=raw_scores)

    async def classify_rows(
        self, rows: Sequence[Tokens], *, request_id: str, deadline: Deadline = NO_DEADLINE
    ) -> tuple[list[Classified], Timing]:
        """The answers to rows of token ids, which run as they are.

        Raises:
            Refusal: a row is too long, the queue is full, the model failed on one of the rows, or
                the deadline cannot be met.
        """
        places = [f"row {i}" for i in range(len(rows))]
        self._refuse_rows(places, rows, truncate=True)
        load = Load(len(rows), sum(map(len, rows)))
        with self.used(), self.admission.slot_for(load):
            deadline.refuse_within(self._completion_time_s(load))
            work = begin_work(self.served.name, len(rows))
            work.tokenised(rows, 0.0)
            async with deadline.limit():
                ran = await self._run(places, rows, request_id)
        return self._answered(places, Tokenised(rows=rows), ran, work, raw_scores=False)

    async def encodings_of(
        self, texts: Sequence[Text], *, special_tokens: bool
    ) -> "list[Encoding]":
        """The tokens of each text with their places in it; none is cut.

        Raises:
            Refusal: a text is empty or too long to be tokenised whole, or the queue is full.
        """
        for text in texts:
            with errors_at(text.where):
                refuse_blank(text)
                refuse_too_many_characters(text, max_chars=self._max_chars)
        with self.used(), self.admission.slot_for(self._load_of(texts, self.served.tokenizer)):
            return await self._tokenising.encodings_of(texts, special_tokens=special_tokens)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Count a request as one of this version's: it is not closed before the block ends."""
        self.in_use += 1
        try:
            yield
        finally:
            self.in_use -= 1

    def close(self, timeout_s: float) -> None:
        """Stop the engine and refuse the rows that wait."""
        self._tokenising.close()
        self.engine.close(timeout_s)

    @property
    def _max_chars(self) -> int:
        """A text with more characters is tokenised from its beginning only."""
        return self._settings.max_chars_per_token * self.served.tokenizer.max_tokens

    def _reader_for(self, asked: AskedWindows) -> Tokenizer:
        """The tokenizer that reads long texts as a request asks.

        Raises:
            MalformedRequest: what it asks does not go together, or not with the model.
        """
        if asked == AS_SERVED:
            return self._reader
        pairs = self.served.takes_pairs
        return reader_of(self.served.tokenizer, self._settings, asked, pairs=pairs)

    def _refuse_unfit(self, text: Text, reader: Tokenizer, *, truncate: bool) -> None:
        """Refuse a text that this model cannot take, before it is tokenised."""
        refuse_wrong_arity(text, self.served.takes)
        if not truncate:
            refuse_too_many_characters(text, max_chars=self._max_chars * most_windows(reader))

    def _load_of(self, texts: Sequence[Text], reader: Tokenizer) -> Load:
        """The work of texts that are not tokenised; what is cut off beforehand is none."""
        most = most_windows(reader)
        chars = most * self._max_chars
        sizes = (sum(min(len(part), chars) for part in text.parts) for text in texts)
        return load_of(sizes, max_tokens=most * reader.max_tokens)

    def _completion_time_s(self, load: Load) -> float:
        """Seconds until work that comes now would be done."""
        return self._tokenising.seconds_of(load.chars) + self.engine.wait_s(load.tokens)

    def _refuse_rows(
        self, places: Sequence[str], rows: Sequence[Tokens], *, truncate: bool
    ) -> None:
        """Refuse a row that is longer than any batch, and a cut row if ``truncate`` is false."""
        for where, row in zip(places, rows, strict=True):
            with errors_at(where):
                self.admission.refuse_too_long(len(row))
                if not truncate:
                    refuse_truncated(row, self.served.tokenizer.max_tokens)

    async def _run(
        self, places: Sequence[str], rows: Sequence[Tokens], request_id: str
    ) -> list[BatchResult]:
        """The results of all rows, or the failure of the first row that failed.

        Each window of a text is a row for the engine; the text has one result of them.
        """
        windows = [window for row in rows for window in row.windows]
        futures = self.engine.submit(windows, request_id)
        try:
            ran = [await _result_of(future) for future in futures]
            return results_of_texts(rows, ran)
        except EngineFailed as err:
            texts = zip(places, rows, strict=True)
            of_windows = [where for where, row in texts for _ in row.windows]
            with errors_at(_where_of(err, of_windows, futures)):
                raise
        finally:
            for future in futures:  # removes the rows that still wait
                future.cancel()

    def _answered(
        self,
        places: Sequence[str],
        tokenised: Tokenised,
        ran: Sequence[BatchResult],
        work: ModelWork,
        *,
        raw_scores: bool,
    ) -> tuple[list[Classified], Timing]:
        """The logits of all rows as labels and scores, and where the time went."""
        slowest = slowest_of(ran)
        self._metrics.request_waited(slowest.queue_s)
        work.ran(slowest.queue_s, slowest.run_s)
        timing = Timing(
            tok_queue_s=tokenised.queue_s,
            tok_s=tokenised.tok_s,
            queue_s=slowest.queue_s,
            run_s=slowest.run_s,
        )
        answered = zip(places, tokenised.rows, ran, strict=True)
        return [self._classified(*one, raw_scores=raw_scores) for one in answered], timing

    def _classified(
        self, where: str, row: Tokens, ran: BatchResult, *, raw_scores: bool
    ) -> Classified:
        """One row's logits as labels and scores."""
        with errors_at(where):
            answers = answers_of(self.served.task, ran.logits_C, raw=raw_scores)
        return Classified(
            answers=answers,
            decided=decided_of(self.served.task, ran.logits_C),
            logits_C=ran.logits_C,
            n_tokens=row.n_read,
            dropped_tokens=row.dropped,
            windows=len(row.windows),
        )


async def _result_of(future: "Future[BatchResult]") -> BatchResult:
    """Await a row. Rows of one batch end together, so the event loop is mostly woken once.

    ``asyncio.wrap_future`` would do the same in three times the calls.
    """
    if not future.done():
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(_wake, ended))
        await ended
    return future.result()


def _wake(ended: "asyncio.Future[None]") -> None:
    """End the wait, unless its request was cancelled meanwhile."""
    if not ended.done():
        ended.set_result(None)


def _where_of(
    err: EngineFailed, places: Sequence[str], futures: Sequence["Future[BatchResult]"]
) -> str:
    """The position in the request of the row whose future ended with ``err``."""
    ended = (future.done() and not future.cancelled() for future in futures)
    failed = zip(places, futures, ended, strict=True)
    return next(where for where, one, has_ended in failed if has_ended and one.exception() is err)
