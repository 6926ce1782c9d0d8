"""The models of a family beside each other, as ``spd train --speedup`` compares them at its end."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.cli.inputs.calibration_set import calibration_set_of
from spd_deploy.cli.long_run.signals import interrupt_at_once
from spd_deploy.cli.options.export_options import MAX_DROP
from spd_deploy.cli.options.speed_options import speed_plan
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text_encoder import EncodesOnce
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_as_trained
from spd_deploy.timing.machine_load import LoadObserver

if TYPE_CHECKING:
    from exporters.autotune.measure_latency import LatencyPlan
    from exporters.compare_models import ModelForm
    from exporters.precision import CalibrationSet
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_deploy.domain.latency_table import LatencyTable
    from spd_train.data.splits import Data
    from spd_train.family import Compare
    from spd_train.family_result import Comparison


def family_comparer(
    options: Mapping[str, Any],
    table: "LatencyTable | None",
    task: Task,
    data: "Data",
    progress: Progress,
) -> "Compare | None":
    """A function that exports, scores and times the models of a family; None elsewhere."""
    if options["any_machine"]:
        return None
    from exporters.compare_models import compare_models
    from spd_train.family_result import Comparison

    plan = speed_plan(options, table)

    def texts(checkpoint: "Checkpoint") -> "CalibrationSet":
        """The texts that a model is calibrated and scored on; what int8 loses is shown."""
        encoder = EncodesOnce(tokenizer_as_trained(checkpoint))
        return calibration_set_of(
            checkpoint, encoder, task, data, MAX_DROP, Silent(), refuses=False
        )

    def compare(models: Mapping[str, Path]) -> "Comparison":
        """Score and time the models."""
        progress.note(
            "the checkpoints are finished; now each model is exported, scored and timed in turns"
        )
        observer = LoadObserver(None)
        with interrupt_at_once():
            found = compare_models(
                list(_forms(models, plan)),
                plan.shapes,
                threads=plan.threads,
                texts=texts,
                progress=progress,
            )
        shapes = ", ".join(map(str, plan.shapes))
        where = f"{shapes}, {plan.threads} threads, {plan.machine}"
        busy = observer.conditions().others_cores
        return Comparison(models=found, where=where, others_cores=busy)

    return compare


def _forms(models: Mapping[str, Path], plan: "LatencyPlan") -> "Iterator[ModelForm]":
    """The dense model in every precision that runs here, and the others in that of the plan."""
    from exporters.compare_models import ModelForm

    dense, *others = models
    wanted = (plan.runtime, plan.precision)
    forms = dict.fromkeys([wanted, *dense_forms(plan.runtime)])
    for runtime, precision in forms:
        yield ModelForm(name=dense, checkpoint=models[dense], runtime=runtime, precision=precision)
    for name in others:
        yield ModelForm(name=name, checkpoint=models[name], runtime=wanted[0], precision=wanted[1])


def dense_forms(runtime: CpuRuntime) -> Iterator[tuple[CpuRuntime, str]]:
    """The runtimes and precisions that a user would choose from for a dense model.

    OpenVINO's int8 is the fastest of them where the processor has AMX.
    """
    yield runtime, "fp32"
    yield runtime, "int8"
    from spd_deploy.sessions.openvino import openvino_core, precisions_of

    with suppress(Unavailable):
        rounded = precisions_of(openvino_core())
        yield "openvino", "int8"
        if "bf16" in rounded:
            yield "openvino", "bf16"
