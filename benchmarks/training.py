"""What a step of distillation costs, as ratios to a step of plain fine-tuning of the same model.

Arms take turns on the same batches, one step each, and the ratio is that of their median times.
With ``--compile`` the step of the recipe ``spd`` is compared with itself under ``torch.compile``
instead; the first steps, in which it is compiled, are shown apart.

    python -m benchmarks.training --model MINILM_FOLDER --data GLUE/MRPC --task mrpc
    python -m benchmarks.training --model MINILM_FOLDER --data GLUE/MRPC --task mrpc --compile
"""

from collections.abc import Mapping

from benchmarks.steps import (
    PLAIN,
    Setting,
    Step,
    distilled_step,
    network_of,
    parser_of,
    plain_step,
    ratio_rows,
    seconds_in_turns,
    setting_of,
)
from spd_deploy.cli.output.console import show_table
from spd_train.config import LossRecipe
from spd_train.recipes import spd

DISTILLED: Mapping[str, LossRecipe] = {
    "attention, hidden and logits": LossRecipe(),
    "hidden and logits, fused attention": LossRecipe(attention=0.0),
    "logits alone, fused attention": LossRecipe(attention=0.0, hidden=0.0),
}
# Shapes change from batch to batch: what is compiled anew for them is compiled in the first few.
_UNCOUNTED = 3


def main() -> None:
    """Time the arms and print their ratios."""
    parser = parser_of(__doc__, steps=20)
    parser.add_argument("--compile", action="store_true", help="torch.compile on against off")
    options = parser.parse_args()
    setting = setting_of(options)
    arms = compiled_or_not(setting) if options.compile else distilled_or_not(setting)
    base = next(iter(arms))
    batches = setting.batches(_UNCOUNTED + options.steps)
    first = seconds_in_turns(arms, batches[:_UNCOUNTED])
    rows = ratio_rows(seconds_in_turns(arms, batches[_UNCOUNTED:]), base)
    show_table(
        f"{options.task}, batches of 32 by length, {options.steps} steps each, taking turns",
        ["arm", "median step", f"to {base}", f"first {_UNCOUNTED} steps"],
        [[*row, f"{sum(first[row[0]]):.1f} s"] for row in rows],
    )


def distilled_or_not(setting: Setting) -> dict[str, Step]:
    """Plain fine-tuning, and distillation with one term less each."""
    distilled = {
        name: distilled_step(setting, network_of(setting, losses), losses)
        for name, losses in DISTILLED.items()
    }
    return {PLAIN: plain_step(setting), **distilled}


def compiled_or_not(setting: Setting) -> dict[str, Step]:
    """The step of the recipe ``spd``, as it is and compiled."""
    losses = spd().losses
    return {
        name: distilled_step(setting, network_of(setting, losses), losses, compiled=compiled)
        for name, compiled in (("as it is", False), ("compiled", True))
    }


if __name__ == "__main__":
    main()
