"""``spd export``: writes an artefact that can be served from a checkpoint."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from spd_deploy.cli.inputs.calibration_set import calibration_set_for
from spd_deploy.cli.options.common import Sizes, finite, json_option, revision_option
from spd_deploy.cli.options.export_options import ExportOptions
from spd_deploy.cli.options.sections import Sectioned
from spd_deploy.cli.options.tuning_options import (
    saved_tuning,
    tuned_runtimes,
    tuner_for,
    tuning_plan,
)
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.cli.output.export_shown import show_export
from spd_deploy.domain.artefact import Artefact, Format
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.number_types import FloatType, PrecisionName
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.hub.fetch import fetch_model
from spd_deploy.sessions.tensorrt.shape_buckets import buckets_for

if TYPE_CHECKING:
    from exporters.autotune.tune import TuningPlan
    from exporters.export import SelectRuntime, Tuner
    from exporters.formats import ExportFormat
    from exporters.precision import CalibrationSet


@click.command(
    cls=Sectioned,
    headings={
        "revision": "Model",
        "format_": "Format",
        "task_name": "Data, for int8 and bf16",
        "tune": "Lowerings and runtime",
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
@revision_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(Format)),
    default="onnx",
    show_default=True,
    help="Format of the artefact. onnx: for ONNX Runtime on a CPU or on CUDA, and for OpenVINO. "
    "torch: for PyTorch, with kernels for block patterns and 2:4 on CUDA. trt: for TensorRT; the "
    "engine is built at once where this machine has a GPU and TensorRT, else later by spd build.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(PrecisionName)),
    help="Precision of the products with the encoder's matrices. fp32: exact. fp16: for GPUs. "
    "int8: the smallest; calibrated and scored on --data. bf16: with --format torch only; for bf16 "
    "in OpenVINO, export fp32 with --runtime openvino:bf16.  [default: fp32 for "
    "onnx, fp16 for trt and torch]",
)
@click.option(
    "--task",
    "task_name",
    help="Task of --data. Needed only where the checkpoint does not name its task.  [default: the "
    "task that the model was trained for]",
)
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    help="The task's data: a folder with train and dev files, or one file. int8 is calibrated on "
    "train and scored on dev; bf16 is scored on dev.  [default: the Hugging Face hub for GLUE "
    "tasks; built-in tasks need none]",
)
@click.option(
    "--skip-broken-rows",
    is_flag=True,
    help="Leave broken rows of --data out instead of stopping at the first; they are counted.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    help="How much of the task's first metric int8 or bf16 may lose, in points of 100. An export "
    "that loses more is refused. Raise it to trade accuracy for speed.  [default: 1]",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Time the lowerings and the runtimes on this machine's CPU, and choose the fastest. Takes "
    "minutes. Use it on the machine that will serve. Without it, a cost model chooses lowerings.",
)
@click.option(
    "--tuning",
    type=click.Path(path_type=Path),
    help="Choose lowerings by the tuning.json of an earlier export with --tune of the same "
    "checkpoint, such as one made on the machine that will serve. Nothing is timed.  "
    "[default: none]",
)
@click.option(
    "--lowering",
    type=click.Choice(["auto", *get_args(LoweringName)]),
    default="auto",
    show_default=True,
    help="How matrices are multiplied. dense: with all zeros. compact: without heads and neurons "
    "that are all zero. gathered: only the blocks that are not zero. auto: the fastest of them for "
    "each matrix. Name one to compare it with others.",
)
@click.option(
    "--runtime",
    "runtime_name",
    type=click.Choice(list(RUNTIME_CHOICES)),
    default="auto",
    show_default=True,
    help="Runtime that spd serve opens the artefact in. auto: the fastest with --tune, else ONNX "
    "Runtime; PyTorch for torch and TensorRT for trt. Name one to serve in it without timing.",
)
@click.option(
    "--batch",
    "batches",
    type=Sizes(),
    help="Batch sizes to tune for, or to build an engine for, as 1,8: those you serve. Goes with "
    "--tune or --format trt.  [default: 1,8]",
)
@click.option(
    "--seq",
    "seqs",
    type=Sizes(),
    help="Sequence lengths in tokens to tune for, or to build an engine for, as 32,128: those of "
    "your texts. Goes with --tune or --format trt.  [default: 32,128]",
)
@click.option(
    "--no-build",
    is_flag=True,
    help="Do not build the TensorRT engine now. Use it where another GPU will serve, and run spd "
    "build there. Goes with --format trt.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads to time with: as many as the server will use. Goes with --tune.  [default: "
    "the cores this process may use]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 86400),
    callback=finite,
    help="Seconds to time one lowering of one product at one shape. Raise it on a machine that "
    "does other work. Goes with --tune.  [default: 0.3]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write the artefact to. It must not exist, unless --overwrite is given.",
)
@click.option("--overwrite", is_flag=True, help="Replace the artefact that --output holds already.")
@json_option("the manifest")
@needs_extras("export", "export")
def export(**options: Any) -> None:
    """Export CHECKPOINT as an artefact for a runtime, in which zeros cost no time where possible.

    CHECKPOINT is a folder, a classifier on the Hugging Face hub as OWNER/NAME@REVISION, or an
    address such as s3://BUCKET/MODEL. Weights, sparsity pattern and logits are verified before the
    artefact appears. A cost model chooses how each matrix is multiplied; with --tune, times on this
    machine do. The manifest names each choice with its reason, and spd inspect shows them.
    """
    parsed = ExportOptions(**options)
    show_export(exported(parsed, TerminalProgress()), as_json=parsed.as_json)


def exported(options: ExportOptions, progress: Progress) -> Artefact:
    """Export as the options say, and return the verified artefact.

    Raises:
        UsageError: options that do not go together.
    """
    options.refuse_misfits()
    checkpoint = _open(options, progress)
    export_as = _export_torch if options.format_ == "torch" else _export_graphs
    return export_as(options, checkpoint, progress)


def _export_torch(options: ExportOptions, checkpoint: Checkpoint, progress: Progress) -> Artefact:
    """Export to a torch artefact."""
    from exporters.torch.export import torch_artefact_from_checkpoint

    return torch_artefact_from_checkpoint(
        checkpoint,
        options.output,
        precision=cast("FloatType", options.resolved_precision),
        lowering=options.forced_lowering,
        overwrite=options.overwrite,
        progress=progress,
    )


def _export_graphs(options: ExportOptions, checkpoint: Checkpoint, progress: Progress) -> Artefact:
    """Export to ONNX graphs, and build the engine of a trt artefact."""
    from exporters.export import ExportRequest, artefact_from_checkpoint
    from exporters.precision import Precision

    calibration_set = _calibration_set(options, checkpoint, progress)
    precision = Precision(options.resolved_precision)
    plan = (
        tuning_plan(*options.shapes, options.threads, options.seconds, precision)
        if options.tune
        else None
    )
    request = ExportRequest(
        export_format=_export_format(options, checkpoint),
        precision=precision,
        calibration_set=calibration_set,
        lowering=options.forced_lowering,
        tuner=_tuner(options, plan, progress),
        select_runtime=_select_runtime(options, plan, calibration_set, progress),
    )
    artefact = artefact_from_checkpoint(
        checkpoint, options.output, request, overwrite=options.overwrite, progress=progress
    )
    if options.format_ == "trt":
        _note_dropped_lengths(options, checkpoint, progress)
        _build_engine(artefact, progress, build=not options.no_build)
    if options.tuning is not None and options.runtime_name == "auto":
        progress.note("--tuning has no times of runtimes: name one with --runtime, or use --tune")
    _note_other_runtime(artefact, progress)
    return artefact


def _calibration_set(
    options: ExportOptions, checkpoint: Checkpoint, progress: Progress
) -> "CalibrationSet | None":
    """The task's data, where a precision has to be calibrated or scored on them."""
    if not options.needs_data:
        return None
    return calibration_set_for(
        checkpoint,
        options.task_name,
        options.data_dir,
        options.allowed_drop,
        progress,
        skip_broken=options.skip_broken_rows,
    )


def _tuner(options: ExportOptions, plan: "TuningPlan | None", progress: Progress) -> "Tuner | None":
    """A function that gives the times of lowerings; None where the cost model chooses."""
    if options.tuning is not None:
        return saved_tuning(options.tuning)
    if plan is None:
        return None
    return tuner_for(plan, tuned_runtimes(RUNTIME_CHOICES[options.runtime_name]), progress)


def _select_runtime(
    options: ExportOptions,
    plan: "TuningPlan | None",
    calibration_set: "CalibrationSet | None",
    progress: Progress,
) -> "SelectRuntime | None":
    """A function that chooses the runtime to serve in; None for the format's own."""
    from exporters.autotune.select_runtime import select_fastest_runtime, select_named_runtime

    if options.format_ == "onnx" and options.runtime_name != "auto":
        choice = RUNTIME_CHOICES[options.runtime_name]
        return partial(
            select_named_runtime, choice=choice, calibration_set=calibration_set, progress=progress
        )
    if plan is not None:
        return partial(
            select_fastest_runtime, plan=plan, calibration_set=calibration_set, progress=progress
        )
    return None


def _export_format(options: ExportOptions, checkpoint: Checkpoint) -> "ExportFormat":
    """onnx, or trt with an engine for the shapes of the options and for the longest text."""
    from exporters.formats import ONNX
    from exporters.tensorrt.engine_format import engine_format

    if options.format_ == "onnx":
        return ONNX
    return engine_format(buckets_for(*options.shapes, longest=checkpoint.max_tokens))


def _note_other_runtime(artefact: Artefact, progress: Progress) -> None:
    """Say where lowerings were chosen by times in another runtime than the artefact's."""
    from exporters.autotune.tuning import TUNING_FILE, read_tuning

    runtime = artefact.manifest.runtime
    if not (artefact.folder / TUNING_FILE).is_file():
        return
    tuning = read_tuning(artefact.folder / TUNING_FILE)
    if tuning.decides and tuning.runtime != runtime:
        progress.note(
            f"lowerings were chosen by times in {tuning.runtime}, but the artefact is served in "
            f"{runtime}: --tune --runtime {runtime} chooses for that"
        )


def _note_dropped_lengths(
    options: ExportOptions, checkpoint: Checkpoint, progress: Progress
) -> None:
    """Say which lengths of --seq the engine leaves out, since the model reads fewer tokens."""
    too_long = [str(seq) for seq in options.shapes[1] if seq > checkpoint.max_tokens]
    if too_long:
        progress.note(
            f"no bucket for --seq {','.join(too_long)}: the model reads {checkpoint.max_tokens} "
            "tokens at most"
        )


def _open(options: ExportOptions, progress: Progress) -> Checkpoint:
    """The checkpoint; a detected pattern and notes of its reader are reported."""
    fetched = fetch_model(options.checkpoint, options.revision, names="owned", note=progress.note)
    checkpoint = open_checkpoint(fetched.folder)
    if fetched.origin is not None:
        origins = {**checkpoint.origins, "checkpoint": fetched.origin}
        checkpoint = replace(checkpoint, origins=origins)
    if checkpoint.detected is not None:
        progress.note(f"{checkpoint.pattern} detected, not declared: {checkpoint.detected}")
    for note in checkpoint.notes:
        progress.note(note)
    return checkpoint


def _build_engine(artefact: Artefact, progress: Progress, *, build: bool) -> None:
    """Build the engine where that is possible; elsewhere say why not, and how to do it later."""
    from exporters.tensorrt.build import BuildRequest, build_engine
    from spd_deploy.sessions.tensorrt.compatibility import engine_fault

    fault = engine_fault() if build else "--no-build was given"
    if fault is None:
        build_engine(artefact, BuildRequest(), progress=progress)
        return
    progress.note(
        f"the engine is not built here: {fault}; on the machine that will serve, run: "
        f"spd build {artefact.folder}"
    )
