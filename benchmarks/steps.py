"""What the benchmarks of training share: rows of a task, a step of each kind, arms taking turns."""

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from spd_deploy.domain.tasks import Task, task_named
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.timing.host_clock import seconds_of
from spd_deploy.timing.rounds import interleave
from spd_train.config import LossRecipe
from spd_train.data.batching import (
    LabelledTokens,
    TensorBatch,
    batch_of,
    batches_per_epoch,
    epoch_batches,
    tokenise,
)
from spd_train.data.splits import read_data
from spd_train.grafting import GraftedNetwork
from spd_train.model import encoder_sizes, load_classifier
from spd_train.pruning.calibration import Calibration
from spd_train.setup import calibration_on
from spd_train.training.base import adamw
from spd_train.training.distil import Objective
from spd_train.training.finetune import LabelObjective
from spd_train.training.mixed_precision import choose_precision

Item = TypeVar("Item")
Step = Callable[[TensorBatch], None]

MAX_TOKENS = 128
BATCH_SIZE = 32
PLAIN = "plain fine-tuning"
_SPREAD_TOKENS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A model and the rows of a task that it is trained on."""

    model: str
    task: Task
    rows: Sequence[LabelledTokens]
    pad_id: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches that an epoch has."""
        return batches_per_epoch(len(self.rows), BATCH_SIZE)

    def batches(self, count: int) -> list[TensorBatch]:
        """The first batches of an epoch: their order is random, so they are a fair sample."""
        lengths = [len(row.tokens) for row in self.rows]
        order = epoch_batches(lengths, batch_size=BATCH_SIZE, seed=0, epoch=0)
        return [
            batch_of([self.rows[i] for i in batch], pad_id=self.pad_id, device="cpu")
            for batch in order[:count]
        ]

    def calibration(self, tokens: int) -> Calibration:
        """Texts of the task to calibrate on."""
        precision = choose_precision("auto", "cpu")
        return calibration_on(
            self.rows,
            tokens,
            pad_id=self.pad_id,
            device="cpu",
            autocast=lambda: precision.autocast("cpu"),
        )


def parser_of(description: str | None, *, steps: int) -> argparse.ArgumentParser:
    """The options that all of them have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="the task's folder")
    parser.add_argument("--task", required=True)
    parser.add_argument("--steps", type=int, default=steps, help="of each arm")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def setting_of(options: argparse.Namespace) -> Setting:
    """What the options name, with as many threads as they say."""
    torch.set_num_threads(options.threads)
    task = task_named(options.task)
    tokenizer = Tokenizer(Path(options.model) / TOKENIZER_FILE, max_tokens=MAX_TOKENS)
    return Setting(
        model=options.model,
        task=task,
        rows=tokenise(read_data(task, options.data).train, tokenizer),
        pad_id=tokenizer.pad_id,
    )


def plain_step(setting: Setting) -> Step:
    """A step of fine-tuning all weights on the labels."""
    model = load_classifier(setting.model, setting.task)
    model.train()
    return _step(LabelObjective(model, setting.task), dict(model.named_parameters()))


def network_of(setting: Setting, losses: LossRecipe) -> GraftedNetwork:
    """The model with a student beside each part, recording what the losses compare."""
    model = load_classifier(setting.model, setting.task)
    return GraftedNetwork(
        model, encoder_sizes(model), attention=losses.attention > 0, hidden=losses.hidden > 0
    )


def distilled_step(
    setting: Setting, network: GraftedNetwork, losses: LossRecipe, *, compiled: bool = False
) -> Step:
    """A step of distillation with every student part in place."""
    objective = Objective(network, setting.task, losses)
    objective.measure_variance(setting.calibration(_SPREAD_TOKENS).batches)
    network.train()
    if compiled:
        network.compile_parts()
    return _step(objective, dict(network.student_parameters()))


def seconds_in_turns(
    arms: Mapping[str, Callable[[Item], object]], items: Iterable[Item]
) -> dict[str, list[float]]:
    """Seconds that each arm takes for each item; every other round goes backwards."""
    numbered = tuple(items)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number, name in interleave(tuple(arms), len(numbered)):
        seconds[name].append(seconds_of(partial(arms[name], numbered[number])))
    return seconds


def ratio_rows(seconds: Mapping[str, Sequence[float]], base: str) -> list[list[str]]:
    """Each arm with its median in milliseconds and the ratio to the arm ``base``."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        [name, f"{value * 1e3:.0f} ms", f"{value / medians[base]:.2f}"]
        for name, value in medians.items()
    ]


def _step(objective: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Step:
    """One optimiser step of an objective."""
    optimizer = adamw(parameters, 0.0)
    precision = choose_precision("auto", "cpu")

    def step(batch: TensorBatch) -> None:
        with precision.autocast("cpu"):
            terms = objective(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()

    return step
