"""The table that ``spd train --seeds`` prints."""

from typing import TYPE_CHECKING

import click

from spd_deploy.cli.output.console import show_table

if TYPE_CHECKING:
    from spd_train.seeds import SeedResults, SeedSummary


def show_seeds(seeds: "SeedResults") -> None:
    """Print a row for each arm and metric: the mean with its 95 % interval, then each seed."""
    from spd_train.seeds import SEEDS_FILE

    first = next(iter(seeds.runs.values()))
    show_table(
        f"{first.task.name} on {first.split}: mean of {len(seeds.runs)} seeds, 95 % t-interval",
        ["", "metric", "mean", *(f"seed {seed}" for seed in seeds.runs)],
        [
            [arm, metric, _mean_text(summary), *_scores(seeds, arm, metric)]
            for arm, metrics in seeds.summaries().items()
            for metric, summary in metrics.items()
        ],
    )
    click.echo(f"saved   {seeds.output / SEEDS_FILE}")


def _mean_text(summary: "SeedSummary | None") -> str:
    """The mean and half the width of its interval, such as ``0.8515 ± 0.0123``."""
    if summary is None:
        return "-"
    return f"{summary.mean:.4f}" + (
        "" if summary.half_width is None else f" ± {summary.half_width:.4f}"
    )


def _scores(seeds: "SeedResults", arm: str, metric: str) -> list[str]:
    """The score of each seed, or a dash where the metric is undefined."""
    found = [run.scores.get(arm, {}).get(metric) for run in seeds.runs.values()]
    return ["-" if score is None else f"{score:.4f}" for score in found]
