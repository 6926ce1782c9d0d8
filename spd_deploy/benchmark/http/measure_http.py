"""Measures every arm over HTTP, in interleaved rounds, each in a server process of its own.

In a round each arm's server is started, warmed up, loaded and stopped: one server at a time, as one
session at a time on a CPU. The bare engine runs in this process, in turns with the requests of one
connection. A server that runs already is used as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from spd_deploy.benchmark.arms import Arm, ArmSource
from spd_deploy.benchmark.artefact_arms import open_source
from spd_deploy.benchmark.http.http_records import HttpLoad, HttpPart, HttpSettings
from spd_deploy.benchmark.http.load import load_generator
from spd_deploy.benchmark.http.load_spec import LoadOutcome
from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.servers import facts_at, match_servers, refuse_other_effort
from spd_deploy.benchmark.http.visit import HttpRun, PreparedArm, Visit
from spd_deploy.benchmark.http.workload import workload_of
from spd_deploy.benchmark.records import BenchmarkSettings
from spd_deploy.domain.errors import BadSetting, EngineFailed, OptionConflict
from spd_deploy.domain.progress import Progress
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import Clock
from spd_deploy.timing.rounds import interleave


def measure_http(
    arms: Sequence[Arm],
    settings: BenchmarkSettings,
    http: HttpSettings,
    *,
    urls: Sequence[str] = (),
    api_key: str | None = None,
    clock: Clock,
    progress: Progress,
) -> HttpPart:
    """Load every arm in every round.

    ``api_key`` is that of the servers at ``urls``.

    Raises:
        OptionConflict: an arm is no artefact, so that nothing can serve it.
        BadSetting: a server is of another model; a shape is not served; or one request alone takes
            longer than the bound in every arm.
        EngineFailed: a server did not start, or answered nothing or wrongly.
    """
    sources = sources_to_serve(arms)
    known = match_servers(sources, urls, api_key=api_key)
    with load_generator() as generator:
        run = HttpRun(
            settings=settings, http=http, generator=generator, clock=clock, api_key=api_key
        )
        prepared: dict[str, PreparedArm] = {}
        with progress.stage("check over HTTP", len(sources)) as advance:
            for source in sources:
                prepared[source.name] = prepare(run, source, known.get(source.name))
                advance(note=source.name)
        refuse_tight_bound(prepared, http.latency_bound_s)
        loads: list[HttpLoad] = []
        with progress.stage("measure over HTTP", settings.rounds * len(prepared)) as advance:
            for number, name in interleave(tuple(prepared), settings.rounds):
                with opened(run, prepared[name].source, prepared[name].url) as (url, session):
                    visit = Visit(
                        run=run, arm=prepared[name], round=number, url=url, session=session
                    )
                    loads += list(visit.loads(loads))
                advance(note=name)
    first = next(iter(prepared.values()))
    return HttpPart(
        settings=http,
        texts_per_request=first.texts_per_request,
        in_flight=first.in_flight,
        loads=tuple(loads),
    )


def sources_to_serve(arms: Sequence[Arm]) -> list[ArmSource]:
    """The artefacts behind the arms.

    Raises:
        OptionConflict: an arm has none.
    """
    if lacking := [arm.name for arm in arms if arm.source is None]:
        raise OptionConflict(
            "--http measures what spd serve serves, and this dense arm is no artefact",
            got=lacking[0],
            fix="give an artefact as --baseline: export the checkpoint first",
        )
    return [arm.source for arm in arms if arm.source is not None]


def prepare(run: HttpRun, source: ArmSource, url: str | None) -> PreparedArm:
    """Make the requests of an arm, and ask its server each of them once.

    Raises:
        BadSetting: the server runs otherwise than the bare engine, or does not take the shapes.
        EngineFailed: it did not start, or answered nothing or wrongly.
    """
    settings = run.settings
    with opened(run, source, url) as (at, session):
        facts = facts_at(at, api_key=run.api_key)
        refuse_other_effort(facts, at, device=settings.device, threads=settings.threads)
        workload = workload_of(
            source.artefact,
            session,
            settings.shapes,
            max_inputs=facts.max_inputs,
            texts_per_request=facts.texts_per_request,
            seed=settings.seed,
        )
        alone = run.ask(at, workload.mixed, workload.tolerance, len(workload.mixed))
    refuse_bad_answers(alone, source.name)
    tokens = max(int(batch.mask_BS.sum()) for batch in workload.offline_batches)
    return PreparedArm(
        source=source,
        workload=workload,
        alone_s=sorted(alone.latency_s)[len(alone.latency_s) // 2],
        texts_per_request=facts.texts_per_request,
        in_flight=facts.in_flight(tokens),
        url=url,
    )


def refuse_tight_bound(prepared: Mapping[str, PreparedArm], bound_s: float) -> None:
    """Refuse a bound that no arm meets even with one request at a time.

    Raises:
        BadSetting: no arm does.
    """
    fastest = min(prepared.values(), key=lambda one: one.alone_s)
    if fastest.alone_s > bound_s:
        raise BadSetting(
            "one request at a time already takes longer than --latency-bound in every arm",
            got=f"{1e3 * bound_s:g} ms, and {fastest.source.name} takes "
            f"{1e3 * fastest.alone_s:.1f} ms",
            fix="allow more, or measure shorter texts with --seq",
        )


def refuse_bad_answers(outcome: LoadOutcome, name: str) -> None:
    """Refuse a server that does not answer, or not with the right logits, before it is loaded.

    Raises:
        EngineFailed: one request at a time already fails, is refused or is answered wrongly.
    """
    if outcome.failed or outcome.refused or not outcome.latency_s:
        raise EngineFailed(
            f"the server of {name} does not answer one request at a time",
            got=outcome.reason or f"{outcome.refused} refused",
            fix="see its log",
        )
    if outcome.wrong:
        raise EngineFailed(
            f"the server of {name} does not give the logits of the bare engine",
            got=f"{outcome.wrong} of {outcome.rows} wrong, by up to {outcome.difference:.2g}",
            fix="see that the server is of this version and serves this artefact",
        )


@contextmanager
def opened(run: HttpRun, source: ArmSource, url: str | None) -> Iterator[tuple[str, Session]]:
    """The URL of the arm's server, and the arm's bare session beside it."""
    server: AbstractContextManager[str] = (
        nullcontext(url) if url is not None else _started(run.settings, source)
    )
    with server as at, open_source(source, run.settings) as session:
        yield at, session


@contextmanager
def _started(settings: BenchmarkSettings, source: ArmSource) -> Iterator[str]:
    """The URL of a server that is started for the arm."""
    options = ["--device", settings.device, "--runtime", str(source.runtime_choice)]
    if settings.threads is not None:
        options += ["--threads", str(settings.threads)]
    with serving(source.artefact.folder, options) as server:
        yield server.url
