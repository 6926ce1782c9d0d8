"""``spd export``: a checkpoint in, an artefact that can be served out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.bench import Sizes, finite
from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.measured import spelled_gains

if TYPE_CHECKING:
    from exporters.onnx import Tuner
    from exporters.tuning.values import Tuning
    from exporters.weights import ClassifierWeights
    from spd_deploy.domain.checkpoint import Checkpoint

_NOT_YET = {
    "trt": "TensorRT engines are not built by this version",
    "torch": "torch artefacts with 2:4 and block kernels are not made by this version",
}


@click.command(
    epilog="""\b
Examples:
  spd export runs/mrpc-24 --format onnx --output artefacts/mrpc-24
  spd export runs/mrpc-block --tune --batch 1,8 --seq 32,128 --output artefacts/mrpc-block"""
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "trt", "torch"]),
    default="onnx",
    show_default=True,
    help="onnx: ONNX Runtime on CPU or CUDA. trt and torch: named for later, refused as yet.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Only fp32 as yet.",
)
@click.option(
    "--tune", is_flag=True, help="Choose how matrices are run by timing them on this machine's CPU."
)
@click.option(
    "--tuning",
    type=click.Path(path_type=Path),
    help="Choose by an earlier export's tuning.json, such as of the machine that will serve.",
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
    callback=lambda ctx, param, value: value if value is None else finite(ctx, param, value),
    help="With --tune: time for one way to run one product at one shape.  [default: 0.3]",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the artefact that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(
    checkpoint: Path,
    format_: str,
    precision: str,
    tune: bool,
    tuning: Path | None,
    batches: tuple[int, ...] | None,
    seqs: tuple[int, ...] | None,
    threads: int | None,
    seconds: float | None,
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
    if precision != "fp32":
        raise Unavailable(
            "this version exports fp32 only", got=f"--precision {precision}", fix="leave it out"
        )
    if tune and tuning is not None:
        raise click.UsageError("--tune measures and --tuning does not: leave one of them out")
    given = {"--batch": batches, "--seq": seqs, "--threads": threads, "--seconds": seconds}
    for name, value in given.items():
        if value is not None and not tune:
            raise click.UsageError(f"{name} says how to measure: it needs --tune")
    from exporters.onnx import artefact_from_checkpoint
    from spd_deploy.domain.checkpoint import open_checkpoint

    progress = TerminalProgress()
    tuner = None if tuning is None else _known(tuning)
    if tune:
        tuner = _measuring(batches or (1, 8), seqs or (32, 128), threads, seconds, progress)
    artefact = artefact_from_checkpoint(
        open_checkpoint(checkpoint), output, overwrite=overwrite, tuner=tuner, progress=progress
    )
    if as_json:
        show_json({"artefact": str(output), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


def _known(file: Path) -> "Tuner":
    """What was measured before."""
    from exporters.tuning.values import read_tuning

    known = read_tuning(file)
    return lambda checkpoint, weights: known


def _measuring(
    batches: tuple[int, ...],
    seqs: tuple[int, ...],
    threads: int | None,
    seconds: float | None,
    progress: TerminalProgress,
) -> "Tuner":
    """Measures on this machine, and says what casts doubt on that."""
    from exporters.tuning.timing import Effort
    from exporters.tuning.tune import Plan, tune
    from spd_deploy.benchmark.doubts import conditions_doubts
    from spd_deploy.benchmark.values import Conditions
    from spd_deploy.domain.measured import Shape
    from spd_deploy.machine.facts import load_now, moment, others_cores, this_machine
    from spd_deploy.machine.processor import default_threads

    machine = this_machine()
    plan = Plan(
        shapes=Shape.grid(batches, seqs),
        threads=threads or default_threads(),
        machine=machine.cpu,
        effort=Effort() if seconds is None else Effort(seconds=seconds),
    )

    def measured(checkpoint: "Checkpoint", weights: "ClassifierWeights") -> "Tuning":
        """The tuning, with its doubts."""
        load_before, before = load_now(), moment()
        found = tune(checkpoint, weights, plan, progress=progress)
        busy = others_cores(before, moment())
        seen = Conditions(load_before=load_before, others_cores=busy)
        doubts = tuple(conditions_doubts(machine, seen, plan.threads))
        for doubt in doubts:
            progress.note(f"doubt: {doubt}")
        return replace(found, doubts=doubts)

    return measured


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
    click.echo(
        f"parity    {manifest.parity.max_difference:.1e} from the checkpoint's logits, "
        f"{manifest.parity.tolerance:.0e} allowed"
    )
    click.echo(f"saved     {folder} ({bytes_of(folder) / 1e6:.1f} MB)")
    click.echo(f"next      spd inspect {folder}")
    click.echo(f"          spd serve {folder}")
