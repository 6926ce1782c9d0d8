"""Whether a load of the server scenario met the latency bound, or the generator was too late."""

import math
from collections.abc import Sequence

import numpy as np

from spd_deploy.benchmark.http.http_records import HttpLoad, HttpSettings
from spd_deploy.benchmark.http.load_spec import LoadOutcome
from spd_deploy.benchmark.http.search import Trial, Verdict

TAIL = 0.99


def verdict_of(outcomes: Sequence[LoadOutcome], settings: HttpSettings) -> Verdict:
    """Whether p99 of all requests that were due is within the bound.

    A request that was refused, failed or answered wrongly took forever. A load is not judged if
    the generator itself was late: the server did not get the load that it was to get.
    """
    if late_s(outcomes) > settings.latest_s:
        return "not judged"
    return "met" if tail_s(outcomes) <= settings.latency_bound_s else "missed"


def late_s(outcomes: Sequence[LoadOutcome]) -> float:
    """How late the generator sent its requests, at p99."""
    late = np.concatenate([np.asarray(one.late_s) for one in outcomes])
    return float(np.quantile(late, TAIL)) if len(late) else 0.0


def tail_s(outcomes: Sequence[LoadOutcome]) -> float:
    """p99 of the latency over all requests that were due; infinite where too few were answered.

    Which of the answers were wrong is not known: it is the p99 if those were the fastest.
    """
    answered = sorted(s for one in outcomes for s in one.latency_s)
    due = len(answered) + sum(one.refused + one.failed for one in outcomes)
    right = answered[sum(one.wrong for one in outcomes) :]
    place = math.ceil(TAIL * due) - 1
    return right[place] if 0 <= place < len(right) else math.inf


def trial_of(load: HttpLoad, settings: HttpSettings) -> Trial:
    """One load as a step of the search."""
    assert load.rate is not None  # noqa: S101 - it is of the server scenario
    return Trial(rate=load.rate, verdict=verdict_of([load.outcome], settings))
