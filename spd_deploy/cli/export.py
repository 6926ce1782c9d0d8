"""``spd export``: a checkpoint in, an artefact that can be served out."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.cli.export_torch import export_torch, refuse_options
from spd_deploy.cli.options import Sizes, finite
from spd_deploy.cli.trial import trial_of
from spd_deploy.cli.tuning import known_tuning, plan_of, tuner_for
from spd_deploy.domain.artefact import Artefact, Manifest
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.engines.buckets import buckets_for
from spd_deploy.domain.engines.record import is_built
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.measured import spelled_gains
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtimes import ASKED

_BATCHES, _SEQS = (1, 8), (32, 128)

if TYPE_CHECKING:
    from exporters.forms import Form
    from exporters.lowering.ways import Way


@click.command(
    epilog="""\b
Examples:
  spd export runs/mrpc --format onnx --output artefacts/mrpc
  spd export runs/mrpc-block --tune --batch 1,8 --seq 32,128 --output artefacts/mrpc-block
  spd export runs/mrpc-block --precision int8 --data-dir GLUE/MRPC --output artefacts/mrpc-int8
  spd export runs/mrpc-block --format torch --output artefacts/mrpc-gpu
  spd export runs/mrpc-24 --format trt --batch 1,8 --seq 32,128 --output artefacts/mrpc-trt"""
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
@click.option(
    "--task", "task_name", help="Of --data-dir. Default: the task the model was trained for."
)
@click.option(
    "--data-dir",
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
    help="Choose by timing on this machine's CPU: how fp32 matrices are run, and the runtime.",
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
    type=click.Choice(list(ASKED)),
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
    help="With --tune: threads of the runtime.  [default: the physical cores]",
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
def export(
    checkpoint: Path,
    format_: str,
    precision: str | None,
    task_name: str | None,
    data_dir: Path | None,
    max_drop: float | None,
    tune: bool,
    tuning: Path | None,
    batches: tuple[int, ...] | None,
    seqs: tuple[int, ...] | None,
    no_build: bool,
    threads: int | None,
    seconds: float | None,
    lowering: str,
    runtime_name: str,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Lower a checkpoint into a graph whose zeros cost no time, verified before it is written.

    A cost model chooses how each matrix is run. With --tune, times do: of each distinct product
    alone, then of the whole network. What was measured is written into the artefact.
    """
    precision = precision or ("fp32" if format_ == "onnx" else "fp16")
    if format_ == "torch":
        refuse_options(
            {
                "--data-dir": data_dir, "--task": task_name, "--max-drop": max_drop,
                "--tune": tune, "--tuning": tuning, "--batch": batches, "--seq": seqs,
                "--threads": threads, "--seconds": seconds,
            },
            precision=precision,
            runtime=runtime_name,
        )  # fmt: skip
        progress = TerminalProgress()
        artefact = export_torch(
            opened(checkpoint, progress),
            output,
            precision=precision,
            lowering=lowering,
            overwrite=overwrite,
            progress=progress,
        )
        show_export(artefact, as_json=as_json)
        return
    if precision == "bf16":
        raise click.UsageError(
            "--precision bf16 is for --format torch; OpenVINO rounds an fp32 artefact to it with "
            "--runtime openvino:bf16"
        )
    judged = precision == "int8" or (data_dir is not None and (tune or "bf16" in runtime_name))
    _refuse_idle(
        {"--data-dir": data_dir, "--task": task_name, "--max-drop": max_drop},
        unless=judged,
        why="is for what rounds: int8, --tune or bf16, with data",
    )
    _refuse_idle(
        {"--threads": threads, "--seconds": seconds},
        unless=tune,
        why="says how to measure: it needs --tune",
    )
    _refuse_idle(
        {"--batch": batches, "--seq": seqs},
        unless=tune or format_ == "trt",
        why="says at which shapes: it needs --tune, or --format trt",
    )
    _refuse_other_format(format_, runtime_name, tuned=tune or tuning is not None, idle=no_build)
    if tuning is not None and precision != "fp32":
        raise click.UsageError("a tuning holds times of fp32: leave --tuning or --precision out")
    if tune and tuning is not None:
        raise click.UsageError("--tune measures and --tuning does not: leave one of them out")
    if tune and lowering != "auto":
        raise click.UsageError("--tune chooses the lowerings: leave --lowering out")
    from exporters.onnx import Settle, artefact_from_checkpoint
    from exporters.precisions import Precision
    from exporters.tuning.runtimes import in_fastest_runtime, in_runtime

    progress = TerminalProgress()
    source = opened(checkpoint, progress)
    allowed = 1.0 if max_drop is None else max_drop
    trial = trial_of(source, task_name, data_dir, allowed) if judged else None
    plan = plan_of(batches or _BATCHES, seqs or _SEQS, threads, seconds) if tune else None
    tuner = None if tuning is None else known_tuning(tuning)
    if plan is not None and precision == "fp32":
        tuner = tuner_for(plan, progress)
    settle: Settle | None = None
    if format_ == "onnx" and runtime_name != "auto":
        settle = partial(in_runtime, asked=ASKED[runtime_name], trial=trial, progress=progress)
    elif plan is not None:
        settle = partial(in_fastest_runtime, plan=plan, trial=trial, progress=progress)
    artefact = artefact_from_checkpoint(
        source,
        output,
        precision=Precision(precision),
        trial=trial,
        tuner=tuner,
        lowering=None if lowering == "auto" else cast("Way", lowering),
        settle=settle,
        overwrite=overwrite,
        progress=progress,
        form=_form(format_, source, batches or _BATCHES, seqs or _SEQS),
    )
    if format_ == "trt":
        _build(artefact, progress, asked=not no_build)
    if tuning is not None and runtime_name == "auto":
        progress.note("a tuning has no times of runtimes: name one with --runtime, or --tune here")
    show_export(artefact, as_json=as_json)


def _form(
    format_: str, source: Checkpoint, batches: tuple[int, ...], seqs: tuple[int, ...]
) -> "Form":
    """What kind of artefact is made: for TensorRT for the shapes asked for and the longest text."""
    from exporters.forms import ONNX
    from exporters.tensorrt.plan import engine_form

    if format_ == "onnx":
        return ONNX
    return engine_form(buckets_for(batches, seqs, longest=source.max_tokens))


def opened(folder: Path, progress: Progress) -> Checkpoint:
    """The checkpoint; where nobody declared its pattern, how that was found is told."""
    source = open_checkpoint(folder)
    if source.detected is not None:
        progress.note(f"{source.pattern} detected, not declared: {source.detected}")
    return source


def show_export(artefact: Artefact, *, as_json: bool) -> None:
    """What was written, for a reader or as JSON."""
    if as_json:
        show_json({"artefact": str(artefact.folder), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


def _build(artefact: Artefact, progress: Progress, *, asked: bool) -> None:
    """Build the engine where one can be built; elsewhere say in a line how to finish."""
    from exporters.tensorrt.build import Order, build_engine
    from spd_deploy.sessions.tensorrt.gate import engine_fault

    fault = engine_fault() if asked else "as asked for"
    if fault is None:
        build_engine(artefact, Order(), progress=progress)
        return
    progress.note(
        f"the engine is not built here: {fault}; on the machine that is to serve: "
        f"spd build {artefact.folder}"
    )


def _refuse_other_format(format_: str, runtime: str, *, tuned: bool, idle: bool) -> None:
    """Refuse what goes with another format than the one asked for."""
    if format_ == "trt" and tuned:
        raise click.UsageError("--tune and --tuning are of a CPU: leave them out with --format trt")
    if format_ == "trt" and runtime not in ("auto", "tensorrt"):
        raise click.UsageError("a trt artefact is for TensorRT: leave --runtime out")
    if format_ != "trt" and runtime == "tensorrt":
        raise click.UsageError("--runtime tensorrt needs an engine: add --format trt")
    if format_ != "trt" and idle:
        raise click.UsageError("--no-build goes with --format trt")


def _refuse_idle(given: Mapping[str, object], *, unless: bool, why: str) -> None:
    """Refuse options that would be ignored."""
    idle = [name for name, value in given.items() if value is not None]
    if idle and not unless:
        raise click.UsageError(f"{idle[0]} {why}")


def spelled_ran(manifest: Manifest) -> str:
    """The times of each runtime, where they were measured."""
    if not manifest.ran:
        return ""
    each = (
        f"{one.runtime} " + ", ".join(f"{second * 1e3:.3g}" for second in one.seconds)
        for one in manifest.ran
    )
    return f": ms at {', '.join(manifest.ran_at)}: {'; '.join(each)}"


def show_result(artefact: Artefact) -> None:
    """What was written, and the next commands."""
    manifest, folder = artefact.manifest, artefact.folder
    counts: dict[str, int] = {}
    for row in manifest.matrices:
        counts[row.lowering] = counts.get(row.lowering, 0) + 1
    lowered = ", ".join(f"{n} {name}" for name, n in counts.items())
    click.echo(f"pattern   {manifest.pattern}: verified on the weights as stored")
    click.echo(f"matrices  {lowered}")
    if manifest.measured:
        click.echo(f"measured  {spelled_gains(manifest.measured)} over all dense")
    unbuilt = manifest.format == "trt" and not is_built(folder)
    later = ", once its engine is built" if unbuilt else ""
    click.echo(f"runs in   {manifest.asked}{spelled_ran(manifest)}{later}")
    click.echo(f"parity    {manifest.nearness}")
    for arm, scores in manifest.scores.items():
        if arm not in ("dense", "sparse"):
            shown = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if v is not None)
            click.echo(f"scored    {arm}: {shown} ({manifest.split})")
    click.echo(f"saved     {folder} ({bytes_of(folder) / 1e6:.1f} MB)")
    click.echo(f"next      spd inspect {folder}")
    click.echo(f"          spd {'build' if unbuilt else 'serve'} {folder}")
