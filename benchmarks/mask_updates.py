"""What a mask update costs beside the steps of a training, and what share of the training it is.

Both recipes tighten their masks as a training does, one update after another, and a step of plain
fine-tuning and one of distillation are taken between two updates.

    python -m benchmarks.mask_updates --model MINILM_FOLDER --data GLUE/MRPC --task mrpc --epochs 8
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks.permutation import goal_of
from benchmarks.steps import (
    PLAIN,
    Setting,
    distilled_step,
    network_of,
    parser_of,
    plain_step,
    seconds_in_turns,
    setting_of,
)
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.patterns import Pattern
from spd_train.data.batching import TensorBatch
from spd_train.grafting import GraftedNetwork
from spd_train.prune_recipe import PruneRecipe
from spd_train.pruning.masks import targets_of
from spd_train.pruning.pruner import Pruner
from spd_train.recipes import spd
from spd_train.training.schedule import cubic_share

DISTILLED = "distillation"
Arm = Callable[[tuple[int, TensorBatch]], None]

UPDATES: Mapping[str, PruneRecipe] = {
    "update by magnitude": replace(spd().pruning, importance="magnitude", reconstruct=False),
    "update by second order, reconstructed": replace(
        spd().pruning, importance="second-order", reconstruct=True
    ),
}


def main() -> None:
    """Time updates and steps in turns, and print seconds and shares."""
    parser = parser_of(__doc__, steps=spd().pruning.updates)
    parser.add_argument("--epochs", type=float, default=spd().epochs, help="of the training")
    parser.add_argument("--target", default="unstructured@0.9", help="2:4 or block:64x1@0.75")
    options = parser.parse_args()
    setting = setting_of(options)
    arms = arms_of(setting, goal_of(options.target), options.steps)
    numbered = enumerate(setting.batches(options.steps), start=1)
    seconds = seconds_in_turns(arms, numbered)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    stepping = median[DISTILLED] * options.epochs * setting.steps_per_epoch
    rows = []
    for name, value in median.items():
        row = [name, f"{value:.3f} s", f"{value / median[PLAIN]:.2f}"]
        updating = sum(seconds[name])
        share = f"{updating / (updating + stepping):.2%}" if name in UPDATES else "-"
        rows.append([*row, share])
    show_table(
        f"{options.task}, {options.target}, {options.steps} updates; a training has them all and "
        f"{options.epochs:g} epochs of {setting.steps_per_epoch} steps of distillation",
        ["arm", "median", "to a plain step", "share of a training"],
        rows,
    )


def arms_of(setting: Setting, target: Pattern, updates: int) -> dict[str, Arm]:
    """A step of each kind, and the updates of each recipe on a network of its own."""
    losses = spd().losses
    networks = {name: network_of(setting, losses) for name in UPDATES}
    plain = plain_step(setting)
    distilled = distilled_step(setting, network_of(setting, losses), losses)
    return {
        PLAIN: lambda item: plain(item[1]),
        DISTILLED: lambda item: distilled(item[1]),
        **{
            name: tightening(setting, networks[name], target, recipe, updates)
            for name, recipe in UPDATES.items()
        },
    }


def tightening(
    setting: Setting, network: GraftedNetwork, target: Pattern, recipe: PruneRecipe, updates: int
) -> Arm:
    """Takes a network to the update of the item's number."""
    pruner = Pruner(
        network,
        targets_of(network.encoder, target),
        recipe,
        setting.calibration(recipe.calibration_tokens),
    )

    def tighten(item: tuple[int, TensorBatch]) -> None:
        update, _ = item
        pruner.tighten(cubic_share(update, updates), last=update == updates)

    return tighten


if __name__ == "__main__":
    main()
