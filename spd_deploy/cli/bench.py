"""``spd bench``: measures artefacts against a dense baseline and writes the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.api import benchmarks as api
from spd_deploy.cli.console import TerminalProgress, show_json, show_table
from spd_deploy.cli.options import DEVICE, RUNTIME, Sizes, default_of, json_option, timing_options
from spd_deploy.domain.extras import needs_extras

if TYPE_CHECKING:
    from spd_deploy.benchmark.judge import Judgement
    from spd_deploy.benchmark.report import Report

_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  spd bench out/sparse --baseline out/teacher --output out/report
  spd bench out/a out/b --baseline out/dense --batch 1,8,32 --seq 128 --output out/report
  spd bench out/a --runtime onnxruntime --runtime openvino:bf16 --output out/report
  spd bench out/a --baseline out/teacher --device cuda --batch 1,32 --output out/report"""
)
@click.argument("artefacts", nargs=-1, required=True, type=_FOLDER, metavar="ARTEFACT..")
@click.option(
    "--baseline",
    type=_FOLDER,
    help="Model to compare with: an artefact, or a checkpoint, which is first exported with every "
    "matrix dense.  [default: none; the report then has times and claims no speed-up]",
)
@click.option(
    "--batch",
    type=Sizes(),
    default=Sizes.spelled(default_of(api.bench, "batch")),
    show_default=True,
    help="Rows of a batch, one or more numbers with commas between them. Name the batch sizes that "
    "you serve.",
)
@click.option(
    "--seq",
    type=Sizes(),
    default=Sizes.spelled(default_of(api.bench, "seq")),
    show_default=True,
    help="Tokens of a row, one or more numbers with commas between them; each is measured with "
    "each --batch. Name the lengths that your texts have.",
)
@click.option(
    "--runtime",
    type=RUNTIME,
    multiple=True,
    default=default_of(api.bench, "runtime"),
    show_default=True,
    help="Runtime of the artefacts; auto is the one that each was exported for. May be given "
    "several times: every artefact and the baseline are then measured in each, and all are "
    "compared with the baseline in the first. openvino:bf16 computes an fp32 artefact in bf16, "
    "where the CPU has it.",
)
@click.option(
    "--device",
    type=DEVICE,
    default=default_of(api.bench, "device"),
    show_default=True,
    help="Processor to measure on. cuda needs an NVIDIA GPU.",
)
@click.option(
    "--dense",
    help="With --device cuda: dense arms of the --baseline checkpoint to compare with: all, none, "
    "or names with commas between them, such as eager,compile,onnxruntime. Each shape is compared "
    "with the fastest. Name fewer to save time.  [default: all]",
)
@timing_options(
    rounds=default_of(api.bench, "rounds"),
    seconds=default_of(api.bench, "seconds"),
    turns="How often the arms take turns. The spread between rounds makes the intervals, so more "
    "rounds give narrower ones.",
    time="Time for one arm at one shape, all rounds together, in seconds. The whole run takes "
    "about arms x shapes x this.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="With --device cpu: also time the layers of each sparse arm beside dense ones, in ONNX "
    "Runtime in fp32. The report then shows which layers gain and which lose. Use it where a "
    "speed-up is less than the sparsity promises.",
)
@click.option("--output", required=True, type=_FOLDER, help="Folder to write the report to.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report in --output.")
@json_option("the verdicts")
@needs_extras("bench", "bench")
def bench(as_json: bool, **options: Any) -> None:
    """Measure artefacts in turns with a dense baseline, and write a report.

    The report is a folder with report.html to read, report.json with every sample, and the plots.

    On a GPU a checkpoint as the baseline runs as every dense arm that this machine has, and each
    shape is compared with the fastest one. Forms that do not run here are listed with the reason.
    """
    found = api.bench(**options, progress=TerminalProgress())
    if as_json:
        show_json(found.to_json())
    else:
        _show(found.report, found.judgement, found.page)


def _show(report: "Report", judgement: "Judgement", page: Path) -> None:
    """Print the headlines, tables and caveats."""
    from spd_deploy.benchmark.layers.analysis import analyse
    from spd_deploy.benchmark.layers.layer_summary import explanation_of, statement_of
    from spd_deploy.benchmark.summary import headlines, runtimes_of
    from spd_deploy.benchmark.tables import tables_of
    from spd_deploy.benchmark.warnings import grouped

    for headline in headlines(report, judgement):
        click.echo(f"{headline}\n")
    for table in tables_of(report, judgement):
        show_table(table.title, table.columns, table.rows)
        click.echo()
    for profile in report.layers:
        found = analyse(profile)
        click.echo(f"{found.arm}: {statement_of(found)}. {explanation_of(found)}.\n")
    for what, about in grouped(judgement.caveats).items():
        click.echo(f"caveat: {what} ({'; '.join(about)})")
    click.echo(f"run by {runtimes_of(report)}")
    click.echo(f"report: {page}")
