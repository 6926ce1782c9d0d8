"""Texts to answers, whatever protocol they came by: check, admit, tokenise, run, read the logits.

Made once a model is open; everything here but the tokenising runs on the event loop.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serve.admission import Admission, Load
from serve.engine import Engine
from serve.metrics import Metrics
from serve.model import Served
from serve.request_ids import current_request_id
from serve.settings import Settings
from serve.waiting import Ran
from spd_deploy.domain.answers import Answer, answers_of
from spd_deploy.domain.errors import EmptyText, MalformedRequest, TextTooLong
from spd_deploy.domain.text import Tokens

# Below this, texts are tokenised faster than a thread can be asked to do it.
_SHORT_CHARS = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One text, or a pair."""

    text: str
    pair: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Classified:
    """The answer to one text."""

    answers: list[Answer]
    n_tokens: int
    dropped_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Where a request's time went: its tokenising, and the wait and run of its slowest row."""

    tok_s: float
    queue_s: float
    run_s: float

    def server_timing(self) -> str:
        """The value of the header ``Server-Timing``: milliseconds, exact to the microsecond."""
        stages = (("tok", self.tok_s), ("queue", self.queue_s), ("run", self.run_s))
        return ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in stages)


class Classifier:
    """A model at work."""

    def __init__(self, served: Served, settings: Settings, metrics: Metrics) -> None:
        """Start the engine; :meth:`close` ends it."""
        self.served = served
        self._settings, self._metrics = settings, metrics
        self.engine = Engine(
            served.session,
            served.tokenizer.pad,
            outputs=served.task.outputs,
            known_good=served.tokenizer.encode("A text that every model has scores for."),
            max_padded_tokens=settings.max_batch_tokens,
            max_rows=settings.max_batch_rows,
            stall_timeout_s=settings.stall_timeout_s,
            metrics=metrics,
        )
        self.admission = Admission(
            Load(settings.max_queue_items, settings.max_queue_tokens),
            max_row_tokens=settings.max_batch_tokens,
            seconds_per_token=lambda: self.engine.seconds_per_token,
        )
        self._tokenisers = ThreadPoolExecutor(settings.tokenizer_threads, "spd-tokenise")
        metrics.watch_queue(lambda: self.admission.held.items, lambda: self.admission.held.tokens)

    async def classify(
        self, texts: Sequence[Text], *, truncate: bool, raw_scores: bool
    ) -> tuple[list[Classified], Timing]:
        """The answers to the texts, in their order.

        Cancelling it gives the texts' places back and takes their rows out of the queue.

        Raises:
            Refusal: a text is empty, too long or does not fit the model; the queue is full; or
                the model failed on one of the texts.
        """
        for text in texts:
            self._refuse_unfit(text)
        with self.admission.place_for(len(texts)) as place:
            start = time.perf_counter()
            rows = await self._tokens_of(texts)
            tok_s = time.perf_counter() - start
            self._metrics.texts_tokenised(tok_s, truncated=sum(row.dropped > 0 for row in rows))
            if not truncate:
                refuse_cut(rows, self.served.tokenizer.max_tokens)
            place.measure([len(row) for row in rows])
            ran = await self._run(rows)
        slowest = max(ran, key=lambda one: one.queue_s + one.run_s)
        self._metrics.request_waited(slowest.queue_s)
        timing = Timing(tok_s=tok_s, queue_s=slowest.queue_s, run_s=slowest.run_s)
        return [self._classified(*pair, raw_scores) for pair in zip(rows, ran, strict=True)], timing

    def close(self, timeout_s: float) -> None:
        """Stop; whatever still waits is refused."""
        self._tokenisers.shutdown(wait=False, cancel_futures=True)
        self.engine.close(timeout_s)

    def _refuse_unfit(self, text: Text) -> None:
        """Refuse what cannot be tokenised for this model, before time is spent on it."""
        refuse_form(text, self.served.takes)
        limit = self._settings.max_chars_per_token * self.served.tokenizer.max_tokens
        for part in (text.text, text.pair or ""):
            if len(part) > limit:
                raise TextTooLong(
                    "the text is too long to be tokenised",
                    got=f"{len(part)} characters, {limit} allowed",
                    fix=f"send its beginning; the model reads {self.served.tokenizer.max_tokens} "
                    "tokens",
                )

    async def _tokens_of(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text; long texts do not hold up the event loop."""
        if sum(len(text.text) + len(text.pair or "") for text in texts) <= _SHORT_CHARS:
            return self._tokenise(texts)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenisers, self._tokenise, texts)

    def _tokenise(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text."""
        return [self.served.tokenizer.encode(text.text, text.pair) for text in texts]

    async def _run(self, rows: Sequence[Tokens]) -> list[Ran]:
        """All rows' logits, or the first failure among them."""
        futures = [
            asyncio.wrap_future(future)
            for future in self.engine.submit(rows, current_request_id.get())
        ]
        try:
            return await asyncio.gather(*futures)
        finally:
            for future in futures:  # those still queued, where one failed or the client left
                future.cancel()

    def _classified(self, row: Tokens, ran: Ran, raw_scores: bool) -> Classified:
        """One row's logits as an answer."""
        return Classified(
            answers=answers_of(self.served.task, ran.logits_C, raw=raw_scores),
            n_tokens=len(row),
            dropped_tokens=row.dropped,
        )


def refuse_form(text: Text, takes: str) -> None:
    """Refuse an empty text, and a pair or its absence where the model takes the other.

    Raises:
        EmptyText: nothing, or only white space.
        MalformedRequest: ``takes`` is ``pair`` and there is none, or ``single`` and there is one.
    """
    if takes == "pair" and text.pair is None:
        raise MalformedRequest(
            "this model compares two texts", fix='send "text_pair" too; in /predict, two texts'
        )
    if takes == "single" and text.pair is not None:
        raise MalformedRequest(
            "this model takes single texts, not pairs",
            fix='leave out "text_pair"; in /predict a flat list of two is a pair, '
            'so nest each text: [["first text"], ["second text"]]',
        )
    if not text.text.strip() or (text.pair is not None and not text.pair.strip()):
        raise EmptyText("a text is empty", fix="send some text")


def refuse_cut(rows: Sequence[Tokens], max_tokens: int) -> None:
    """Refuse rows that lost tokens, for a client that declined truncation.

    Raises:
        TextTooLong: one did.
    """
    longest = max(rows, key=lambda row: row.dropped)
    if longest.dropped:
        raise TextTooLong(
            "a text has more tokens than the model reads",
            got=f"{len(longest) + longest.dropped}, {max_tokens} allowed",
            fix="send a shorter text, or allow truncation",
        )
