"""One benchmark from arms to report, on a CPU or a GPU: check, weigh, measure, profile.

On a CPU one session is open at a time and is opened anew in every round: the idle threads of
another would slow it. On a GPU all sessions stay open: an idle one takes nothing but memory, and
to open one may compile it. There the GPU's own clock, its limits and its kernels are measured too.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from time import perf_counter_ns

from spd_deploy.benchmark.arms import Arm, batches_for
from spd_deploy.benchmark.check_arms import CheckedArm, Weigh, check_arms
from spd_deploy.benchmark.device.cuda_tools import DeviceTools, cuda_tools
from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.device.measure_device import device_part_of, measure_with_device
from spd_deploy.benchmark.layers.profile_layers import profile_layers, to_profile
from spd_deploy.benchmark.measure import measure
from spd_deploy.benchmark.memory import memory_of
from spd_deploy.benchmark.records import BenchmarkSettings, Series, Shape, Skipped
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.nvidia import GpuReading
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.text import Batch
from spd_deploy.machine.facts import this_machine
from spd_deploy.timing.host_clock import Clock
from spd_deploy.timing.machine_load import Conditions, LoadObserver, load_average


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTools:
    """Everything that a run measures with; tests put simulated tools in its place.

    Attributes:
        clock: the host's.
        weigh: measures the memory of an artefact's process.
        device: the GPU's clock, limits and tracer; None on a CPU.
    """

    clock: Clock = perf_counter_ns
    weigh: Weigh = memory_of
    device: DeviceTools | None = None


def run_benchmark(
    arms: Sequence[Arm],
    settings: BenchmarkSettings,
    *,
    baselines: Collection[str] = (),
    skipped: Sequence[Skipped] = (),
    skip_failing: bool = False,
    profile: bool = False,
    progress: Progress | None = None,
    tools: RunTools | None = None,
) -> Report:
    """Measure the arms in turns and compare them with the baselines.

    Every arm proves its logits and is weighed before any is timed.

    Args:
        arms: in the order of the report.
        settings: how to measure, and on which device.
        baselines: names of the arms that the others are compared with. Where there are several,
            each shape is compared with the fastest, and one that does not run is left out.
        skipped: what the caller already knows not to run here.
        skip_failing: leave out every arm that does not run, with its reason.
        profile: also time the operators of each sparse fp32 arm in ONNX Runtime, in turns with a
            dense baseline. The report tells of the other sparse arms why they were not profiled.
        progress: shows how far it is.
        tools: measure with these; None takes those of this machine.

    Raises:
        BadArtefact: an arm does not give its model's logits, or reads shorter texts only.
        Unavailable: the device is not there, or none of the baselines runs on it.
    """
    progress, load_before = progress or Silent(), load_average()
    batches = batches_for(arms, settings)
    profiled, unprofiled = to_profile(arms if profile else (), settings, progress)
    tools = tools or RunTools(device=cuda_tools() if settings.device == "cuda" else None)
    before = None if tools.device is None else tools.device.read_state(0.0)
    with ExitStack() as stack:
        checked, failed = check_arms(
            arms,
            settings,
            stack,
            weigh=tools.weigh,
            device=tools.device,
            baselines=baselines,
            skip_failing=skip_failing,
            progress=progress,
        )
        measured = _measure(
            checked, batches, settings, tools, LoadObserver(load_before), before, progress
        )
    layers = [profile_layers(source, settings, progress=progress) for source in profiled]
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        settings=settings,
        conditions=measured.conditions,
        baselines=tuple(one.arm.name for one in checked if one.arm.name in baselines),
        arms=tuple(one.facts for one in checked),
        series=measured.series,
        layers=tuple(chain.from_iterable(layers)),
        device=measured.device,
        unprofiled=unprofiled,
        skipped=(*skipped, *failed, *measured.skipped),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredRun:
    """The samples of a run, the work of other processes meanwhile, and the device part."""

    series: tuple[Series, ...]
    conditions: Conditions
    device: DevicePart | None = None
    skipped: tuple[Skipped, ...] = ()


def _measure(
    checked: Sequence[CheckedArm],
    batches: Mapping[Shape, Batch],
    settings: BenchmarkSettings,
    tools: RunTools,
    observer: LoadObserver,
    before: GpuReading | None,
    progress: Progress,
) -> MeasuredRun:
    """All arms in rounds by the host's clock; on a GPU then by its own clock, kernels last."""
    openers = {one.arm.name: partial(one.session_in_round, settings) for one in checked}
    by_host = partial(measure, openers, batches, settings, clock=tools.clock, progress=progress)
    if tools.device is None:
        return MeasuredRun(series=by_host(), conditions=observer.conditions())
    series, timings = measure_with_device(
        by_host, checked, batches, settings, tools.device, clock=tools.clock, progress=progress
    )
    conditions = observer.conditions()
    device, skipped = device_part_of(checked, batches, timings, tools.device, before, progress)
    return MeasuredRun(series=series, conditions=conditions, device=device, skipped=skipped)
