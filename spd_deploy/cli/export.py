"""``spd export``: a checkpoint in, an artefact that can be served out."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from spd_deploy.cli.calibration_set import trial_of
from spd_deploy.cli.console import TerminalProgress
from spd_deploy.cli.export_options import ExportOptions
from spd_deploy.cli.export_shown import show_export
from spd_deploy.cli.options import Sizes, finite
from spd_deploy.cli.sections import Sectioned
from spd_deploy.cli.tuning import known_tuning, plan_of, runtimes_for, tuner_for
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.sessions.tensorrt.shape_buckets import buckets_for

if TYPE_CHECKING:
    from exporters.autotune.tune import TuningPlan
    from exporters.export import SelectRuntime, Tuner
    from exporters.formats import ExportFormat
    from exporters.precision import CalibrationSet
    from spd_deploy.kernels.tiles import Number


@click.command(
    cls=Sectioned,
    headings={
        "format_": "What is made",
        "task_name": "Data, for what rounds",
        "tune": "How the matrices are run, and in what",
        "output": "Result",
    },
    epilog="""\b
Examples:
  spd export runs/mrpc --format onnx --output artefacts/mrpc
  spd export runs/mrpc-block --tune --batch 1,8 --seq 32,128 --output artefacts/mrpc-block
  spd export runs/mrpc-block --precision int8 --data GLUE/MRPC --output artefacts/mrpc-int8
  spd export runs/mrpc-block --format torch --output artefacts/mrpc-gpu
  spd export runs/mrpc-24 --format trt --batch 1,8 --seq 32,128 --output artefacts/mrpc-trt""",
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "trt", "torch"]),
    default="onnx",
    show_default=True,
    help="onnx: ONNX Runtime on CPU or CUDA, OpenVINO. torch: PyTorch, with kernels for blocks and "
    "2:4 on CUDA. trt: a TensorRT engine, built at once where there is a GPU with TensorRT, else "
    "later by spd build.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="Of the matrix products. fp16: for GPUs. int8: calibrated and scored on the task. bf16: "
    "with --format torch; for OpenVINO export fp32 with --runtime openvino:bf16.  [default: fp32; "
    "of torch and trt: fp16]",
)
@click.option("--task", "task_name", help="Of --data. Default: the task the model was trained for.")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    help="The task's train and dev: int8 is calibrated and judged by them, bf16 judged.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    help="How much of the headline metric int8 or bf16 may lose, in points.  [default: 1]",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Choose by timing on this machine's CPU: how the matrices are run, and the runtime.",
)
@click.option(
    "--tuning",
    type=click.Path(path_type=Path),
    help="Choose by an earlier export's tuning.json, such as of the machine that will serve.",
)
@click.option(
    "--lowering",
    type=click.Choice(["auto", "dense", "compact", "gathered"]),
    default="auto",
    show_default=True,
    help="Force one way to run the matrices, for comparison.",
)
@click.option(
    "--runtime",
    "runtime_name",
    type=click.Choice(list(RUNTIME_CHOICES)),
    default="auto",
    show_default=True,
    help="What it is to be served in. auto: the fastest with --tune, else ONNX Runtime; of trt "
    "TensorRT.",
)
@click.option("--batch", "batches", type=Sizes(), help="With --tune or trt: rows.  [default: 1,8]")
@click.option("--seq", "seqs", type=Sizes(), help="With --tune or trt: tokens.  [default: 32,128]")
@click.option("--no-build", is_flag=True, help="With trt: leave the engine to spd build.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="With --tune: threads of the runtime.  [default: the cores this process may use]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 86400),
    callback=finite,
    help="With --tune: time for one way to run one product at one shape.  [default: 0.3]",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the artefact that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(**options: Any) -> None:
    """Lower a checkpoint into a form whose zeros cost no time, verified before it is written.

    A cost model chooses how each matrix is run. With --tune, times do: of each distinct product
    alone, then of the whole network. What was measured is written into the artefact.
    """
    wish = ExportOptions(**options)
    show_export(exported(wish, TerminalProgress()), as_json=wish.as_json)


def exported(wish: ExportOptions, progress: Progress) -> Artefact:
    """The artefact that the options ask for, written and verified."""
    wish.refuse_misfits()
    source = _opened(wish.checkpoint, progress)
    if wish.format_ == "torch":
        return _torch(wish, source, progress)
    return _graph(wish, source, progress)


def _torch(wish: ExportOptions, source: Checkpoint, progress: Progress) -> Artefact:
    """A torch artefact."""
    from exporters.torch.export import torch_artefact_from_checkpoint

    return torch_artefact_from_checkpoint(
        source,
        wish.output,
        number=cast("Number", wish.number),
        lowering=wish.way,
        overwrite=wish.overwrite,
        progress=progress,
    )


def _graph(wish: ExportOptions, source: Checkpoint, progress: Progress) -> Artefact:
    """An artefact of ONNX graphs, with an engine for TensorRT where that is asked for."""
    from exporters.export import artefact_from_checkpoint
    from exporters.precision import Precision

    told = (wish.task_name, wish.data_dir, wish.drop)
    trial = trial_of(source, *told, progress) if wish.judged else None
    precision = Precision(wish.number)
    plan = plan_of(*wish.shapes, wish.threads, wish.seconds, precision) if wish.tune else None
    artefact = artefact_from_checkpoint(
        source,
        wish.output,
        precision=precision,
        trial=trial,
        tuner=_tuner(wish, plan, progress),
        lowering=wish.way,
        settle=_settle(wish, plan, trial, progress),
        overwrite=wish.overwrite,
        progress=progress,
        form=_form(wish, source),
    )
    if wish.format_ == "trt":
        _tell_cut(wish, source, progress)
        _build(artefact, progress, asked=not wish.no_build)
    if wish.tuning is not None and wish.runtime_name == "auto":
        progress.note("a tuning has no times of runtimes: name one with --runtime, or --tune here")
    _tell_misfit(artefact, progress)
    return artefact


def _tuner(wish: ExportOptions, plan: "TuningPlan | None", progress: Progress) -> "Tuner | None":
    """What times the ways to run the matrices, or knows their times."""
    if wish.tuning is not None:
        return known_tuning(wish.tuning)
    if plan is None:
        return None
    return tuner_for(plan, runtimes_for(RUNTIME_CHOICES[wish.runtime_name]), progress)


def _tell_misfit(artefact: Artefact, progress: Progress) -> None:
    """Say where what is run how was decided by another runtime's times than the artefact's."""
    from exporters.autotune.tuning import TUNING_FILE, read_tuning

    served = artefact.manifest.runtime
    if not (artefact.folder / TUNING_FILE).is_file():
        return
    tuned = read_tuning(artefact.folder / TUNING_FILE)
    if tuned.decides and tuned.runtime != served:
        progress.note(
            f"the matrices are run as {tuned.runtime} runs them fastest, and {served} is to serve "
            f"it: --tune --runtime {served} chooses for that"
        )


def _settle(
    wish: ExportOptions,
    plan: "TuningPlan | None",
    trial: "CalibrationSet | None",
    progress: Progress,
) -> "SelectRuntime | None":
    """What names the runtime to serve in: an engine has no choice."""
    from exporters.autotune.select_runtime import in_fastest_runtime, in_runtime

    if wish.format_ == "onnx" and wish.runtime_name != "auto":
        asked = RUNTIME_CHOICES[wish.runtime_name]
        return partial(in_runtime, asked=asked, trial=trial, progress=progress)
    if plan is not None:
        return partial(in_fastest_runtime, plan=plan, trial=trial, progress=progress)
    return None


def _form(wish: ExportOptions, source: Checkpoint) -> "ExportFormat":
    """What kind of artefact is made: for TensorRT for the shapes asked for and the longest text."""
    from exporters.formats import ONNX
    from exporters.tensorrt.engine_format import engine_form

    if wish.format_ == "onnx":
        return ONNX
    return engine_form(buckets_for(*wish.shapes, longest=source.max_tokens))


def _tell_cut(wish: ExportOptions, source: Checkpoint, progress: Progress) -> None:
    """Lengths that no text has are no buckets; whoever asked for them is told."""
    longer = [str(seq) for seq in wish.shapes[1] if seq > source.max_tokens]
    if longer:
        progress.note(
            f"no bucket for --seq {','.join(longer)}: the model reads {source.max_tokens} tokens"
        )


def _opened(folder: Path, progress: Progress) -> Checkpoint:
    """The checkpoint; where nobody declared its pattern, how that was found is told."""
    source = open_checkpoint(folder)
    if source.detected is not None:
        progress.note(f"{source.pattern} detected, not declared: {source.detected}")
    return source


def _build(artefact: Artefact, progress: Progress, *, asked: bool) -> None:
    """Build the engine where one can be built; elsewhere say in a line how to finish."""
    from exporters.tensorrt.build import Order, build_engine
    from spd_deploy.sessions.tensorrt.compatibility import engine_fault

    fault = engine_fault() if asked else "as asked for"
    if fault is None:
        build_engine(artefact, Order(), progress=progress)
        return
    progress.note(
        f"the engine is not built here: {fault}; on the machine that is to serve: "
        f"spd build {artefact.folder}"
    )
