"""The options of ``spd distil`` that set fields of its recipe."""

from collections.abc import Callable, Mapping

import click

from spd_deploy.cli.options.common import Command
from spd_deploy.cli.options.recipe_table import EXCLUDE_HELP, OPTIONS, recipe_option

# Each with a help of its own where that of spd train speaks of a classifier; None keeps it.
_HELPS: Mapping[str, str | None] = {
    "max_steps": "Upper bound on the optimiser steps. The finetune stage is cut to meet it. Use it "
    "for a quick trial.",
    "learning_rate": "Peak learning rate; 1e-4 with --pattern structured. Lower it if the training "
    "diverges.",
    "dropout": "Dropout of the sparse encoder, with the rates of the model. The dense one has "
    "none. Turn it off if the sparse encoder underfits.",
    "importance": None,
    "mask_updates": None,
    "reconstruct": None,
    "calibration_tokens": None,
    "batch_size": None,
    "accumulate": None,
    "max_tokens": "Length to which a text or pair is cut, in tokens. The start of the run reports "
    "how many texts are cut. Lower it for speed, raise it for long texts.",
    "holdout": "Share of the texts, in [0, 1), that is held out: the best weights are chosen on "
    "them. At most 2000 texts. 0 trains on all texts and takes the last weights.",
    "seed": "Seed of the batches, dropout and grafting. Change it to repeat a run with other "
    "random numbers.",
    "precision": None,
    "device": None,
    "compile": None,
}
FIELDS: Mapping[str, str] = {name: OPTIONS[name].field for name in _HELPS}


def distil_recipe_options(command: Command) -> Command:
    """The command with ``--epochs``, ``--exclude`` and the recipe's fields that concern it."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--epochs",
            type=float,
            metavar="EPOCHS",
            help="Length of the three stages together, in epochs of the texts. Raise it for few "
            f"texts, lower it for many.  [default: {_default_epochs():g}]",
        ),
        click.option("--exclude", multiple=True, metavar="TEXT", help=EXCLUDE_HELP),
        *(recipe_option(name, text) for name, text in _HELPS.items()),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _default_epochs() -> float:
    """Length of the three stages, in epochs."""
    from spd_train.recipes import spd

    return spd().epochs
