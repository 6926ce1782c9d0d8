"""The tables of the HTTP part of a report as text, for the terminal and the HTML report."""

import math

from spd_deploy.benchmark.formatting import milliseconds
from spd_deploy.benchmark.http.check_answers import REST
from spd_deploy.benchmark.http.http_records import HttpPart
from spd_deploy.benchmark.http.judge_http import (
    CapacityRow,
    HttpJudgement,
    RateRow,
    SingleStreamRow,
)
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import Estimate
from spd_deploy.benchmark.tables import NOTHING, RATIO_NOTE, Table

LATENCY_MEANS = (
    "Latency is the time from when a request was due to the last byte of its answer, at the "
    "client: tokenising, JSON, HTTP and the network are in it. Over one connection a request is "
    "due when it is sent; at a rate, when the schedule says so, however late it was sent."
)
_NAMES = {
    "parse": "parse",
    "tok_queue": "tokeniser queue",
    "tok": "tokenise",
    "queue": "queue",
    "run": "run",
    REST: "rest",
}


def tables_of_http(part: HttpPart, judged: HttpJudgement) -> tuple[Table, ...]:
    """The tables of the HTTP part; rates have one where there are any."""
    found = (
        single_stream_table(judged),
        stage_table(judged),
        rate_table(part, judged),
        capacity_table(part, judged),
    )
    return tuple(table for table in found if table.rows)


def http_headlines(report: Report, judged: HttpJudgement) -> tuple[str, ...]:
    """The result of each arm behind HTTP in a sentence."""
    assert report.http is not None  # noqa: S101 - it was judged
    bound = f"{1e3 * report.http.settings.latency_bound_s:g} ms"
    return tuple(_headline(row, judged, bound, report.baseline) for row in judged.capacity)


def _headline(row: CapacityRow, judged: HttpJudgement, bound: str, baseline: str | None) -> str:
    """One arm: over one connection, offline, and at the bound."""
    rows = [one for one in judged.single if one.arm == row.arm]
    medians = ", ".join(f"{milliseconds(one.p50.value)} ms at {one.shape}" for one in rows)
    parts = [f"{row.arm} over HTTP: {medians} over one connection"]
    gains = [one.speed_up for one in rows if one.speed_up is not None]
    if gains:
        verdicts = ", ".join(f"{one.verdict} {one.numbers}" for one in gains)
        parts.append(f"against {baseline} {verdicts}")
    parts.append(f"{row.offline:.0f} texts/s offline")
    if row.met is None:
        parts.append(_no_rate(row.arm, judged, bound))
    else:
        gain = "" if row.rate_gain is None else f", {row.rate_gain:.2f} times {baseline}'s"
        parts.append(f"{_at_least(row)}{row.met:g} requests/s with p99 within {bound}{gain}")
    return "; ".join(parts) + "."


def _no_rate(arm: str, judged: HttpJudgement, bound: str) -> str:
    """Why no rate is known to meet the bound."""
    verdicts = {one.verdict for one in judged.rates if one.arm == arm and one.searched}
    if not verdicts:
        return f"one request alone takes more than {bound}"
    if verdicts == {"not judged"}:
        return f"the rate at {bound} is not known, since the load generator itself was late"
    return f"no rate was found with p99 within {bound}"


def single_stream_table(judged: HttpJudgement) -> Table:
    """One connection beside the bare engine, at each shape."""
    compared = any(row.speed_up is not None for row in judged.single)
    verdict = ("speed-up", "verdict") if compared else ()
    return Table(
        title="Single stream: one request at a time, against the bare engine",
        note=RATIO_NOTE if compared else "",
        columns=(
            *("batch x tokens", "arm", "bare p50 ms", "HTTP p50 ms"),
            *verdict,
            *("HTTP p99 ms", "added ms", "HTTP/bare", "requests"),
        ),
        rows=tuple(
            (
                str(row.shape),
                row.arm,
                _estimate(row.bare),
                _estimate(row.p50),
                *(_verdict_cells(row) if compared else ()),
                _estimate(row.p99),
                milliseconds(row.added_s) if row.added_s > 0 else f"{1e3 * row.added_s:.2f}",
                row.over_bare.numbers,
                str(row.requests),
            )
            for row in judged.single
        ),
    )


def stage_table(judged: HttpJudgement) -> Table:
    """Where the time of a request goes, as the server's ``Server-Timing`` header tells."""
    stages = dict.fromkeys(name for row in judged.single for name in row.stages_s)
    names = [name for name in stages if name != REST] + ([REST] if REST in stages else [])
    return Table(
        title="Where the time goes, medians in ms",
        note="Stages are those of the server's header Server-Timing. The rest is the client, the "
        "socket, HTTP and JSON.",
        columns=("batch x tokens", "arm", *(_NAMES.get(name, name) for name in names)),
        rows=tuple(
            (
                str(row.shape),
                row.arm,
                *(
                    f"{1e3 * row.stages_s[name]:.2f}" if name in row.stages_s else NOTHING
                    for name in names
                ),
            )
            for row in judged.single
            if row.stages_s
        ),
    )


def rate_table(part: HttpPart, judged: HttpJudgement) -> Table:
    """The server scenario: requests that come at random, at the rates asked for and searched."""
    bound = f"p99 within {1e3 * part.settings.latency_bound_s:g} ms"
    return Table(
        title="Server: single texts that arrive at random",
        note="A request that was refused, failed or got a wrong answer counts as one that took "
        f"forever. Where the load generator sent its requests more than "
        f"{1e3 * part.settings.latest_s:g} ms late at p99, nothing is judged.",
        columns=(
            *("arm", "rate /s", "chosen by", "p50 ms", "p99 ms", "in queue", "requests"),
            *("refused", "failed", "sent late, p99 ms", bound),
        ),
        rows=tuple(
            (
                row.arm,
                f"{row.rate:g}",
                "search" if row.searched else "--rates",
                _tail(row.p50_s),
                _tail(row.p99_s),
                NOTHING if row.queue_s is None else f"{1e3 * row.queue_s:.2f}",
                str(row.requests),
                str(row.refused),
                str(row.failed),
                f"{1e3 * row.late_s:.2f}",
                _judged(row),
            )
            for row in judged.rates
        ),
    )


def capacity_table(part: HttpPart, judged: HttpJudgement) -> Table:
    """The capacity of each arm, offline and at the bound, and its cost."""
    priced = part.settings.price_per_hour is not None
    compared = any(row.offline_speed_up is not None for row in judged.capacity)
    return Table(
        title="Capacity",
        note=f"Offline: {part.in_flight} requests of {part.texts_per_request} texts are in flight "
        "at any time." + _priced(part.settings.price_per_hour),
        columns=(
            *("arm", "offline texts/s"),
            *(("offline speed-up",) if compared else ()),
            "of bare texts/s",
            f"requests/s at {1e3 * part.settings.latency_bound_s:g} ms",
            "missed at",
            *(("rate over dense",) if compared else ()),
            *(("cost of a million",) if priced else ()),
        ),
        rows=tuple(
            (
                row.arm,
                f"{row.offline:.0f}",
                *((_offline_gain(row),) if compared else ()),
                row.over_bare.numbers,
                NOTHING if row.met is None else f"{_at_least(row)}{row.met:g}",
                NOTHING if row.missed is None else f"{row.missed:g}",
                *((_times(row.rate_gain),) if compared else ()),
                *((NOTHING if row.cost is None else f"{row.cost:.2f}",) if priced else ()),
            )
            for row in judged.capacity
        ),
    )


def _priced(price: float | None) -> str:
    """A sentence about the costs; empty where there is no price."""
    if price is None:
        return ""
    return (
        f" The cost is of a million requests at the rate within the bound, at {price:g} an hour. "
        "A higher rate makes it less."
    )


def answers_line(judged: HttpJudgement) -> str:
    """A sentence about whether the answers were right."""
    right = "all right" if judged.wrong == 0 else f"{judged.wrong} WRONG"
    return (
        f"Answers checked while under load: {judged.checked:,} texts, {judged.golden:,} of them "
        f"golden; {right}. No logit was further than {judged.difference:.1g} from its own."
    )


def _at_least(row: CapacityRow) -> str:
    """The words before a rate above which no trial missed the bound."""
    return "at least " if row.missed is None else ""


def _verdict_cells(row: SingleStreamRow) -> tuple[str, str]:
    """The speed-up through HTTP and its verdict."""
    if row.speed_up is None:
        return NOTHING, "baseline"
    return row.speed_up.numbers, row.speed_up.verdict


def _judged(row: RateRow) -> str:
    """Whether the bound was met, or why that is not said."""
    return "not judged: sent too late" if row.verdict == "not judged" else row.verdict


def _offline_gain(row: CapacityRow) -> str:
    """The offline throughput over the baseline's."""
    return NOTHING if row.offline_speed_up is None else row.offline_speed_up.numbers


def _times(gain: float | None) -> str:
    """A ratio of two rates."""
    return NOTHING if gain is None else f"{gain:.2f}x"


def _estimate(estimate: Estimate | None) -> str:
    """A time with its interval in brackets."""
    if estimate is None:
        return NOTHING
    ends = f"{milliseconds(estimate.low)}, {milliseconds(estimate.high)}"
    return f"{milliseconds(estimate.value)} [{ends}]"


def _tail(seconds: float) -> str:
    """Milliseconds; where requests without an answer reach into the percentile, there is none."""
    return milliseconds(seconds) if math.isfinite(seconds) else "no answer"
