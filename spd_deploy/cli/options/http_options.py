"""Options of ``spd bench`` for HTTP, and for the comparison with an earlier report."""

import math
from pathlib import Path
from typing import Any

import click

from spd_deploy.api import benchmarks as api
from spd_deploy.api import values
from spd_deploy.cli.options.common import Command, default_of, finite


class RateList(click.ParamType[tuple[float, ...]]):
    """Numbers above zero with commas between them."""

    name = "n,n,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The rates; the API gives a list.

        Raises:
            click.BadParameter: one is no number, or not above zero.
        """
        parts = value if isinstance(value, tuple | list) else str(value).split(",")
        try:
            found = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a list of numbers such as 50,100", param, ctx)
        low, high = values.RATE.low, values.RATE.high
        if wrong := [one for one in found if not (math.isfinite(one) and low <= one <= high)]:
            self.fail(
                f"{value!r} holds {wrong[0]:g}; a rate is from {low:g} to {high:g} requests a "
                "second",
                param,
                ctx,
            )
        return found


def http_options(command: Command) -> Command:
    """The options that measure behind HTTP."""
    options = (
        click.option(
            "--http",
            is_flag=True,
            help="Also measure through HTTP: a spd serve process is started for each arm in each "
            "round, and loaded by a process of its own, over one connection (single stream), with "
            "texts that arrive at random (server), and with as many as it takes (offline).",
        ),
        click.option(
            "--url",
            multiple=True,
            help="With --http: URL of a server that runs already. Give one for each ARTEFACT and "
            "for the baseline; which is which is told from what they serve.  [default: none; spd "
            "starts the servers]",
        ),
        click.option(
            "--api-key-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="With --url: file that holds the API key of the servers. Without it the key is "
            "taken from the environment variable SPD_API_KEY, if that is set.  [default: none]",
        ),
        click.option(
            "--rates",
            type=RateList(),
            help="With --http: rates at which single texts arrive, in requests a second, with "
            "commas between them.  [default: none; the search below chooses the rates]",
        ),
        click.option(
            "--latency-bound",
            type=click.FloatRange(values.BOUND_MS.low, values.BOUND_MS.high),
            default=default_of(api.bench, "latency_bound"),
            show_default=True,
            callback=finite,
            metavar="MS",
            help="With --http: the highest rate is searched for at which 99 % of the requests are "
            "answered within so many milliseconds.",
        ),
        click.option(
            "--price-per-hour",
            type=click.FloatRange(values.PRICE.low, values.PRICE.high),
            callback=finite,
            help="With --http: price of this machine for an hour, in any currency. The report then "
            "has the cost of a million requests at the rate within the bound.  [default: none]",
        ),
    )
    return _with(options, command)


def compare_options(command: Command) -> Command:
    """The options that compare with an earlier report."""
    options = (
        click.option(
            "--compare",
            type=click.Path(path_type=Path),
            metavar="REPORT",
            help="Earlier report to compare with, row by row: report.json or its folder. Only "
            "ratios against the dense arm of the same run are compared, since absolute times "
            "differ with what else a machine does. Exit status 1 if a row is worse than "
            "--fail-below. With a second report in the place of ARTEFACT nothing is measured.  "
            "[default: none]",
        ),
        click.option(
            "--fail-below",
            type=click.FloatRange(values.FAIL_BELOW.low, values.FAIL_BELOW.high),
            default=default_of(api.bench, "fail_below"),
            show_default=True,
            callback=finite,
            help="With --compare: least ratio of a new value to the old one. Measure more --rounds "
            "where a limit near 1 fails by noise.",
        ),
        click.option(
            "--compare-times",
            is_flag=True,
            help="With --compare: also compare absolute times. Use it on machines that do nothing "
            "else.",
        ),
    )
    return _with(options, command)


def _with(options: Any, command: Command) -> Command:
    """The command with the options, in their order."""
    for option in reversed(options):
        command = option(command)
    return command
