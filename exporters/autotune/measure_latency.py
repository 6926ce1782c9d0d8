"""Measures the latency table of this machine: whole networks of a model's sizes, in rounds.

The networks are those that an export of a structured model writes, in the session that serves it
(``structured_network``), with drawn weights. One is open at a time, and its file is removed again
with it, since the networks of a large model together would fill a disk.

A table is made of small differences, which a disturbed run would drown. So of each round the
fastest run counts, and of the rounds the fast ones (``part_times.undisturbed``).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import geometric_mean
from time import perf_counter_ns

from exporters.autotune.fit_latency import fit_shape, networks_to_check, networks_to_time
from exporters.autotune.networks import opened_network, write_networks
from exporters.autotune.structured_network import structured_choices
from exporters.classifier_weights import ClassifierWeights
from exporters.precision import Precision
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.latency_table import EncoderSizes, LatencyTable
from spd_deploy.domain.part_times import TimedStructures, settled, undisturbed
from spd_deploy.domain.progress import Advance, Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime, computed_in, traits_of
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.shapes import Shape, refuse_too_long
from spd_deploy.domain.spelling import counted
from spd_deploy.domain.structures import Structures
from spd_deploy.timing.host_clock import Clock, TimingSettings
from spd_deploy.timing.interleaved import Run, time_interleaved

LATENCY_TIMING = TimingSettings(seconds=0.3, rounds=3, warmup_runs=1)
# Rounds beyond those of the timing, for networks of which no two rounds agree.
_MORE_ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyPlan:
    """The plan of a latency table: shapes, runtime, precision, threads.

    Attributes:
        stored: precision of the graph.
        computed: the runtime's own precision where it is another: bf16 in OpenVINO.
        machine: the name of this machine in the table.
        timing: of one network at one shape; what other work disturbs is timed in more rounds.
    """

    shapes: tuple[Shape, ...]
    threads: int
    machine: str
    runtime: CpuRuntime = "onnxruntime"
    stored: Precision = Precision.FP32
    computed: str | None = None
    timing: TimingSettings = LATENCY_TIMING

    def __post_init__(self) -> None:
        """There are shapes, each once, and a thread."""
        if not self.shapes or len(set(self.shapes)) < len(self.shapes) or self.threads < 1:
            raise BadSetting(
                "a latency table needs shapes, each once, and threads",
                got=", ".join(map(str, self.shapes)) or "no shape",
                fix="name shapes such as --at 1x32,8x128",
            )

        precisions = traits_of(self.runtime).precisions_of(self.stored.value)
        if self.computed is not None and self.computed not in precisions:
            raise BadSetting(
                f"{self.runtime} does not round to {self.computed}",
                got=f"{self.computed} in {self.runtime}",
                fix="use --runtime openvino",
            )

    @property
    def precision(self) -> str:
        """The precision in which the runtime computes."""
        return computed_in(self.stored.value, self.computed)

    @property
    def where(self) -> str:
        """Such as ``onnxruntime, fp32, 2 threads, 8x128, AMD EPYC``."""
        threads = counted(self.threads, "thread")
        shapes = ", ".join(map(str, self.shapes))
        return f"{self.runtime}, {self.precision}, {threads}, {shapes}, {self.machine}"


def measure_latency_table(
    weights: ClassifierWeights,
    plan: LatencyPlan,
    *,
    progress: Progress | None = None,
    clock: Clock = perf_counter_ns,
) -> LatencyTable:
    """Time networks of the sizes of ``weights``, and fit the table to them.

    Raises:
        BadSetting: a shape with more tokens than the model has positions.
        Unavailable: the runtime is not installed, or does not run this precision.
    """
    refuse_too_long(plan.shapes, weights.encoder.positions)
    sizes = EncoderSizes.of(weights.encoder)
    networks = networks_to_time(sizes)
    both = list(dict.fromkeys((*networks, *networks_to_check(sizes))))
    timed = time_structures(weights, both, plan, progress=progress, clock=clock)
    fitted = timed[: len(networks)]
    return LatencyTable(
        machine=plan.machine,
        runtime=plan.runtime,
        precision=plan.precision,
        threads=plan.threads,
        sizes=sizes,
        times=tuple(
            fit_shape(shape, networks, [undisturbed(one.seconds[i]) for one in fitted])
            for i, shape in enumerate(plan.shapes)
        ),
        networks=fitted,
        checks=timed[len(networks) :],
    )


def structures_speedup(
    weights: ClassifierWeights,
    structures: Structures,
    plan: LatencyPlan,
    *,
    progress: Progress | None = None,
) -> float:
    """How many times as fast as dense a network with ``structures`` is, measured in turns.

    Of several shapes it is the geometric mean.
    """
    dense, sparse = time_structures(
        weights, (Structures.all_of(weights.encoder), structures), plan, progress=progress
    )
    pairs = zip(dense.seconds, sparse.seconds, strict=True)
    return geometric_mean(undisturbed(a) / undisturbed(b) for a, b in pairs)


def time_structures(
    weights: ClassifierWeights,
    networks: Sequence[Structures],
    plan: LatencyPlan,
    *,
    progress: Progress | None = None,
    clock: Clock = perf_counter_ns,
) -> tuple[TimedStructures, ...]:
    """Seconds of structured networks at each shape: the fastest run of each round.

    Every network is timed in the rounds of the plan. Those of which no two agree go on for some
    more, since other work disturbed them.
    """
    progress = progress or Silent()
    found: dict[Structures, list[list[float]]] = {n: [[] for _ in plan.shapes] for n in networks}
    waiting = list(networks)
    series, least = plan.timing.series, plan.timing.rounds
    timing = replace(plan.timing, seconds=series.seconds, rounds=1)
    for round_index in range(least + _MORE_ROUNDS):
        most = f"{least}" if round_index < least else f"at most {least + _MORE_ROUNDS}"
        stage = f"time {len(waiting)} networks, round {round_index + 1} of {most}"
        with progress.stage(stage, len(waiting)) as advance:
            openers = {n: partial(_opened, weights, n, plan, advance) for n in waiting}
            seconds = time_interleaved(openers, plan.shapes, timing, clock=clock, typical=min)
        for network in waiting:
            for rounds, new in zip(found[network], seconds[network], strict=True):
                rounds += new
        unsettled = [
            n for n in waiting if round_index + 1 < least or not all(map(settled, found[n]))
        ]
        waiting = unsettled[::-1]
        if not waiting:
            break
    return tuple(
        TimedStructures(structures=network, seconds=tuple(map(tuple, found[network])))
        for network in networks
    )


@contextmanager
def _opened(
    weights: ClassifierWeights,
    structures: Structures,
    plan: LatencyPlan,
    advance: Advance,
) -> Iterator[Run]:
    """A structured network, written and opened; both are undone afterwards."""
    with scratch_folder("latency") as scratch:
        file = scratch / "model.onnx"
        choices = structured_choices(weights, structures)
        write_networks({file: choices}, weights, runtime=plan.runtime, precision=plan.stored)
        with opened_network(
            file,
            weights.encoder,
            shapes=plan.shapes,
            runtime=plan.runtime,
            precision=plan.precision,
            threads=plan.threads,
        ) as run:
            yield run
    advance()
