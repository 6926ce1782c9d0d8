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
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.measured import spelled_gains
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtimes import ASKED

if TYPE_CHECKING:
    from exporters.lowering.ways import Way

_NOT_YET = {"trt": "TensorRT engines are not built by this version"}


@click.command(
    epilog="""\b
Examples:
  spd export runs/mrpc --format onnx --output artefacts/mrpc
  spd export runs/mrpc-block --tune --batch 1,8 --seq 32,128 --output artefacts/mrpc-block
  spd export runs/mrpc-block --format torch --precision fp16 --output artefacts/mrpc-gpu
  spd export runs/mrpc-block --precision int8 --data-dir GLUE/MRPC --output artefacts/mrpc-int8"""
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "trt", "torch"]),
    default="onnx",
    show_default=True,
    help="onnx: ONNX Runtime on CPU or CUDA, OpenVINO. torch: PyTorch, with kernels for blocks and "
    "2:4 on CUDA. trt: refused as yet.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the matrix products. fp16: for GPUs. int8: calibrated and scored on the task. "
    "bf16: with --format torch; for OpenVINO export fp32 with --runtime openvino:bf16.",
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
    help="What it is to be served in. auto: the fastest with --tune, else ONNX Runtime.",
)
@click.option("--batch", "batches", type=Sizes(), help="With --tune: rows.  [default: 1,8]")
@click.option("--seq", "seqs", type=Sizes(), help="With --tune: tokens.  [default: 32,128]")
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
    precision: str,
    task_name: str | None,
    data_dir: Path | None,
    max_drop: float | None,
    tune: bool,
    tuning: Path | None,
    batches: tuple[int, ...] | None,
    seqs: tuple[int, ...] | None,
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
    if format_ in _NOT_YET:
        raise Unavailable(
            _NOT_YET[format_],
            got=f"--format {format_}",
            fix="use --format onnx, which runs anywhere",
        )
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
        show_export(artefact, output, as_json=as_json)
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
        {"--batch": batches, "--seq": seqs, "--threads": threads, "--seconds": seconds},
        unless=tune,
        why="says how to measure: it needs --tune",
    )
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
    plan = plan_of(batches or (1, 8), seqs or (32, 128), threads, seconds) if tune else None
    tuner = None if tuning is None else known_tuning(tuning)
    if plan is not None and precision == "fp32":
        tuner = tuner_for(plan, progress)
    settle: Settle | None = None
    if runtime_name != "auto":
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
    )
    if tuning is not None and runtime_name == "auto":
        progress.note("a tuning has no times of runtimes: name one with --runtime, or --tune here")
    show_export(artefact, output, as_json=as_json)


def opened(folder: Path, progress: Progress) -> Checkpoint:
    """The checkpoint; where nobody declared its pattern, how that was found is told."""
    source = open_checkpoint(folder)
    if source.detected is not None:
        progress.note(f"{source.pattern} detected, not declared: {source.detected}")
    return source


def show_export(artefact: Artefact, output: Path, *, as_json: bool) -> None:
    """What was written, for a reader or as JSON."""
    if as_json:
        show_json({"artefact": str(output), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


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
    click.echo(f"runs in   {manifest.asked}{spelled_ran(manifest)}")
    click.echo(
        f"parity    {manifest.parity.max_difference:.1e} from the checkpoint's logits, "
        f"{manifest.parity.tolerance:.0e} allowed"
    )
    for arm, scores in manifest.scores.items():
        if arm not in ("dense", "sparse"):
            shown = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if v is not None)
            click.echo(f"scored    {arm}: {shown} ({manifest.split})")
    click.echo(f"saved     {folder} ({bytes_of(folder) / 1e6:.1f} MB)")
    click.echo(f"next      spd inspect {folder}")
    click.echo(f"          spd serve {folder}")
