"""``spd bench``: measures artefacts against a dense baseline and writes the report."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.console import TerminalProgress, show_json, show_table
from spd_deploy.cli.options import RUNTIME, Sizes, timing_options
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.benchmark.judge import Judgement
    from spd_deploy.benchmark.records import Settings
    from spd_deploy.benchmark.report import Report

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("artefacts", nargs=-1, required=True, type=_FOLDER, metavar="ARTEFACT..")
@click.option(
    "--baseline",
    type=_FOLDER,
    help="What to compare with: an artefact, or a checkpoint, which is exported dense first.",
)
@click.option("--batch", "batches", type=Sizes(), default="1,8", show_default=True)
@click.option("--seq", "seqs", type=Sizes(), default="32,128", show_default=True, help="Tokens.")
@click.option(
    "--runtime",
    "runtimes",
    type=RUNTIME,
    multiple=True,
    default=("auto",),
    show_default=True,
    help="What runs the artefacts; given several times, each of them in each, the baseline too.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--dense",
    help="With --device cuda: which dense forms of the --baseline checkpoint to compare with the "
    "fastest of: all, none, or names with commas between them, such as eager,compile,onnxruntime.  "
    "[default: all]",
)
@timing_options(
    rounds=6,
    seconds=5.0,
    turns="How often the arms take turns.",
    time="Time for one arm at one shape, all rounds together.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Also tell where each sparse arm gains and loses, in ONNX Runtime in fp32.",
)
@click.option("--output", required=True, type=_FOLDER, help="Folder for the report.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def bench(
    artefacts: Sequence[Path],
    baseline: Path | None,
    batches: tuple[int, ...],
    seqs: tuple[int, ...],
    runtimes: tuple[str, ...],
    device: str,
    dense: str | None,
    threads: int | None,
    rounds: int,
    seconds: float,
    profile: bool,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure artefacts, interleaved with a baseline, and write a report.

    \b
    spd bench out/sparse --baseline out/teacher --output out/report
    spd bench out/a out/b --baseline out/dense --batch 1,8,32 --seq 128 --output out/report
    spd bench out/a --runtime onnxruntime --runtime openvino:bf16 --output out/report
    spd bench out/a --baseline out/teacher --device cuda --batch 1,32 --output out/report

    The report is a folder with report.html to read, report.json with every sample, and the plots.
    Without --baseline no speed-up is claimed. With several runtimes all is compared with the
    baseline in the first. openvino:bf16 rounds an fp32 artefact to bf16, where the CPU has it.

    On a GPU a checkpoint as the baseline is run in every dense form that this machine has, and each
    shape is compared with the fastest; those that do not run here are listed with the reason.
    """  # noqa: D301  # click reads the \b as a character
    from spd_deploy.benchmark.judge import judge
    from spd_deploy.benchmark.publish import refuse_taken, summary_of, write_report
    from spd_deploy.benchmark.records import Settings, Shape
    from spd_deploy.domain.cores import default_threads

    if dense is not None and device == "cpu":
        raise click.UsageError("--dense goes with --device cuda")
    if profile and device == "cuda":
        raise click.UsageError("--profile is of operators on the CPU, so it goes with --device cpu")
    if threads is not None and device == "cuda":
        raise click.UsageError("--threads goes with --device cpu")
    refuse_taken(output, overwrite=overwrite)
    settings = Settings(
        shapes=Shape.grid(batches, seqs),
        device="cuda" if device == "cuda" else "cpu",
        threads=threads or (default_threads() if device == "cpu" else None),
        rounds=rounds,
        seconds=seconds,
    )
    if device == "cuda":
        report = _measured_on_gpu(artefacts, baseline, runtimes, settings, dense=dense)
    else:
        report = _measured(artefacts, baseline, runtimes, settings, profile=profile)
    judgement = judge(report)
    page = write_report(report, output, overwrite=overwrite, judgement=judgement)
    if as_json:
        show_json({"report": str(page), **summary_of(report, judgement)})
    else:
        _show(report, judgement, page)


def _measured(
    artefacts: Sequence[Path],
    baseline: Path | None,
    runtimes: Sequence[str],
    settings: "Settings",
    *,
    profile: bool,
) -> "Report":
    """Open the arms, the baseline first, and compare them."""
    from spd_deploy.benchmark.arms import arms_of, refuse_long, refuse_unreadable
    from spd_deploy.benchmark.run import baseline_from, run_benchmark
    from spd_deploy.domain.artefact import open_artefact

    progress = TerminalProgress()
    opened = [open_artefact(path) for path in artefacts]
    asked = [RUNTIME_CHOICES[name] for name in runtimes]
    refuse_long(arms_of(opened, asked), settings)  # before a baseline is exported for nothing
    refuse_unreadable(arms_of(opened, asked))
    with ExitStack() as stack:
        if baseline is not None:
            opened.insert(0, stack.enter_context(baseline_from(baseline, progress=progress)))
        arms = arms_of(opened, asked)
        name = None if baseline is None else arms[0].name
        return run_benchmark(arms, settings, baseline=name, profile=profile, progress=progress)


def _measured_on_gpu(
    artefacts: Sequence[Path],
    baseline: Path | None,
    runtimes: Sequence[str],
    settings: "Settings",
    *,
    dense: str | None,
) -> "Report":
    """The same on a GPU, against the fastest dense form of the baseline.

    An artefact as the baseline has no other forms; it takes part as the first.
    """
    from spd_deploy.benchmark.arms import arms_of, refuse_long, refuse_unreadable
    from spd_deploy.benchmark.cuda.compare import compare_on_gpu, refuse_off_gpu
    from spd_deploy.benchmark.cuda.dense import DenseModel, parse_dense
    from spd_deploy.benchmark.cuda.place import refuse_without_cuda
    from spd_deploy.benchmark.memory import memory_of
    from spd_deploy.domain.artefact import is_artefact, open_artefact
    from spd_deploy.domain.checkpoint import open_checkpoint

    names = parse_dense("all" if dense is None else dense)
    exported = [baseline] if baseline is not None and is_artefact(baseline) else []
    if dense not in (None, "none") and (baseline is None or exported):
        raise click.UsageError("--dense goes with a checkpoint as --baseline")
    checkpoint = None if baseline is None or exported else open_checkpoint(baseline)
    opened = [open_artefact(path) for path in (*exported, *artefacts)]
    arms = arms_of(opened, [RUNTIME_CHOICES[name] for name in runtimes])
    refuse_long(arms, settings)
    refuse_unreadable(arms)
    refuse_off_gpu(arms)
    refuse_without_cuda()
    with tempfile.TemporaryDirectory(prefix="spd-bench-") as scratch:
        model = None if checkpoint is None else DenseModel.of(checkpoint, Path(scratch))
        return compare_on_gpu(
            arms, model, names, settings, weigh=memory_of, progress=TerminalProgress()
        )


def _show(report: "Report", judgement: "Judgement", page: Path) -> None:
    """The headlines, tables and doubts on the terminal."""
    from spd_deploy.benchmark.gpu_tables import absent_table, device_table, parts_table, ran_table
    from spd_deploy.benchmark.layers.analysis import analyse
    from spd_deploy.benchmark.layers.layer_summary import explanation_of, statement_of
    from spd_deploy.benchmark.summary import headlines, runtimes_of
    from spd_deploy.benchmark.tables import latency_table, size_table
    from spd_deploy.benchmark.warnings import grouped

    for headline in headlines(report, judgement):
        click.echo(f"{headline}\n")
    tables = (
        latency_table(report, judgement),
        device_table(judgement),
        parts_table(judgement),
        ran_table(report),
        absent_table(report),
        size_table(report),
    )
    for table in filter(None, tables):
        show_table(table.title, table.columns, table.rows)
        click.echo()
    for profile in report.layers:
        found = analyse(profile)
        click.echo(f"{found.arm}: {statement_of(found)}. {explanation_of(found)}.\n")
    for what, about in grouped(judgement.doubts).items():
        click.echo(f"doubt: {what} ({'; '.join(about)})")
    click.echo(f"run by {runtimes_of(report)}")
    click.echo(f"report: {page}")
