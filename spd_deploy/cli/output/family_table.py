"""The table of ``spd train --speedup``: a row for each model, dense ones among them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from spd_deploy.api.display import score
from spd_deploy.cli.output.console import show_table

if TYPE_CHECKING:
    from spd_train.family_result import Comparison, Family


def show_family(family: "Family") -> None:
    """Print score and measured speed of each model, and the command to type next."""
    first = family.members[0].checkpoint
    metrics = list(first.scores["sparse"])
    if family.comparison is None:
        show_table(
            f"{first.task.name}: scores on {first.split}; no speed was measured here",
            ["model", *metrics, "validation drop", "folder"],
            list(_student_rows(family, metrics)),
        )
    else:
        show_table(
            f"{first.task.name}: exported models, scores on {first.split}",
            ["model", "runs in", "ms", "speed-up", *metrics],
            list(_compared_rows(family.comparison, metrics)),
        )
        click.echo(f"measured in turns: {family.comparison.where}")
        if family.comparison.warning is not None:
            click.echo(f"warning: {family.comparison.warning}")
        for member in family.members:
            drop = "" if member.drop is None else f"; {_drop(member.drop, metrics)}"
            message = family.comparison.sentence(member.speedup)
            click.echo(f"{member.speedup:g}x      {message}{drop}")
        for sentence in family.beside_shallow():
            click.echo(sentence)
    _show_chosen(family)


def _show_chosen(family: "Family") -> None:
    """Print which student is the result, and the command to type next."""
    chosen = family.chosen
    if family.max_drop is not None:
        most = f"{family.max_drop:g} points or less on the validation rows"
        click.echo(
            f"no student loses {most}: try a lower --speedup"
            if chosen is None
            else f"chosen  {chosen.speedup:g}x: the fastest that loses {most}"
        )
    if chosen is not None:
        click.echo(f"next    spd export {chosen.checkpoint.folder} --format onnx --output DIR")


def _drop(points: float, metrics: Sequence[str]) -> str:
    """The loss or gain of a student on the validation rows."""
    verb = "loses" if points >= 0 else "gains"
    of = metrics[0] if len(metrics) == 1 else f"the mean of {' and '.join(metrics)}"
    return f"{verb} {abs(points):.2f} points of 100 of {of} on the validation rows"


def _student_rows(family: "Family", metrics: Sequence[str]) -> Iterator[list[str]]:
    """The dense model and each student, with the scores of their checkpoints."""
    dense = family.members[0].checkpoint.scores["dense"]
    yield ["dense", *(score(dense.get(metric)) for metric in metrics), "", ""]
    for member in family.members:
        scores = member.checkpoint.scores["sparse"]
        drop = "-" if member.drop is None else f"{member.drop:.2f}"
        cells = [score(scores.get(metric)) for metric in metrics]
        yield [f"{member.speedup:g}x", *cells, drop, str(member.checkpoint.folder)]


def _compared_rows(comparison: "Comparison", metrics: Sequence[str]) -> Iterator[list[str]]:
    """Every model as it is exported."""
    for model in comparison.models:
        yield [
            model.name,
            f"{model.runtime} {model.precision}",
            f"{1e3 * model.seconds:.1f}",
            f"{comparison.speed_up(model).ratio:.2f}",
            *(score(model.scores.get(metric)) for metric in metrics),
        ]
