"""What ``spd export --tune`` measures, and what casts doubt on it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import CpuRuntime, RuntimeChoice

if TYPE_CHECKING:
    from exporters.autotune.tune import TuningPlan
    from exporters.autotune.tuning import Tuning
    from exporters.classifier_weights import ClassifierWeights
    from exporters.export import Tuner
    from exporters.precision import Precision
    from spd_deploy.domain.checkpoint import Checkpoint


def plan_of(
    batches: tuple[int, ...],
    seqs: tuple[int, ...],
    threads: int | None,
    seconds: float | None,
    precision: "Precision",
) -> "TuningPlan":
    """What is to be measured on this machine, and how long."""
    from exporters.autotune.tune import TuningPlan
    from spd_deploy.domain.cores import default_threads
    from spd_deploy.domain.shapes import Shape
    from spd_deploy.machine.facts import this_machine
    from spd_deploy.timing.host_clock import Effort

    return TuningPlan(
        shapes=Shape.grid(batches, seqs),
        threads=threads or default_threads(),
        machine=this_machine().cpu,
        precision=precision,
        effort=Effort() if seconds is None else Effort(seconds=seconds),
    )


def known_tuning(file: Path) -> "Tuner":
    """What was measured before."""
    from exporters.autotune.tuning import read_tuning

    known = read_tuning(file)
    return lambda checkpoint, weights: known


def runtimes_for(asked: RuntimeChoice) -> tuple[CpuRuntime, ...]:
    """In which runtimes to tune: in the one asked for, else in each that takes the task."""
    if asked.runtime is None:
        return ("onnxruntime", "openvino")
    return ("openvino",) if asked.runtime == "openvino" else ("onnxruntime",)


def tuner_for(plan: "TuningPlan", runtimes: Sequence[CpuRuntime], progress: Progress) -> "Tuner":
    """Measures on this machine, and says what casts doubt on that."""
    from exporters.autotune.tune import tune
    from exporters.autotune.tuning import fastest_of
    from spd_deploy.benchmark.warnings import conditions_doubts
    from spd_deploy.machine.facts import this_machine
    from spd_deploy.timing.machine_load import LoadObserver, load_average

    def measured(checkpoint: "Checkpoint", weights: "ClassifierWeights") -> "Tuning":
        """The tuning in the runtime whose network is the fastest, with its doubts."""
        observer = LoadObserver(load_average())
        plans = [replace(plan, runtime=runtime) for runtime in runtimes]
        found = fastest_of(tune(checkpoint, weights, plans, progress=progress))
        seen = observer.conditions()
        doubts = tuple(conditions_doubts(this_machine(), seen, plan.threads))
        for doubt in doubts:
            progress.note(f"doubt: {doubt}")
        return replace(found, doubts=doubts)

    return measured
