"""``spd bench``: measures artefacts against a dense baseline and writes the report."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.api import benchmarks as api
from spd_deploy.cli.long_run.signals import interrupt_at_once
from spd_deploy.cli.options.common import (
    DEVICE,
    RUNTIME,
    Sizes,
    default_of,
    json_option,
    timing_options,
)
from spd_deploy.cli.options.http_options import compare_options, http_options
from spd_deploy.cli.output.console import TerminalProgress, show_json, show_table
from spd_deploy.domain.extras import needs_extras

if TYPE_CHECKING:
    from spd_deploy.benchmark.regression import ReportComparison
    from spd_deploy.benchmark.tables import Table

_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  spd bench out/sparse --baseline out/teacher --output out/report
  spd bench out/a out/b --baseline out/dense --batch 1,8,32 --seq 128 --output out/report
  spd bench out/a --runtime onnxruntime --runtime openvino:bf16 --output out/report
  spd bench out/a --baseline out/teacher --device cuda --batch 1,32 --output out/report
  spd bench out/a --baseline out/teacher --http --latency-bound 50 --output out/report
  spd bench out/new-report --compare out/old-report --fail-below 0.95"""
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
    "or names with commas between them, such as torch-eager,torch-compile. Each shape is compared "
    "with the fastest. Name fewer to save time.  [default: all]",
)
@timing_options(
    rounds=default_of(api.bench, "rounds"),
    seconds=default_of(api.bench, "seconds"),
    turns="How often the arms take turns. The spread between rounds makes the intervals, so more "
    "rounds give narrower ones.",
    time="Time for one arm at one shape, all rounds together, in seconds. Without "
    "--http the whole run takes about arms x shapes x this.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="With --device cpu: also time the layers of each sparse arm beside dense ones, in ONNX "
    "Runtime in fp32. The report then shows which layers gain and which lose. Use it where a "
    "speed-up is less than the sparsity promises.",
)
@http_options
@compare_options
@click.option(
    "--output",
    type=_FOLDER,
    help="Folder to write the report to.  [default: none; needed unless two reports are compared]",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier report in --output.")
@json_option("the verdicts")
@needs_extras("bench", "bench")
def bench(as_json: bool, **options: Any) -> None:
    """Measure artefacts in turns with a dense baseline, and write a report.

    ARTEFACT and --baseline are folders, or addresses such as hf://OWNER/NAME or s3://BUCKET/MODEL.

    The report is a folder with report.html to read, report.json with every sample, and the plots.

    On a GPU a checkpoint as the baseline runs as every dense arm that this machine has, and each
    shape is compared with the fastest one. Forms that do not run here are listed with the reason.

    With --http each arm is also measured where users feel it: behind spd serve, through HTTP. With
    --compare the exit status is 1 if a row lost against an earlier report.
    """
    with interrupt_at_once():
        found = api.bench(**options, progress=TerminalProgress())
    if as_json:
        show_json(found.to_json())
    else:
        _show(found)
    if found.comparison is not None and found.comparison.failed:
        sys.exit(1)


def _show(found: api.BenchResult) -> None:
    """Print what was measured, and what a comparison found."""
    if found.page is not None:
        _show_run(found, found.page)
    if found.comparison is not None:
        _show_comparison(found.comparison)


def _show_run(found: api.BenchResult, page: Path) -> None:
    """Print the headlines, tables and caveats of a run."""
    from spd_deploy.benchmark.layers.analysis import analyse
    from spd_deploy.benchmark.layers.layer_summary import explanation_of, statement_of
    from spd_deploy.benchmark.summary import runtimes_of
    from spd_deploy.benchmark.tables import terminal_tables
    from spd_deploy.benchmark.warnings import grouped

    for headline in found.headlines:
        click.echo(f"{headline}\n")
    _show_tables(terminal_tables(found.report, found.judgement))
    if found.report.http is not None:
        _show_http(found)
    for profile in found.report.layers:
        layers = analyse(profile)
        click.echo(f"{layers.arm}: {statement_of(layers)}. {explanation_of(layers)}.\n")
    for what, about in grouped(found.judgement.caveats).items():
        click.echo(f"caveat: {what} ({'; '.join(about)})")
    click.echo(f"run by {runtimes_of(found.report)}")
    click.echo(f"report: {page}")


def _show_http(found: api.BenchResult) -> None:
    """Print what was measured through HTTP, the meaning of its latency first."""
    from spd_deploy.benchmark.http.http_tables import LATENCY_MEANS, answers_line, http_headlines
    from spd_deploy.benchmark.http.judge_http import http_judgement_of

    judged = http_judgement_of(found.report)
    if judged is None:
        return
    click.echo(f"Over HTTP. {LATENCY_MEANS}\n")
    for line in http_headlines(found.report, judged):
        click.echo(f"{line}\n")
    _show_tables(found.http_tables())
    click.echo(f"{answers_line(judged)}\n")


def _show_comparison(comparison: "ReportComparison") -> None:
    """Print the rows of two reports, what else differs, and how many rows failed."""
    from spd_deploy.benchmark.regression import comparison_table

    _show_tables([comparison_table(comparison)])
    for note in comparison.notes:
        click.echo(f"note: {note}")
    click.echo(f"{len(comparison.failed)} of {len(comparison.changes)} rows failed")


def _show_tables(tables: "Sequence[Table]") -> None:
    """Print tables, each with its note below."""
    for table in tables:
        show_table(table.title, table.columns, table.rows)
        click.echo(f"{table.note}\n" if table.note else "")
