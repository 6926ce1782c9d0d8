"""``spd inspect --measure``: its options, and what it prints of the layers' times."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spd_deploy.cli.console import TerminalProgress, footnotes, show_table
from spd_deploy.cli.options import THREADS, finite
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact

if TYPE_CHECKING:
    from spd_deploy.benchmark.layers.analysis import Analysis

_SEQ = 128
_ROUNDS = 6
_LARGEST = 65536
_F = TypeVar("_F", bound=Callable[..., Any])


def measuring_options(function: _F) -> _F:
    """The options of ``--measure``; those that only it has have no default but None."""
    options = (
        click.option(
            "--measure",
            is_flag=True,
            help="Time each matrix, dense and sparse, in ONNX Runtime in fp32.",
        ),
        click.option("--batch", type=click.IntRange(1, _LARGEST), help="Rows.  [default: 1]"),
        click.option(
            "--seq",
            type=click.IntRange(1, _LARGEST),
            help=f"Tokens.  [default: {_SEQ}, or what the model reads]",
        ),
        THREADS,
        click.option(
            "--seconds",
            type=click.FloatRange(0.001, 3600),
            callback=finite,
            help="Time for each of the two models.  [default: 6]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def measure(
    path: Path,
    artefact: Artefact | None,
    *,
    measure: bool,
    batch: int | None,
    seq: int | None,
    threads: int | None,
    seconds: float | None,
) -> "Analysis | None":
    """The layers' times of the artefact at ``path``; None where no one asked for them.

    Raises:
        BadArtefact: a checkpoint, an artefact of another format, or one that reads shorter texts.
    """
    if not measure:
        asked = {"--batch": batch, "--seq": seq, "--threads": threads, "--seconds": seconds}
        alone = [name for name, value in asked.items() if value is not None]
        if alone:
            raise click.UsageError(f"{alone[0]} goes with --measure")
        return None
    if artefact is None:
        raise BadArtefact(
            f"{path} is not an exported artefact, and only those can be measured",
            fix="export it first: spd export CHECKPOINT --format onnx --output DIR",
        )
    from spd_deploy.benchmark.arms import arms_of, open_arm
    from spd_deploy.benchmark.layers.analysis import analyse
    from spd_deploy.benchmark.layers.profile_layers import profile_layers, refuse_unmeasurable
    from spd_deploy.benchmark.records import Settings, Shape
    from spd_deploy.domain.cores import default_threads
    from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
    from spd_deploy.sessions.open import prove

    (arm,) = arms_of([artefact], [RUNTIME_CHOICES["onnxruntime"]])  # whose profiler it is
    longest = min(artefact.manifest.max_tokens, arm.encoder.positions)
    settings = Settings(
        shapes=(Shape(batch=batch or 1, seq=seq or min(_SEQ, longest)),),
        threads=threads or default_threads(),
        rounds=_ROUNDS,
        seconds=seconds or 6.0,
    )
    refuse_unmeasurable(arm, settings)
    with open_arm(arm, settings) as session:
        prove(session, artefact)
    (profile,) = profile_layers(arm, settings, progress=TerminalProgress())
    return analyse(profile)


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
