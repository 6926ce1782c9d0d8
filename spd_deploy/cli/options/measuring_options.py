"""``spd inspect --measure``: its options, and what it prints of the layers' times."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spd_deploy.api import values
from spd_deploy.api.layer_times import BATCH, SECONDS, SEQ
from spd_deploy.cli.options.common import LARGEST_SIZE, finite, runtime_threads
from spd_deploy.cli.output.console import footnotes, show_table

if TYPE_CHECKING:
    from spd_deploy.benchmark.layers.analysis import Analysis

_F = TypeVar("_F", bound=Callable[..., Any])


def measuring_options(function: _F) -> _F:
    """The options of ``--measure``; one that is left out is None, so that the rest is noticed."""
    options = (
        click.option(
            "--measure",
            is_flag=True,
            help="Time each matrix of an artefact beside its dense form, in ONNX Runtime in fp32, "
            "and tell what it gained. Takes about twice --seconds.",
        ),
        click.option(
            "--batch",
            type=click.IntRange(1, LARGEST_SIZE),
            help="With --measure: rows of a batch. Name the batch size that you serve.  "
            f"[default: {BATCH}]",
        ),
        click.option(
            "--seq",
            type=click.IntRange(1, LARGEST_SIZE),
            help="With --measure: tokens of a row. Name the length that your texts have.  "
            f"[default: {SEQ}, or fewer if the model reads fewer]",
        ),
        runtime_threads("With --measure: "),
        click.option(
            "--seconds",
            type=click.FloatRange(values.SECONDS.low, values.SECONDS.high),
            callback=finite,
            help="With --measure: time for each of the two models, in seconds. More time gives "
            f"steadier figures.  [default: {SECONDS:g}]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def show_measured(title: str, analysis: "Analysis", *, every: bool) -> None:
    """Whether it is faster and why not more, the matrices, and the waterfall of the model."""
    from spd_deploy.benchmark.layers.layer_summary import (
        LEGEND,
        explanation_of,
        notes_of,
        statement_of,
    )
    from spd_deploy.benchmark.layers.layer_tables import matrix_table, waterfall_lines

    click.echo(f"{analysis.arm} ({title}): {statement_of(analysis)}.")
    click.echo(f"{explanation_of(analysis)}.\n")
    marks = footnotes(matrix.facts.reason for matrix in analysis.matrices)
    table = matrix_table(analysis, every=every, marks=marks)
    show_table(table.title, table.columns, table.rows)
    click.echo()
    for reason, mark in marks.items():
        click.echo(f"{mark}  {reason}")
    click.echo("\n".join((*LEGEND, "", *waterfall_lines(analysis), "", *notes_of(analysis))))
