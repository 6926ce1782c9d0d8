"""One benchmark on a GPU: prove every entrant, find the limits, measure by both clocks, trace.

All sessions stay open from then on. An idle session takes memory on a GPU and nothing else, and to
open one may compile it, which no one would wait for in every round. A dense baseline that does not
run here is left out with its reason; a sparse artefact that does not is an error, unless it was
said that it may be spared.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from spd_deploy.benchmark.cuda.entrants import Entrant, number_bytes
from spd_deploy.benchmark.device.cuda_tools import DeviceTools, cuda_tools
from spd_deploy.benchmark.device.device_records import (
    DeviceArm,
    DevicePart,
    KernelTrace,
    MemoryCopy,
    Peak,
    ShapeWork,
    Skipped,
    TracedKernel,
)
from spd_deploy.benchmark.device.time_device import DeviceSamples, DeviceTimer, time_arms
from spd_deploy.benchmark.device.watch_gpu import GpuWatch, watching
from spd_deploy.benchmark.measure import measure
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, Series, Shape
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.errors import BadArtefact, Unavailable, reason_of
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.shapes import random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.machine.facts import this_machine
from spd_deploy.sessions.device_runs import DeviceRuns
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.machine_load import LoadObserver, load_average


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """An entrant that runs here."""

    entrant: Entrant
    session: Session
    facts: ArmFacts
    device_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Took:
    """What was measured, and what the card did meanwhile; ``lacking`` are rates it has not."""

    watch: GpuWatch
    peaks: tuple[Peak, ...]
    lacking: tuple[Skipped, ...]
    copied: MemoryCopy
    by_host: tuple[Series, ...]
    by_gpu: DeviceSamples


def run_on_gpu(
    entrants: Sequence[Entrant],
    settings: BenchmarkSettings,
    *,
    absent: Sequence[Skipped] = (),
    spare: bool = False,
    progress: Progress | None = None,
    tools: DeviceTools | None = None,
) -> Report:
    """Compare the entrants, the dense ones among them being the baselines.

    Args:
        entrants: who takes part, in the order of the report.
        settings: how to measure.
        absent: what is known beforehand not to run here.
        spare: whether a sparse entrant that does not run is left out as a dense one is.
        progress: shows how far it is.
        tools: those of PyTorch's current device where none are given.

    Raises:
        Unavailable: there is no GPU, or nothing dense runs on it although some should.
        BadArtefact: an entrant does not give its model's logits, or reads shorter texts only.
    """
    refuse_long(entrants, settings)
    progress, load_before = progress or Silent(), load_average()
    tools = tools or cuda_tools()
    batches, seen = batches_of(entrants, settings), tools.look(0.0)
    with ExitStack() as stack:
        opened, missing = _opened(entrants, tools, stack, progress, spare=spare)
        observer = LoadObserver(load_before)
        took = _measured(opened, batches, settings, tools, progress)
        conditions = observer.conditions()
        # Last of all: what traces kernels may stay attached to the driver and slow launches down.
        ran, untraced = _traced(opened, batches, tools, progress)
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        settings=settings,
        conditions=conditions,
        baseline=next((o.entrant.name for o in opened if o.entrant.dense), None),
        arms=tuple(o.facts for o in opened),
        series=took.by_host,
        gpu=DevicePart(
            card=took.watch.card,
            before=seen.state if seen else None,
            during=tuple(took.watch.during),
            after=took.watch.after,
            processes_before=tools.processes_before,
            l2_bytes=tools.l2_bytes,
            versions=tools.versions,
            peaks=took.peaks,
            copied=took.copied,
            arms=tuple(_device_arm(o, took.by_gpu, ran) for o in opened),
            series=tuple(took.by_gpu.series),
            copies=tuple(took.by_gpu.copies),
            absent=(*absent, *missing, *took.lacking, *untraced),
        ),
    )


def refuse_long(entrants: Sequence[Entrant], settings: BenchmarkSettings) -> None:
    """Refuse shapes that some entrant does not read.

    Raises:
        BadArtefact: one is longer.
    """
    longest = max(shape.seq for shape in settings.shapes)
    for entrant in entrants:
        if longest > entrant.longest:
            raise BadArtefact(
                f"{entrant.name} cuts its texts at {entrant.longest} tokens",
                got=f"sequences of {longest}",
                fix=f"measure --seq {entrant.longest} or less",
            )


def batches_of(entrants: Sequence[Entrant], settings: BenchmarkSettings) -> dict[Shape, Batch]:
    """Random token ids for each shape, the same for all."""
    vocabulary = min(entrant.encoder.vocabulary for entrant in entrants)
    random = np.random.default_rng(settings.seed)
    return {shape: random_batch(shape, vocabulary, random) for shape in settings.shapes}


def _opened(
    entrants: Sequence[Entrant],
    tools: DeviceTools,
    stack: ExitStack,
    progress: Progress,
    *,
    spare: bool,
) -> tuple[tuple[Opened, ...], tuple[Skipped, ...]]:
    """Each entrant open and proven; dense ones that do not run, with the reason."""
    found, missing = [], []
    with progress.stage("open and check", len(entrants)) as advance:
        for entrant in entrants:
            try:
                found.append(_open(entrant, tools, stack))
            except Exception as err:
                if not (entrant.dense or spare):
                    raise
                missing.append(Skipped(name=entrant.name, reason=reason_of(err)))
                progress.note(f"{entrant.name} is left out: {reason_of(err)}")
            advance(note=entrant.name)
    if any(e.dense for e in entrants) and not any(o.entrant.dense for o in found):
        raise Unavailable(
            "none of the dense baselines runs here, so there is nothing to compare with",
            got="; ".join(f"{one.name}: {one.reason}" for one in missing),
            fix="mend one of them, or measure without: --dense none",
        )
    return tuple(found), tuple(missing)


def _open(entrant: Entrant, tools: DeviceTools, stack: ExitStack) -> Opened:
    """Open one, and close it again at once where it fails to prove itself."""
    before = tools.used_bytes()
    with ExitStack() as alone:
        session = alone.enter_context(entrant.open())
        off = entrant.check(session)
        facts = entrant.facts(session.description, off)
        stack.push(alone.pop_all())
    return Opened(
        entrant=entrant,
        session=session,
        facts=facts,
        device_bytes=max(0, tools.used_bytes() - before),
    )


def _measured(
    opened: Sequence[Opened],
    batches: Mapping[Shape, Batch],
    settings: BenchmarkSettings,
    tools: DeviceTools,
    progress: Progress,
) -> Took:
    """The limits, then all arms in rounds by the host's clock, then by the GPU's; watched."""
    offering = {o.entrant.name: o.session for o in opened if isinstance(o.session, DeviceRuns)}
    timer = DeviceTimer(gpu=tools.gpu, clock=tools.clock, settings=settings)
    with watching(tools.look) as watch:
        peaks, lacking = tools.peaks()
        copied = tools.copied()
        by_host = _by_host(opened, batches, settings, tools, progress)
        by_gpu = time_arms(offering, batches, timer, progress=progress)
    return Took(
        watch=watch, peaks=peaks, lacking=lacking, copied=copied, by_host=by_host, by_gpu=by_gpu
    )


def _by_host(
    opened: Sequence[Opened],
    batches: Mapping[Shape, Batch],
    settings: BenchmarkSettings,
    tools: DeviceTools,
    progress: Progress,
) -> tuple[Series, ...]:
    """The host's clock around whole calls, in rounds, as on a CPU; sessions stay open."""

    def kept(session: Session) -> AbstractContextManager[Session]:
        """A context that leaves the session open."""
        return nullcontext(session)

    openers = {o.entrant.name: partial(kept, o.session) for o in opened}
    return measure(openers, batches, settings, clock=tools.clock, progress=progress)


def _traced(
    opened: Sequence[Opened], batches: Mapping[Shape, Batch], tools: DeviceTools, progress: Progress
) -> tuple[dict[str, tuple[KernelTrace, ...]], tuple[Skipped, ...]]:
    """What one run of each arm launches at each shape; and what was not traced, with the reason."""
    found, untraced = {}, []
    with progress.stage("trace kernels", len(opened)) as advance:
        for one in opened:
            name, ran = one.entrant.name, []
            for shape, batch in batches.items():
                kernels, fault = _kernels(one.session, batch, tools)
                if fault is not None:
                    untraced.append(Skipped(name=f"kernels of {name} at {shape}", reason=fault))
                said = one.session.description  # of its last run
                ran.append(
                    KernelTrace(
                        shape=shape,
                        kernels=kernels,
                        said=said.kernels,
                        sparse_kernels=said.sparse_kernels,
                    )
                )
            found[name] = tuple(ran)
            advance(note=name)
    return found, tuple(untraced)


def _kernels(
    session: Session, batch: Batch, tools: DeviceTools
) -> tuple[tuple[TracedKernel, ...] | None, str | None]:
    """The kernels of a run, or why tracing them failed; all that was measured before it stays."""
    try:
        session.run(batch)  # the tracer runs nothing where it cannot trace
        return tools.trace(partial(session.run, batch)), None
    except Exception as err:  # noqa: BLE001 - see above
        return None, reason_of(err)


def _device_arm(
    opened: Opened,
    found: DeviceSamples,
    ran: Mapping[str, tuple[KernelTrace, ...]],
) -> DeviceArm:
    """What is told of an arm on the GPU."""
    entrant, size = opened.entrant, number_bytes(opened.facts.precision)
    counted = () if size is None else ran[entrant.name]
    return DeviceArm(
        name=entrant.name,
        dense=entrant.dense,
        ran=ran[entrant.name],
        device_bytes=opened.device_bytes,
        work=tuple(
            ShapeWork(shape=one.shape, work=entrant.work(one, size or 0)) for one in counted
        ),
        untimed=found.untimed_of(entrant.name),
    )
