"""One arm in one round: its server and its bare engine, loaded in each scenario."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

from spd_deploy.benchmark.arms import ArmSource
from spd_deploy.benchmark.http.http_records import HttpLoad, HttpSettings
from spd_deploy.benchmark.http.judge_load import trial_of
from spd_deploy.benchmark.http.load import LoadGenerator
from spd_deploy.benchmark.http.load_spec import (
    LoadOutcome,
    LoadSpec,
    SampleRequest,
    poisson_arrivals,
)
from spd_deploy.benchmark.http.search import next_rate
from spd_deploy.benchmark.http.workload import Workload
from spd_deploy.benchmark.records import BenchmarkSettings
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import Clock, TimeBudget, time_runs

# A p99 needs a hundred requests; of two hundred, two are beyond it.
_LEAST_ARRIVALS = 200
# A queue that grows shows in the latency once a load lasts several times the bound.
_BOUNDS_LONG = 10
# Steps of the search in all rounds together, at least.
_STEPS = 6
_WARMUP_REQUESTS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRun:
    """The settings of all visits of a run; ``api_key`` is that of servers that run already."""

    settings: BenchmarkSettings
    http: HttpSettings
    generator: LoadGenerator
    clock: Clock
    api_key: str | None = field(default=None, repr=False)

    @property
    def load_s(self) -> float:
        """How long a load of the server scenario lasts at least."""
        return max(self.settings.seconds, _BOUNDS_LONG * self.http.latency_bound_s)

    @property
    def steps(self) -> int:
        """Steps of the search in one round."""
        return -(-_STEPS // self.settings.rounds)

    def ask(
        self, url: str, requests: Sequence[SampleRequest], tolerance: float, n: int
    ) -> LoadOutcome:
        """The outcome of ``n`` requests, sent one at a time."""
        return self.generator.run(
            LoadSpec(
                url=url,
                requests=tuple(requests),
                tolerance=tolerance,
                connections=1,
                at_least=n,
                at_most=n,
                api_key=self.api_key,
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedArm:
    """An arm with its requests, which its server has answered once.

    Attributes:
        alone_s: the median latency of one request at a time.
        texts_per_request, in_flight: of the offline scenario.
        url: of a server that runs already; None where each round starts one.
    """

    source: ArmSource
    workload: Workload
    alone_s: float
    texts_per_request: int
    in_flight: int
    url: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """One arm in one round, with its server at ``url`` and its bare session open."""

    run: HttpRun
    arm: PreparedArm
    round: int
    url: str
    session: Session

    def loads(self, earlier: Sequence[HttpLoad]) -> Iterator[HttpLoad]:
        """Every load of the visit; ``earlier`` are those of the rounds before."""
        run, work = self.run, self.arm.workload
        run.ask(self.url, work.mixed, work.tolerance, _WARMUP_REQUESTS)
        for shape in run.settings.shapes:
            yield self.single_stream(shape)
        offline = self.offline()
        yield offline
        for rate in run.http.rates:
            yield self.server(rate, searched=False)
        if self.arm.alone_s <= run.http.latency_bound_s:
            yield from self.search(offline.rows_per_s, earlier)

    def single_stream(self, shape: Shape) -> HttpLoad:
        """One request at a time, of one shape."""
        work, budget = self.arm.workload, self.run.settings.series
        spec = self._closed(work.single[shape], connections=1, budget=budget)
        outcome, bare_s = self._beside_bare(spec, work.batches[shape], budget)
        return HttpLoad(
            arm=self.arm.source.name,
            scenario="single stream",
            round=self.round,
            shape=shape,
            outcome=outcome,
            bare_s=bare_s,
            bare_rows=shape.batch * len(bare_s),
        )

    def offline(self) -> HttpLoad:
        """As many texts as the server answers when it never waits for a client."""
        work, series = self.arm.workload, self.run.settings.series
        budget = TimeBudget(
            seconds=series.seconds, at_least=2 * self.arm.in_flight, at_most=series.at_most
        )
        spec = self._closed(work.offline, connections=self.arm.in_flight, budget=budget)
        bare = TimeBudget(seconds=series.seconds, at_least=2, at_most=series.at_most)
        outcome, bare_s = self._beside_bare(spec, work.offline_batches, bare)
        return HttpLoad(
            arm=self.arm.source.name,
            scenario="offline",
            round=self.round,
            outcome=outcome,
            bare_s=bare_s,
            bare_rows=self.arm.texts_per_request * len(bare_s),
        )

    def server(self, rate: float, *, searched: bool) -> HttpLoad:
        """Single texts that come at random, ``rate`` a second on average."""
        run, work = self.run, self.arm.workload
        spec = LoadSpec(
            url=self.url,
            requests=work.mixed,
            tolerance=work.tolerance,
            due_s=poisson_arrivals(
                rate,
                seconds=run.load_s,
                at_least=_LEAST_ARRIVALS,
                seed=run.settings.seed + self.round,
            ),
            api_key=run.api_key,
        )
        return HttpLoad(
            arm=self.arm.source.name,
            scenario="server",
            round=self.round,
            outcome=run.generator.run(spec),
            rate=rate,
            searched=searched,
        )

    def search(self, capacity: float, earlier: Sequence[HttpLoad]) -> Iterator[HttpLoad]:
        """The next steps of the search, which goes on where the rounds before have left it."""
        mine = self.arm.source.name
        trials = [
            trial_of(one, self.run.http) for one in earlier if one.searched and one.arm == mine
        ]
        for _ in range(self.run.steps):
            load = self.server(next_rate(trials, capacity), searched=True)
            trials.append(trial_of(load, self.run.http))
            yield load

    def _closed(
        self, requests: Sequence[SampleRequest], *, connections: int, budget: TimeBudget
    ) -> LoadSpec:
        """A closed loop of so many connections."""
        return LoadSpec(
            url=self.url,
            requests=tuple(requests),
            tolerance=self.arm.workload.tolerance,
            connections=connections,
            seconds=budget.seconds,
            at_least=budget.at_least,
            at_most=budget.at_most,
            api_key=self.run.api_key,
        )

    def _beside_bare(
        self, spec: LoadSpec, batches: Sequence[Batch], budget: TimeBudget
    ) -> tuple[LoadOutcome, tuple[float, ...]]:
        """A load, and the bare engine's runs of the same texts: first in every other round.

        Raises:
            EngineFailed: not one request was answered.
        """
        turn = cycle(batches)

        def bare() -> tuple[float, ...]:
            """Seconds of runs of the bare engine, after a warm-up."""
            run_next = partial(_run_next, self.session, turn)
            time_runs(run_next, self.run.settings.warmup, clock=self.run.clock)
            return time_runs(run_next, budget, clock=self.run.clock)

        bare_s = bare() if self.round % 2 == 0 else ()
        outcome = self.run.generator.run(spec)
        refuse_silence(outcome, self.arm.source.name)
        return outcome, bare_s or bare()


def refuse_silence(outcome: LoadOutcome, name: str) -> None:
    """Refuse a load of which nothing can be said.

    Raises:
        EngineFailed: the server answered no request.
    """
    if not outcome.latency_s:
        raise EngineFailed(
            f"the server of {name} stopped answering",
            got=outcome.reason or f"{outcome.refused} refused",
            fix="see its log",
        )


def _run_next(session: Session, batches: Iterator[Batch]) -> None:
    """Run the batch whose turn it is."""
    session.run(next(batches))
