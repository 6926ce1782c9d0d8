"""``--pattern`` and ``--sparsity``, which ``spd train`` and ``spd prune`` share."""

from collections.abc import Callable

import click

from spd_deploy.cli.options.common import Command
from spd_deploy.domain.patterns import PATTERN_EXAMPLES, PATTERN_SYNTAX, parse_pattern


def pattern_options(*, absent: str) -> Callable[[Command], Command]:
    """Decorate a command with the two options.

    Args:
        absent: what happens without a pattern.
    """
    pattern = click.option(
        "--pattern",
        metavar="PATTERN",
        help=f"Sparsity pattern of the weights: {PATTERN_SYNTAX}. spd map shows which are fast on "
        f"a machine.  [default: none, {absent}]",
    )
    sparsity = click.option(
        "--sparsity",
        type=float,
        metavar="SHARE",
        help=f"Share of weights that are zero, in (0, 1). Higher is smaller and faster, and costs "
        f"accuracy. An N:M pattern fixes it.  [default: {_defaults()}]",
    )
    return lambda command: pattern(sparsity(command))


def _defaults() -> str:
    """The sparsity of each pattern that leaves it open."""
    patterns = [parse_pattern(text) for text in PATTERN_EXAMPLES]
    return ", ".join(
        f"{pattern.sparsity:g} {str(pattern).partition(':')[0]}"
        for pattern in patterns
        if not pattern.fixed_sparsity
    )
