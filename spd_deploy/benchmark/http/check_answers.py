"""The outcome of a load: how long each request took, and whether its answers were right."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spd_deploy.benchmark.http.load_spec import LoadOutcome, LoadSpec
from spd_deploy.benchmark.http.wire import HttpAnswer

# Answers of a server that has too much to do, or that is about to stop.
_REFUSALS = (429, 503)
REST = "rest"


@dataclass(slots=True)
class Sent:
    """One request of a load.

    Attributes:
        number: its place in the load.
        due_s, sent_s, done_s: on the load's clock.
        held: no connection was free when it was due, since the server had all of them.
        reason: why it has no answer.
    """

    number: int
    due_s: float
    sent_s: float = 0.0
    done_s: float | None = None
    held: bool = False
    answer: HttpAnswer | None = None
    reason: str | None = None

    @property
    def status(self) -> int | None:
        """The status of its answer; None without one."""
        return None if self.answer is None else self.answer.status


@dataclass(frozen=True, slots=True)
class _Checked:
    """The rows of one answer: how far the farthest logit is, and how many rows are wrong."""

    difference: float
    wrong: int


def outcome_of(spec: LoadSpec, sent: Sequence[Sent]) -> LoadOutcome:
    """The latencies of answered requests, and the counts of all others."""
    answered = [one for one in sent if one.status == 200]
    refused = [one for one in sent if one.status in _REFUSALS]
    failed = [one for one in sent if one.status not in (200, *_REFUSALS)]
    asked = [spec.requests[one.number % len(spec.requests)] for one in answered]
    checked = [
        check(_body(one), request.expected, spec.tolerance)
        for one, request in zip(answered, asked, strict=True)
    ]
    return LoadOutcome(
        latency_s=tuple(round(_done_s(one) - one.due_s, 7) for one in answered),
        late_s=tuple(round(max(0.0, one.sent_s - one.due_s), 7) for one in sent if not one.held),
        refused=len(refused),
        failed=len(failed),
        reason=_reason(failed[0]) if failed else None,
        rows=sum(len(request.inputs) for request in asked),
        wrong=sum(one.wrong for one in checked),
        golden=sum(request.golden for request in asked),
        difference=max((one.difference for one in checked), default=0.0),
        elapsed_s=max((_done_s(one) for one in answered), default=0.0),
        stages_s=stages_of(answered),
    )


def check(body: bytes, expected: Sequence[Mapping[str, float]], tolerance: float) -> _Checked:
    """Hold an answer against the logits that it should have, row by row.

    A row without its labels, or with numbers that are none, is wrong.
    """
    try:
        results = json.loads(body)["results"]
        found = [{one["label"]: one["score"] for one in row["labels"]} for row in results]
    except (ValueError, KeyError, TypeError):
        found = []
    if len(found) != len(expected):
        return _Checked(difference=0.0, wrong=len(expected))
    off = [_off(row, wanted) for row, wanted in zip(found, expected, strict=True)]
    known = [one for one in off if one is not None]
    wrong = sum(one is None or one > tolerance for one in off)
    return _Checked(difference=max(known, default=0.0), wrong=wrong)


def stages_of(answered: Sequence[Sent]) -> dict[str, float]:
    """The median of each stage that every answer names, and of what they leave of the latency.

    The rest is the client, the socket, HTTP, and JSON; in an open loop also the time that a
    request was sent late.
    """
    times = [one.answer.stages_s for one in answered if one.answer is not None]
    names = [name for name in (times[0] if times else ()) if all(name in one for one in times)]
    if not names:
        return {}
    found = {name: statistics.median(one[name] for one in times) for name in names}
    rests = [
        _done_s(one) - one.due_s - sum(stages[name] for name in names)
        for one, stages in zip(answered, times, strict=True)
    ]
    return {name: round(s, 7) for name, s in (found | {REST: statistics.median(rests)}).items()}


def _off(found: Mapping[str, float], wanted: Mapping[str, float]) -> float | None:
    """How far the logits of a row are, in units of max(1, largest logit).

    None where they are no finite numbers, or of other labels.
    """
    if found.keys() != wanted.keys():
        return None
    if not all(isinstance(s, float | int) and math.isfinite(s) for s in found.values()):
        return None
    largest = max(1.0, *(abs(score) for score in wanted.values()))
    return max(abs(found[label] - wanted[label]) for label in wanted) / largest


def _body(one: Sent) -> bytes:
    """The body of an answered request."""
    return one.answer.body if one.answer is not None else b""


def _done_s(one: Sent) -> float:
    """When an answered request was done."""
    return one.done_s if one.done_s is not None else one.sent_s


def _reason(one: Sent) -> str:
    """Why a request failed, in a line."""
    if one.answer is None:
        return one.reason or "no answer"
    try:
        error = json.loads(one.answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        error = ""
    return f"HTTP {one.answer.status} {error}".strip()[:300]
