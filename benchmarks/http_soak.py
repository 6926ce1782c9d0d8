"""Is a server the same after an hour? Memory, descriptors, threads and latency, minute by minute.

    python -m benchmarks.http_soak --minutes 60 --output DIR              # MiniLM's sizes
    python -m benchmarks.http_soak ARTEFACT --minutes 60 --output DIR     # an artefact of one's own

``spd serve`` is started, and its capacity is measured. A burst makes it run the largest batches
that it makes, whose memory it keeps. Single texts then arrive at random at 70 % of the capacity, a
load of a minute after another, from a process of its own. After each minute a line is written to
``DIR/soak.jsonl``: what the server's process holds, and what its clients saw. A soak that was
stopped goes on with ``--resume``; the server is then another one, judged apart.

The verdict is "flat" where, after a warm-up of a fifth of the minutes (two at least):

- over the judged minutes resident memory grows by less than 1 % of its median, or by less than 4 MB
  (Theil and Sen's slope times the time, which a single peak does not move), and
- the most descriptors and threads of the second half are no more than those of the first half.

Latencies are shown and not judged: they depend on what else the machine does. A request that fails
or gets a wrong answer makes the verdict "failed".
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter

import psutil

from benchmarks.shapes import artefact_of
from spd_deploy.benchmark.artefact_arms import arms_of, open_source
from spd_deploy.benchmark.http.judge_load import late_s, tail_s
from spd_deploy.benchmark.http.load import LoadGenerator, load_generator
from spd_deploy.benchmark.http.load_spec import LoadOutcome, LoadSpec, poisson_arrivals
from spd_deploy.benchmark.http.served import ServerProcess, serving
from spd_deploy.benchmark.http.servers import ServerFacts, facts_at
from spd_deploy.benchmark.http.workload import Workload, workload_of
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.patterns import Block
from spd_deploy.machine.facts import this_machine

PATTERN = Block(rows=128, columns=1, sparsity=0.9)
LOAD_SHARE = 0.7
WARMUP_SHARE = 0.2
WARMUP_AT_LEAST = 2
GROWTH_SHARE = 0.01
GROWTH_BYTES = 4e6
# Requests of the burst, which are due at once.
BURST = 400
SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Minute:
    """One load, and the server's process after it.

    Attributes:
        pid: of the server.
        hours: from the first load of this server to the end of this one.
        p99_s: over all requests that were due; None where more than 1 % were refused or failed.
        late_p99_s: how late the load generator was.
    """

    pid: int
    number: int
    hours: float
    rate: float
    rss_bytes: int
    descriptors: int
    threads: int
    p50_s: float
    p99_s: float | None
    late_p99_s: float
    requests: int
    refused: int
    failed: int
    wrong: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the minutes of one server show.

    Attributes:
        growth_bytes: of resident memory over the judged minutes.
        reasons: why it is not flat; empty where it is.
    """

    verdict: str
    minutes: int
    judged: int
    growth_bytes: float
    reasons: tuple[str, ...]


def main() -> None:
    """Soak, print, judge."""
    options = parsed()
    log = options.output / "soak.jsonl"
    if log.exists() and not options.resume:
        raise SystemExit(f"benchmarks.http_soak: {log} exists; add --resume, or another --output")
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        with artefact_in(options.artefact) as folder:
            soak(folder, options, log)
    except SpdError as err:
        raise SystemExit(f"benchmarks.http_soak: {err}") from err
    except KeyboardInterrupt:
        print("stopped; --resume goes on")
    show(minutes_in(log))


def parsed() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", nargs="?", type=Path, help="default: a random one")
    parser.add_argument("--minutes", type=int, default=60, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="length of a load; default: %(default)s"
    )
    parser.add_argument("--rate", type=float, help="requests a second; default: 70 %% of capacity")
    parser.add_argument("--tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=default_threads(), help="default: %(default)s"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with an earlier soak")
    return parser.parse_args()


@contextmanager
def artefact_in(given: Path | None) -> Iterator[Path]:
    """The artefact, or a random one that is gone afterwards."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield artefact_of(Path(scratch), "minilm", "minilm", PATTERN).folder


def soak(folder: Path, options: argparse.Namespace, log: Path) -> None:
    """Load a server for as many minutes as are still to come, and write a line after each."""
    done = len(minutes_in(log))
    with (
        serving(folder, ["--threads", str(options.threads)]) as server,
        load_generator() as generator,
    ):
        facts = facts_at(server.url)
        work = workload_for(folder, facts, options)
        rate = options.rate or LOAD_SHARE * capacity_of(generator, server.url, work, facts)
        generator.run(burst(server.url, work))
        write_line(log, {"schema": SCHEMA, "machine": asdict(this_machine()), "rate": rate})
        begun = perf_counter()
        for number in range(done, options.minutes):
            outcome = generator.run(load_of(server.url, work, rate, options.seconds, number))
            hours = (perf_counter() - begun) / 3600
            minute = sampled(server, outcome, number=number, hours=hours, rate=rate)
            write_line(log, asdict(minute))
            print(line_of(minute), flush=True)


def workload_for(folder: Path, facts: ServerFacts, options: argparse.Namespace) -> Workload:
    """Texts of so many tokens, with what the bare engine answers; it is closed again."""
    artefact = open_artefact(folder)
    (arm,) = arms_of([artefact])
    settings = BenchmarkSettings(
        shapes=(Shape(batch=1, seq=options.tokens),), threads=options.threads
    )
    assert arm.source is not None  # noqa: S101 - it is an artefact
    with open_source(arm.source, settings) as session:
        return workload_of(
            artefact,
            session,
            settings.shapes,
            max_inputs=facts.max_inputs,
            texts_per_request=facts.texts_per_request,
            seed=0,
        )


def capacity_of(generator: LoadGenerator, url: str, work: Workload, facts: ServerFacts) -> float:
    """Single texts a second that the server answers when many clients wait for it."""
    outcome = generator.run(
        LoadSpec(
            url=url,
            requests=work.mixed,
            tolerance=work.tolerance,
            connections=2 * facts.texts_per_request,
            seconds=10.0,
        )
    )
    return outcome.rows / outcome.elapsed_s


def burst(url: str, work: Workload) -> LoadSpec:
    """Many texts at once."""
    return LoadSpec(url=url, requests=work.mixed, tolerance=work.tolerance, due_s=(0.0,) * BURST)


def load_of(url: str, work: Workload, rate: float, seconds: float, number: int) -> LoadSpec:
    """The load of one minute, at random times of its own."""
    return LoadSpec(
        url=url,
        requests=work.mixed,
        tolerance=work.tolerance,
        due_s=poisson_arrivals(rate, seconds=seconds, at_least=10, seed=number),
    )


def sampled(
    server: ServerProcess, outcome: LoadOutcome, *, number: int, hours: float, rate: float
) -> Minute:
    """What the server's process holds now, beside what its clients saw."""
    process = psutil.Process(server.pid)
    return Minute(
        pid=server.pid,
        number=number,
        hours=round(hours, 5),
        rate=rate,
        rss_bytes=process.memory_info().rss,
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        p50_s=statistics.median(outcome.latency_s) if outcome.latency_s else -1.0,
        p99_s=tail if (tail := tail_s([outcome])) < math.inf else None,
        late_p99_s=late_s([outcome]),
        requests=len(outcome.latency_s) + outcome.refused + outcome.failed,
        refused=outcome.refused,
        failed=outcome.failed,
        wrong=outcome.wrong,
    )


def write_line(log: Path, value: object) -> None:
    """Append a line, and see it on the disk."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def minutes_in(log: Path) -> list[Minute]:
    """The minutes that were written; a line that a crash cut off is left out."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if "pid" in value:
            found.append(Minute(**value))
    return found


def judge(minutes: Sequence[Minute]) -> Verdict:
    """What the minutes of one server show, by the rule above."""
    warm = max(WARMUP_AT_LEAST, round(WARMUP_SHARE * len(minutes)))
    kept = minutes[warm:]
    if len(kept) < 4:
        return Verdict(
            verdict="too short to say",
            minutes=len(minutes),
            judged=len(kept),
            growth_bytes=0.0,
            reasons=("fewer than four minutes after the warm-up",),
        )
    an_hour = slope([(one.hours, float(one.rss_bytes)) for one in kept])
    growth = an_hour * (kept[-1].hours - kept[0].hours)
    allowed = max(GROWTH_BYTES, GROWTH_SHARE * statistics.median(one.rss_bytes for one in kept))
    first, second = kept[: len(kept) // 2], kept[len(kept) // 2 :]
    reasons = [f"memory grew by {growth / 1e6:.1f} MB"] if growth > allowed else []
    for name in ("descriptors", "threads"):
        before, after = (max(getattr(one, name) for one in half) for half in (first, second))
        if after > before:
            reasons.append(f"{name}: {before} at most, and {after} in the second half")
    lost = sum(one.failed + one.wrong for one in minutes)
    if lost:
        reasons.append(f"{lost} requests failed or got wrong answers")
    return Verdict(
        verdict="failed" if lost else "growing" if reasons else "flat",
        minutes=len(minutes),
        judged=len(kept),
        growth_bytes=growth,
        reasons=tuple(reasons),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs of points."""
    return statistics.median(
        (y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 > x1
    )


def line_of(minute: Minute) -> str:
    """A minute for people."""
    p99 = "none" if minute.p99_s is None else f"{1e3 * minute.p99_s:.1f} ms"
    return (
        f"minute {minute.number + 1}: {minute.rss_bytes / 1e6:.1f} MB, "
        f"{minute.descriptors} descriptors, {minute.threads} threads; "
        f"p50 {1e3 * minute.p50_s:.2f} ms, p99 {p99} at "
        f"{minute.rate:.0f}/s; {minute.requests} requests, {minute.refused} refused, "
        f"{minute.failed} failed, {minute.wrong} wrong; sent {1e3 * minute.late_p99_s:.1f} ms late"
    )


def show(minutes: Sequence[Minute]) -> None:
    """A table of the verdict on each server."""
    rows = []
    for pid in dict.fromkeys(one.pid for one in minutes):
        mine = [one for one in minutes if one.pid == pid]
        found = judge(mine)
        sizes = [one.rss_bytes / 1e6 for one in mine]
        rows.append(
            (
                str(found.minutes),
                f"{sizes[0]:.1f} to {sizes[-1]:.1f} MB",
                f"{found.growth_bytes / 1e6:+.2f} MB",
                f"{mine[0].descriptors} to {mine[-1].descriptors}",
                f"{mine[0].threads} to {mine[-1].threads}",
                f"{1e3 * mine[0].p50_s:.2f} to {1e3 * mine[-1].p50_s:.2f} ms",
                found.verdict,
                "; ".join(found.reasons) or "-",
            )
        )
    columns = ("minutes", "memory", "grew", "descriptors", "threads", "p50", "verdict", "why")
    show_table("Soak", columns, rows)


if __name__ == "__main__":
    main()
