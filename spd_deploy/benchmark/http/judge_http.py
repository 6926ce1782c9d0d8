"""From loads to statements: what HTTP adds, which rates meet the bound, what a million costs.

Pure: the same loads give the same rows. A speed-up over HTTP is judged as one of the bare engine:
the geometric mean of the rounds' ratios, with its interval.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from spd_deploy.benchmark.http.http_records import HttpLoad, HttpPart
from spd_deploy.benchmark.http.judge_load import late_s, tail_s, trial_of, verdict_of
from spd_deploy.benchmark.http.search import Found, Verdict, found_by
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import Estimate, estimates
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.speed_up import SpeedUp, speed_up_of

_QUANTILES = (0.5, 0.99)
_A_MILLION = 1e6
_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleStreamRow:
    """One arm at one shape over one connection.

    Attributes:
        bare: median of the bare engine on the same texts, in turns with the requests.
        p99: None where there are too few requests for it.
        added_s: what HTTP adds: the median over the rounds of the difference of their medians.
        over_bare: how many times as long HTTP takes.
        stages_s: median of each stage, the rest last.
        speed_up: over the baseline through HTTP; None for the baseline itself, or without one.
    """

    arm: str
    shape: Shape
    requests: int
    bare: Estimate
    p50: Estimate
    p99: Estimate | None
    added_s: float
    over_bare: SpeedUp
    stages_s: Mapping[str, float]
    speed_up: SpeedUp | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RateRow:
    """One arm at one rate, all rounds together; a searched rate is of one round.

    Attributes:
        p99_s: over all requests that were due; infinite where too many have no right answer.
        late_s: how late the generator was, at p99.
    """

    arm: str
    rate: float
    searched: bool
    requests: int
    p50_s: float
    p99_s: float
    queue_s: float | None
    late_s: float
    refused: int
    failed: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class CapacityRow:
    """How much one arm can take.

    Attributes:
        offline: texts a second, the median of the rounds.
        over_bare: offline throughput over that of the bare engine.
        met: the highest rate whose p99 was within the bound, in requests a second; None for none.
        missed: the lowest rate above it that was not; None where the search found none.
        cost: of a million requests at the rate ``met``; None without a price or a rate.
        offline_speed_up: over the baseline.
        rate_gain: the rate ``met`` over the baseline's; None unless the search found the end of
            both.
    """

    arm: str
    offline: float
    over_bare: SpeedUp
    met: float | None
    missed: float | None
    cost: float | None
    offline_speed_up: SpeedUp | None
    rate_gain: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpJudgement:
    """Everything that is said of the HTTP part of a report.

    Attributes:
        checked: texts whose answers were held against the expected logits; ``golden`` of them are
            golden texts, ``wrong`` were wrong, and none was further away than ``difference``.
    """

    single: tuple[SingleStreamRow, ...]
    rates: tuple[RateRow, ...]
    capacity: tuple[CapacityRow, ...]
    checked: int
    golden: int
    wrong: int
    difference: float

    def to_json(self) -> dict[str, Any]:
        """For programs; a p99 that is infinite is null."""
        value = asdict(self)
        for row, known in zip(value["single"], self.single, strict=True):
            row["shape"] = str(known.shape)
        for row in value["rates"]:
            row["p99_s"] = row["p99_s"] if row["p99_s"] < float("inf") else None
        return value


def http_judgement_of(report: Report) -> HttpJudgement | None:
    """Everything that the report's loads support saying; None where it has no HTTP part."""
    if report.http is None:
        return None
    return judge_http(report.http, baseline=report.baseline, seed=report.settings.seed)


def judge_http(part: HttpPart, *, baseline: str | None, seed: int) -> HttpJudgement:
    """Everything that the loads support saying."""
    arms = list(dict.fromkeys(one.arm for one in part.loads))
    outcomes = [one.outcome for one in part.loads]
    return HttpJudgement(
        single=tuple(_single_rows(part, arms, baseline, seed)),
        rates=tuple(row for arm in arms for row in _rate_rows(part, arm)),
        capacity=tuple(_capacity_row(part, arm, baseline) for arm in arms),
        checked=sum(one.rows for one in outcomes),
        golden=sum(one.golden for one in outcomes),
        wrong=sum(one.wrong for one in outcomes),
        difference=max(one.difference for one in outcomes),
    )


def _single_rows(
    part: HttpPart, arms: Sequence[str], baseline: str | None, seed: int
) -> Iterator[SingleStreamRow]:
    """A row for each shape and arm, in the order of the shapes."""
    shapes = sorted({one.shape for one in part.loads if one.shape is not None})
    for shape in shapes:
        by_arm = {
            arm: [one for one in part.of(arm, "single stream") if one.shape == shape]
            for arm in arms
        }
        for arm, loads in by_arm.items():
            rounds = [one.outcome.latency_s for one in loads]
            bare = [one.bare_s for one in loads]
            p50, p99 = estimates(rounds, _QUANTILES, seed=seed)
            bare_p50, _ = estimates(bare, _QUANTILES, seed=seed)
            assert p50 is not None and bare_p50 is not None  # noqa: S101 - two rounds at least
            compared = baseline is not None and arm != baseline
            yield SingleStreamRow(
                arm=arm,
                shape=shape,
                requests=sum(map(len, rounds)),
                bare=bare_p50,
                p50=p50,
                p99=p99,
                added_s=statistics.median(
                    statistics.median(h) - statistics.median(b)
                    for h, b in zip(rounds, bare, strict=True)
                ),
                over_bare=speed_up_of(rounds, bare),
                stages_s=_stages_of(loads),
                speed_up=(
                    speed_up_of([one.outcome.latency_s for one in by_arm[baseline]], rounds)
                    if compared and baseline is not None
                    else None
                ),
            )


def _stages_of(loads: Sequence[HttpLoad]) -> dict[str, float]:
    """The median over the rounds of each stage that all of them have."""
    stages = [one.outcome.stages_s for one in loads]
    names = [name for name in stages[0] if all(name in one for one in stages)]
    return {name: statistics.median(one[name] for one in stages) for name in names}


def _rate_rows(part: HttpPart, arm: str) -> Iterator[RateRow]:
    """The rates that were asked for, then those of the search, each from low to high."""

    def key(load: HttpLoad) -> tuple[bool, float, int]:
        """Rounds of a given rate belong together; each step of the search stands alone."""
        return (load.searched, load.rate or 0.0, load.round if load.searched else 0)

    for (searched, rate, _), group in groupby(sorted(part.of(arm, "server"), key=key), key=key):
        outcomes = [one.outcome for one in group]
        answered = sorted(s for one in outcomes for s in one.latency_s)
        queues = [one.stages_s["queue"] for one in outcomes if "queue" in one.stages_s]
        yield RateRow(
            arm=arm,
            rate=rate,
            searched=searched,
            requests=sum(len(one.latency_s) + one.refused + one.failed for one in outcomes),
            p50_s=answered[len(answered) // 2] if answered else float("inf"),
            p99_s=tail_s(outcomes),
            queue_s=statistics.median(queues) if queues else None,
            late_s=late_s(outcomes),
            refused=sum(one.refused for one in outcomes),
            failed=sum(one.failed + one.wrong for one in outcomes),
            verdict=verdict_of(outcomes, part.settings),
        )


def _capacity_row(part: HttpPart, arm: str, baseline: str | None) -> CapacityRow:
    """Offline throughput and the rate at the bound of one arm."""
    loads = part.of(arm, "offline")
    found = found_by(
        [trial_of(one, part.settings) for one in part.of(arm, "server") if one.searched]
    )
    compared = baseline if baseline is not None and arm != baseline else None
    base = None if compared is None else _capacity_row(part, compared, None)
    price = part.settings.price_per_hour
    return CapacityRow(
        arm=arm,
        offline=statistics.median(one.rows_per_s for one in loads),
        # A throughput is the inverse of a time, so the sides are the other way round.
        over_bare=speed_up_of(
            [[1 / one.bare_rows_per_s] for one in loads], [[1 / one.rows_per_s] for one in loads]
        ),
        met=found.met,
        missed=found.missed,
        cost=None if price is None or not found.met else cost_of(price, found.met),
        offline_speed_up=(
            None
            if compared is None
            else speed_up_of(
                [[1 / one.rows_per_s] for one in part.of(compared, "offline")],
                [[1 / one.rows_per_s] for one in loads],
            )
        ),
        rate_gain=_rate_gain(found, base),
    )


def _rate_gain(found: Found, base: CapacityRow | None) -> float | None:
    """The rate of an arm over the baseline's, where both are known from above too."""
    if base is None or not (found.met and found.missed and base.met and base.missed):
        return None
    return found.met / base.met


def cost_of(price_per_hour: float, rate: float) -> float:
    """The cost of a million requests at so many requests a second."""
    return price_per_hour / _HOUR_S / rate * _A_MILLION
