"""What ``spd train --speedup`` prints: a row for each student."""

from typing import TYPE_CHECKING

import click

from spd_deploy.api.display import score
from spd_deploy.cli.console import show_table

if TYPE_CHECKING:
    from spd_train.family import Family, Member


def show_family(family: "Family") -> None:
    """Print the scores and the measured speed of each student, and the command to type next."""
    first = family.members[0].checkpoint
    metrics = list(first.scores["sparse"])
    dense = [score(first.scores["dense"].get(metric)) for metric in metrics]
    show_table(
        f"{first.task.name}: scores on {first.split}, speed against the dense model",
        ["speed-up", "measured", *metrics, "held-out drop", "folder"],
        [
            ["dense", "1.00", *dense, "", ""],
            *([*_row(member, metrics), str(member.checkpoint.folder)] for member in family.members),
        ],
    )
    for member in family.members:
        if member.speed is not None:
            click.echo(f"{member.speedup:g}x      {member.speed.sentence(member.speedup)}")
    _show_chosen(family)


def _show_chosen(family: "Family") -> None:
    """Print which student is the result, and the command to type next."""
    chosen = family.chosen
    if family.max_drop is not None:
        most = f"{family.max_drop:g} points or less on the held-out rows"
        click.echo(
            f"no student loses {most}: try a lower --speedup"
            if chosen is None
            else f"chosen  {chosen.speedup:g}x: the fastest that loses {most}"
        )
    if chosen is not None:
        click.echo(f"next    spd export {chosen.checkpoint.folder} --format onnx --output DIR")


def _row(member: "Member", metrics: list[str]) -> list[str]:
    """The cells of a student but the last."""
    scores = member.checkpoint.scores["sparse"]
    return [
        f"{member.speedup:g}",
        "-" if member.speed is None else f"{member.speed.ratio:.2f}",
        *(score(scores.get(metric)) for metric in metrics),
        "-" if member.drop is None else f"{member.drop:.2f}",
    ]
