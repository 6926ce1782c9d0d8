"""The device part of a run: the GPU's limits, its clock, its state, and the kernels that ran."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from spd_deploy.benchmark.check_arms import CheckedArm
from spd_deploy.benchmark.device.cuda_tools import DeviceTools
from spd_deploy.benchmark.device.device_records import (
    DeviceArm,
    DevicePart,
    KernelTrace,
    MemoryCopy,
    Peak,
    ShapeWork,
    TracedKernel,
)
from spd_deploy.benchmark.device.time_device import DeviceSamples, DeviceTimer, time_arms
from spd_deploy.benchmark.device.watch_gpu import GpuStates, watching
from spd_deploy.benchmark.records import BenchmarkSettings, Series, Shape, Skipped
from spd_deploy.domain.errors import reason_of
from spd_deploy.domain.number_types import NUMBER_TYPES
from spd_deploy.domain.nvidia import GpuReading
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device_runs import DeviceRuns
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTimings:
    """The samples of the GPU's clock, its limits, and its state meanwhile.

    Attributes:
        skipped: precisions that this GPU does not multiply in.
    """

    watch: GpuStates
    peaks: tuple[Peak, ...]
    memory_copy: MemoryCopy
    samples: DeviceSamples
    skipped: tuple[Skipped, ...]


def measure_with_device(
    by_host: Callable[[], tuple[Series, ...]],
    checked: Sequence[CheckedArm],
    batches: Mapping[Shape, Batch],
    settings: BenchmarkSettings,
    tools: DeviceTools,
    *,
    clock: Clock,
    progress: Progress,
) -> tuple[tuple[Series, ...], DeviceTimings]:
    """The limits, then all arms by the host's clock, then by the GPU's; its state is watched."""
    kept = {one.arm.name: one.session for one in checked if one.session is not None}
    offering = {name: session for name, session in kept.items() if isinstance(session, DeviceRuns)}
    timer = DeviceTimer(gpu=tools.gpu, clock=clock, settings=settings)
    with watching(tools.read_state) as watch:
        peaks, skipped = tools.peaks()
        memory_copy = tools.memory_copy()
        series = by_host()
        samples = time_arms(offering, batches, timer, progress=progress)
    return series, DeviceTimings(
        watch=watch, peaks=peaks, memory_copy=memory_copy, samples=samples, skipped=skipped
    )


def device_part_of(
    checked: Sequence[CheckedArm],
    batches: Mapping[Shape, Batch],
    timings: DeviceTimings,
    tools: DeviceTools,
    before: GpuReading | None,
    progress: Progress,
) -> tuple[DevicePart, tuple[Skipped, ...]]:
    """The device part of the report, and what it lacks; ``before`` is from before the run.

    Kernels are traced here, last of all: the tracer may stay attached to the driver and slow
    launches down.
    """
    traces, untraced = _traced(checked, batches, tools, progress)
    part = DevicePart(
        card=timings.watch.properties,
        before=before.state if before else None,
        during=tuple(timings.watch.during),
        after=timings.watch.after,
        processes_before=tools.processes_before,
        l2_bytes=tools.l2_bytes,
        versions=tools.versions,
        peaks=timings.peaks,
        memory_copy=timings.memory_copy,
        arms=tuple(_device_arm(one, timings.samples, traces[one.arm.name]) for one in checked),
        series=tuple(timings.samples.series),
        copies=tuple(timings.samples.copies),
    )
    return part, (*timings.skipped, *untraced)


def _traced(
    checked: Sequence[CheckedArm],
    batches: Mapping[Shape, Batch],
    tools: DeviceTools,
    progress: Progress,
) -> tuple[dict[str, tuple[KernelTrace, ...]], tuple[Skipped, ...]]:
    """The kernels of one run of each arm at each shape, and what was not traced."""
    found: dict[str, tuple[KernelTrace, ...]] = {}
    untraced: list[Skipped] = []
    with progress.stage("trace kernels", len(checked)) as advance:
        for one in checked:
            traces, name = [], one.arm.name
            for shape, batch in batches.items():
                assert one.session is not None  # noqa: S101 - on a GPU sessions stay open
                kernels, fault = _kernels(one.session, batch, tools)
                if fault is not None:
                    untraced.append(Skipped(name=f"kernels of {name} at {shape}", reason=fault))
                described = one.session.description  # of its last run
                traces.append(
                    KernelTrace(
                        shape=shape,
                        kernels=kernels,
                        described=described.kernels,
                        sparse_kernels=described.sparse_kernels,
                    )
                )
            found[name] = tuple(traces)
            advance(note=name)
    return found, tuple(untraced)


def _kernels(
    session: Session, batch: Batch, tools: DeviceTools
) -> tuple[tuple[TracedKernel, ...] | None, str | None]:
    """The kernels of a run, or why tracing failed, which loses nothing measured before."""
    try:
        session.run(batch)  # the tracer runs nothing where it cannot trace
        return tools.trace(partial(session.run, batch)), None
    except Exception as err:  # noqa: BLE001 - see above
        return None, reason_of(err)


def _device_arm(
    checked: CheckedArm, samples: DeviceSamples, traces: tuple[KernelTrace, ...]
) -> DeviceArm:
    """The device part of an arm; its work is counted where the size of its numbers is known."""
    arm, number = checked.arm, NUMBER_TYPES.get(checked.facts.precision)
    work = (
        ()
        if number is None
        else tuple(ShapeWork(shape=one.shape, work=arm.work(one, number.bytes)) for one in traces)
    )
    return DeviceArm(
        name=arm.name,
        traces=traces,
        device_bytes=checked.device_bytes,
        work=work,
        untimed=samples.untimed_of(arm.name),
    )
