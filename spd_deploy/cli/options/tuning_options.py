"""``spd export --tune`` and ``--tuning``: where the times to choose lowerings by come from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import CPU_RUNTIMES, CpuRuntime, RuntimeChoice

if TYPE_CHECKING:
    from exporters.autotune.tune import TuningPlan
    from exporters.autotune.tuning import Tuning
    from exporters.classifier_weights import ClassifierWeights
    from exporters.export import Tuner
    from exporters.precision import Precision
    from spd_deploy.domain.checkpoint import Checkpoint


def tuning_plan(
    batches: tuple[int, ...],
    seqs: tuple[int, ...],
    threads: int | None,
    seconds: float | None,
    precision: "Precision",
) -> "TuningPlan":
    """The plan of a tuning on this machine."""
    from exporters.autotune.tune import TuningPlan
    from spd_deploy.domain.cores import default_threads
    from spd_deploy.domain.shapes import Shape
    from spd_deploy.machine.facts import this_machine
    from spd_deploy.timing.host_clock import TimingSettings

    return TuningPlan(
        shapes=Shape.grid(batches, seqs),
        threads=threads or default_threads(),
        machine=this_machine().cpu,
        precision=precision,
        timing=TimingSettings() if seconds is None else TimingSettings(seconds=seconds),
    )


def saved_tuning(file: Path) -> "Tuner":
    """A tuner that returns the times of a ``tuning.json``."""
    from exporters.autotune.tuning import read_tuning

    tuning = read_tuning(file)
    return lambda checkpoint, weights: tuning


def tuned_runtimes(choice: RuntimeChoice) -> tuple[CpuRuntime, ...]:
    """The runtimes to tune in: the one that was chosen, or all of a CPU for ``auto``.

    Raises:
        BadSetting: the chosen one is no runtime of a CPU.
    """
    match choice.runtime:
        case None:
            return CPU_RUNTIMES
        case "onnxruntime" | "openvino":
            return (choice.runtime,)
        case "tensorrt" | "torch":
            raise BadSetting(
                "--tune times the runtimes of a CPU",
                got=f"--runtime {choice}",
                fix="leave --tune out; spd build times an engine on the GPU",
            )
        case never:
            assert_never(never)


def tuner_for(plan: "TuningPlan", runtimes: Sequence[CpuRuntime], progress: Progress) -> "Tuner":
    """A tuner that times on this machine, and notes reasons to doubt the times."""
    from exporters.autotune.tune import tune
    from exporters.autotune.tuning import fastest_tuning
    from spd_deploy.benchmark.machine_warnings import load_caveats
    from spd_deploy.machine.facts import this_machine
    from spd_deploy.timing.machine_load import LoadObserver, load_average

    def measure(checkpoint: "Checkpoint", weights: "ClassifierWeights") -> "Tuning":
        """The tuning of the runtime with the fastest network, with the doubts."""
        observer = LoadObserver(load_average())
        plans = [replace(plan, runtime=runtime) for runtime in runtimes]
        tuning = fastest_tuning(tune(checkpoint, weights, plans, progress=progress))
        conditions = observer.conditions()
        doubts = tuple(load_caveats(this_machine(), conditions, plan.threads))
        for doubt in doubts:
            progress.note(f"doubt: {doubt}")
        return replace(tuning, doubts=doubts)

    return measure
