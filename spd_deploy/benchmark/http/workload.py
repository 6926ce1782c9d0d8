"""Texts to ask a server about, and the logits that each of them must get.

The texts are common words in random order, as many as make exactly the tokens that are wanted. What
they must get is what the bare engine gives; the artefact's golden texts must get what they got at
the export.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spd_deploy.benchmark.http.load_spec import SampleRequest, with_golden
from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.number_types import is_quantised
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from spd_deploy.sessions.open import BF16_OVER_INT8, BF16_TOLERANCE, graph_file
from spd_deploy.sessions.protocol import Session

COMMON_WORDS = """
    the a of and to in is it that was for on with as this but film not are have be you one at
    they from all by an who so or just about good more very what time like than some can when we
    there even only no up much would which story first well make little people great could bad
    life never best too long while other after last plot scene day night work road water house
"""
WORDS = tuple(COMMON_WORDS.split())
FILLER = "a"
# Requests of a shape and texts of the mix; they are sent again and again.
_REQUESTS = 8
_MIXED_TEXTS = 32
_TRIES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedRow:
    """One row: its text or pair, and its tokens."""

    texts: tuple[str, ...]
    tokens: Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Everything that one arm is asked.

    Attributes:
        single: requests of exactly one shape, by shape.
        batches: the same, tokenised, for the bare engine.
        mixed: single texts of all lengths in equal shares, with golden texts among them.
        offline: the same texts in requests of many rows.
        offline_batches: the rows of ``offline``, tokenised, for the bare engine.
        tolerance: how far a logit may be from the expected one.
    """

    single: dict[Shape, tuple[SampleRequest, ...]]
    batches: dict[Shape, tuple[Batch, ...]]
    mixed: tuple[SampleRequest, ...]
    offline: tuple[SampleRequest, ...]
    offline_batches: tuple[Batch, ...]
    tolerance: float


def workload_of(
    artefact: Artefact,
    session: Session,
    shapes: Sequence[Shape],
    *,
    max_inputs: int,
    texts_per_request: int,
    seed: int,
) -> Workload:
    """The requests for an artefact, with what its bare session answers.

    Raises:
        BadSetting: a request of a shape has more texts than the server takes, or there is no text
            of so few tokens.
    """
    refuse_many(shapes, max_inputs)
    tokenizer, random = artefact.tokenizer(), np.random.default_rng(seed)
    pair = artefact.task.has_pair
    single, batches = {}, {}
    for shape in shapes:
        requests = [
            [row_of(tokenizer, shape.seq, pair=pair, random=random) for _ in range(shape.batch)]
            for _ in range(_REQUESTS)
        ]
        batches[shape] = tuple(tokenizer.pad([row.tokens for row in rows]) for rows in requests)
        single[shape] = tuple(
            request_of(artefact.task, rows, session.run(batch))
            for rows, batch in zip(requests, batches[shape], strict=True)
        )
    lengths = sorted({shape.seq for shape in shapes})
    rows = [
        row_of(tokenizer, lengths[i % len(lengths)], pair=pair, random=random)
        for i in range(_MIXED_TEXTS)
    ]
    alone = [
        request_of(artefact.task, [row], session.run(tokenizer.pad([row.tokens]))) for row in rows
    ]
    mixed = with_golden(alone, golden_requests(artefact, session))
    offline = grouped(mixed, texts_per_request)
    return Workload(
        single=single,
        batches=batches,
        mixed=mixed,
        offline=offline,
        offline_batches=tuple(
            tokenizer.pad([tokenizer.encode(*texts) for texts in request.inputs])
            for request in offline
        ),
        tolerance=tolerance_of(artefact, session),
    )


def refuse_many(shapes: Sequence[Shape], max_inputs: int) -> None:
    """Refuse shapes with more rows than a server takes in one request.

    Raises:
        BadSetting: there is one.
    """
    most = max(shape.batch for shape in shapes)
    if most > max_inputs:
        raise BadSetting(
            f"the server takes {max_inputs} texts in one request",
            got=f"--batch {most}",
            fix=f"measure --batch {max_inputs} or less over HTTP",
        )


def row_of(
    tokenizer: Tokenizer, tokens: int, *, pair: bool, random: np.random.Generator
) -> AskedRow:
    """A random text, or a pair, of exactly so many tokens, special ones included.

    Raises:
        BadSetting: there is none, such as one of two tokens for a model that adds three.
    """
    words: list[str] = random.choice(WORDS, tokens).tolist()
    for _ in range(_TRIES):
        texts = _texts_of(words, pair=pair)
        found = tokenizer.encode(*texts)
        missing = tokens - len(found) - found.dropped
        if missing == 0 and not found.empty:
            return AskedRow(texts=texts, tokens=found)
        if missing > 0:  # words of one token fill what longer ones left
            words += [FILLER] * missing
        elif len(words) > 1 + pair:
            del words[max(1 + pair, len(words) + min(-1, missing // 4)) :]
        else:
            words = [FILLER] * (1 + pair)
    raise BadSetting(
        "no text was found of so many tokens", got=f"--seq {tokens}", fix="measure longer texts"
    )


def _texts_of(words: Sequence[str], *, pair: bool) -> tuple[str, ...]:
    """The words as one text, or half of them in each of two."""
    half = len(words) // 2
    parts = (words[:half], words[half:]) if pair else (words,)
    return tuple(" ".join(part) for part in parts)


def request_of(
    task: Task, rows: Sequence[AskedRow], logits_BC: NDArray[np.float32]
) -> SampleRequest:
    """A request of these rows, which must get these logits."""
    return SampleRequest(
        inputs=tuple(row.texts for row in rows),
        expected=tuple(
            {one.label: one.score for one in answers_of(task, logits_C, raw=True)}
            for logits_C in logits_BC
        ),
    )


def golden_requests(artefact: Artefact, session: Session) -> list[SampleRequest]:
    """A request for each golden text, which must get the logits that it had at the export."""
    file = graph_file(artefact.manifest.format, session.description.runtime)
    found = []
    for text in artefact.golden().texts:
        logits_C = np.array(text.own.get(file, text.logits), np.float32)
        answers = answers_of(artefact.task, logits_C, raw=True)
        found.append(
            SampleRequest(
                inputs=((text.text,) if text.pair is None else (text.text, text.pair),),
                expected=({one.label: one.score for one in answers},),
                golden=1,
            )
        )
    return found


def grouped(requests: Sequence[SampleRequest], rows: int) -> tuple[SampleRequest, ...]:
    """Requests of one row each as requests of ``rows`` rows; the last is filled from the first."""
    count = -(-len(requests) // rows)
    cycled = [requests[i % len(requests)] for i in range(count * rows)]
    parts = [cycled[i * rows : (i + 1) * rows] for i in range(count)]
    return tuple(
        SampleRequest(
            inputs=tuple(one.inputs[0] for one in part),
            expected=tuple(one.expected[0] for one in part),
            golden=sum(one.golden for one in part),
        )
        for part in parts
    )


def tolerance_of(artefact: Artefact, session: Session) -> float:
    """The difference that the self-test allows this session (:func:`sessions.open.prove`).

    A quantised graph is allowed more: its range is that of the whole batch, and the server decides
    which rows share one.
    """
    manifest, precision = artefact.manifest, session.description.precision
    tolerance = manifest.parity.tolerance
    if is_quantised(manifest.precision):
        return max(tolerance, BF16_OVER_INT8 + manifest.parity.max_difference)
    return tolerance if precision == manifest.precision else max(tolerance, BF16_TOLERANCE)
