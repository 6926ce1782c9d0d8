"""A load and its outcome, as the load generator and its parent exchange them: a line of JSON each.

All times are seconds of one clock that starts with the load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# One request in so many is a golden text, where there are any.
GOLDEN_EVERY = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """One request to ``/v1/classify`` and the answers that it must get.

    Attributes:
        inputs: a text, or a pair, for each row.
        expected: the logit of each label, for each row.
        golden: how many of the rows are golden texts of the artefact.
    """

    inputs: tuple[tuple[str, ...], ...]
    expected: tuple[Mapping[str, float], ...]
    golden: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadSpec:
    """A load. With ``due_s`` it is an open loop, else a closed one.

    Attributes:
        requests: are sent in turn, again from the first after the last.
        tolerance: how far a logit may be from the expected one, in units of max(1, largest logit).
        due_s: when each request is due, whatever became of those before it.
        connections: of a closed loop: so many requests are in flight at any time. Zero stands for
            an open loop, which opens what it needs.
        seconds: of a closed loop: when the last request is sent.
        at_most: of a closed loop: requests that are sent at most.
        at_least: of a closed loop: requests that are sent even where the time is up.
        timeout_s: a request that is not answered within it has failed.
        api_key: what each request sends; none where the server wants none.
    """

    url: str
    requests: tuple[SampleRequest, ...]
    tolerance: float
    due_s: tuple[float, ...] = ()
    connections: int = 0
    seconds: float = 0.0
    at_most: int = 1_000_000
    at_least: int = 3
    timeout_s: float = 60.0
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOutcome:
    """The outcome of a load.

    Attributes:
        latency_s: of each answered request, from when it was due to the last byte of its answer.
        late_s: how long after it was due each request was sent while a connection was free, the
            generator's own fault.
        refused: requests that got 429 or 503.
        failed: requests with another status, no answer, or none in time.
        reason: of the first of the failed.
        rows: texts that were answered.
        wrong: of these, texts whose logits differ by more than the tolerance.
        golden: of these, golden texts.
        difference: the largest difference of a logit, in units of max(1, largest logit).
        elapsed_s: from the first request due to the last answer.
        stages_s: the median of each stage that the server's answers name, and of the rest.
    """

    latency_s: tuple[float, ...]
    late_s: tuple[float, ...]
    refused: int
    failed: int
    rows: int
    wrong: int
    golden: int
    difference: float
    elapsed_s: float
    reason: str | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)


def poisson_arrivals(rate: float, *, seconds: float, at_least: int, seed: int) -> tuple[float, ...]:
    """When requests are due that come independently of each other, ``rate`` a second on average.

    They last for ``seconds``, or for as long as ``at_least`` of them take. Equal arguments give
    equal arrivals, so that every arm meets the same ones.
    """
    random = np.random.default_rng(seed)
    count = max(at_least, round(rate * seconds))
    return tuple(np.round(np.cumsum(random.exponential(1 / rate, count)), 6).tolist())


def with_golden(
    requests: Sequence[SampleRequest], golden: Sequence[SampleRequest]
) -> tuple[SampleRequest, ...]:
    """The requests with a golden one after every seventh, until each golden one has come."""
    if not golden:
        return tuple(requests)
    turns = max(len(golden), -(-len(requests) // (GOLDEN_EVERY - 1)))
    mixed: list[SampleRequest] = []
    for turn in range(turns):
        start = turn * (GOLDEN_EVERY - 1)
        mixed += [requests[(start + i) % len(requests)] for i in range(GOLDEN_EVERY - 1)]
        mixed.append(golden[turn % len(golden)])
    return tuple(mixed)
