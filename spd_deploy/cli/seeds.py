"""How ``spd train --seeds`` shows what several seeds gave."""

from typing import TYPE_CHECKING

import click

from spd_deploy.cli.console import show_table

if TYPE_CHECKING:
    from spd_train.seeds import Seeds, Summary


def show_seeds(seeds: "Seeds") -> None:
    """A row an arm and metric: mean with its 95 % interval, then each seed."""
    from spd_train.seeds import SEEDS_FILE

    first = next(iter(seeds.runs.values()))
    show_table(
        f"{first.task.name} on {first.split}: mean of {len(seeds.runs)} seeds, 95 % t-interval",
        ["", "metric", "mean", *(f"seed {seed}" for seed in seeds.runs)],
        [
            [arm, metric, _spelled(found), *_each(seeds, arm, metric)]
            for arm, metrics in seeds.summaries().items()
            for metric, found in metrics.items()
        ],
    )
    click.echo(f"saved   {seeds.output / SEEDS_FILE}")


def _spelled(found: "Summary | None") -> str:
    """Such as ``0.8515 ± 0.0123``."""
    if found is None:
        return "-"
    return f"{found.mean:.4f}" + ("" if found.reach is None else f" ± {found.reach:.4f}")


def _each(seeds: "Seeds", arm: str, metric: str) -> list[str]:
    """The score of each seed."""
    found = [run.scores.get(arm, {}).get(metric) for run in seeds.runs.values()]
    return ["-" if score is None else f"{score:.4f}" for score in found]
