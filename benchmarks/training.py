"""What a step of distillation costs, as ratios to a step of plain fine-tuning of the same model.

Arms take turns on the same batches, one step each, and the ratio is that of their median times.

    python -m benchmarks.training --model MINILM_FOLDER --data GLUE/MRPC --task mrpc
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from spd_deploy.cli.console import show_table
from spd_deploy.domain.tasks import task_named
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_train.data.batches import epoch_batches, tokenise
from spd_train.data.splits import read_data
from spd_train.data.tensors import TensorBatch, batch_of
from spd_train.model import encoder_sizes, load_classifier
from spd_train.network import GraftedNetwork
from spd_train.preparing import calibration_on
from spd_train.recipe import LossRecipe
from spd_train.training.distil import Objective
from spd_train.training.finetune import LabelObjective, adamw
from spd_train.training.precision import choose_precision

Step = Callable[[TensorBatch], None]

DISTILLED: Mapping[str, LossRecipe] = {
    "attention, hidden and logits": LossRecipe(),
    "hidden and logits, fused attention": LossRecipe(attention=0.0),
    "logits alone, fused attention": LossRecipe(attention=0.0, hidden=0.0),
}
PLAIN = "plain fine-tuning"


def main() -> None:
    """Time the arms and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = task_named(options.task)
    tokenizer = Tokenizer(Path(options.model) / TOKENIZER_FILE, max_tokens=128)
    rows = tokenise(read_data(task, options.data).train, tokenizer)
    order = epoch_batches([len(r.tokens) for r in rows], batch_size=32, seed=0, epoch=0)
    batches = [
        batch_of([rows[i] for i in b], pad_id=tokenizer.pad_id, device="cpu")
        for b in order[: options.steps]
    ]
    calibration = calibration_on(
        rows, 2048, pad_id=tokenizer.pad_id, device="cpu", autocast=torch.no_grad
    )

    def plain() -> Step:
        model = load_classifier(options.model, task)
        model.train()
        objective = LabelObjective(model, task)
        return _step(objective, dict(model.named_parameters()))

    def distilled(recipe: LossRecipe) -> Step:
        model = load_classifier(options.model, task)
        network = GraftedNetwork(
            model, encoder_sizes(model), attention=recipe.attention > 0, hidden=recipe.hidden > 0
        )
        objective = Objective(network, task, recipe)
        objective.measure_spread(calibration.batches)
        network.train()
        return _step(objective, dict(network.students()))

    arms = {PLAIN: plain(), **{name: distilled(recipe) for name, recipe in DISTILLED.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for batch in batches:
        for name, step in arms.items():
            start = time.perf_counter()
            step(batch)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds[PLAIN])
    show_table(
        f"{options.task}, batches of 32 by length, {options.steps} steps each, taking turns",
        ["arm", "median step", "to plain"],
        [
            [n, f"{statistics.median(s) * 1e3:.0f} ms", f"{statistics.median(s) / base:.2f}"]
            for n, s in seconds.items()
        ],
    )


def _step(objective: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> Step:
    """One optimiser step of an objective."""
    optimizer = adamw(parameters, 0.0)
    precision = choose_precision("auto", "cpu")

    def step(batch: TensorBatch) -> None:
        with precision.autocast("cpu"):
            terms = objective(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
