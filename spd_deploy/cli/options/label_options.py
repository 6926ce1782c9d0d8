"""Options of ``spd train`` about rare labels, and the metric that chooses the best model."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.options.common import Command
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import read_json
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task

if TYPE_CHECKING:
    from spd_train.data.examples import Example
    from spd_train.label_loss import LabelLoss

BALANCED = "balanced"
_FORMS = "write balanced, weights such as spam=5,ham=1, or name a JSON file with a weight by label"


def label_options(command: Command) -> Command:
    """Add ``--class-weights``, ``--focal-gamma`` and ``--metric``."""
    options = (
        click.option(
            "--class-weights",
            metavar="balanced|FILE|LABEL=WEIGHT,..",
            help="How much each label counts in the loss to the labels, of teacher and student: "
            "balanced for the inverse of how often the training rows have it, weights such as "
            "spam=5,ham=1, or a JSON file with such an object. Labels that are not named count 1. "
            "Use it if a label is rare and matters.  [default: all count 1]",
        ),
        click.option(
            "--focal-gamma",
            type=click.FloatRange(min=0.0),
            metavar="NUMBER",
            help="Focal loss: rows that the model is sure of, and right, count less in the loss to "
            "the labels, the less the larger the number; 2 is usual. Use it if most rows are "
            "easy.  [default: 0, the plain loss]",
        ),
        click.option(
            "--metric",
            metavar="NAME",
            help="Metric by which the best checkpoint is chosen on the validation rows, and in "
            "which --max-drop counts and tables begin: accuracy, f1, macro_f1 or matthews; "
            "micro_f1, macro_f1 or mean_average_precision of several labels; pearson or spearman "
            "of numbers.  [default: the mean of the task's metrics; of several labels micro_f1]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def label_loss_of(
    options: Mapping[str, Any], task: Task, train: "Sequence[Example]", progress: Progress
) -> "LabelLoss":
    """The loss to the labels that the options ask for; weights are reported.

    Raises:
        BadSetting: the task has no labels, or a weight is for a label that it does not have.
    """
    from spd_train.label_loss import LabelLoss, balanced_weights

    wanted, gamma = options["class_weights"], options["focal_gamma"] or 0.0
    if task.is_regression and (wanted is not None or gamma):
        raise BadSetting(
            "labels with an order are learned as a number, whose loss has no class weights"
            if task.ordinal
            else "a regression has no labels to weigh",
            got="--class-weights" if wanted is not None else "--focal-gamma",
            fix="leave it out",
        )
    if wanted is None:
        return LabelLoss(focal_gamma=gamma)
    if wanted == BALANCED:
        labels = [example.label for example in train if example.label is not None]
        weights = balanced_weights(task, labels)
    else:
        given = weights_in(wanted)
        if other := [label for label in given if label not in task.labels]:
            raise BadSetting(
                "a class weight is for a label that the data does not have",
                got=repr(other[0][:80]),
                fix=f"name one of {', '.join(task.labels[:20])}",
            )
        weights = tuple(given.get(label, 1.0) for label in task.labels)
    shown = [f"{label} {weight:.3g}" for label, weight in zip(task.labels, weights, strict=True)]
    loss = LabelLoss(weights=weights, focal_gamma=gamma)
    progress.note(f"class weights: {', '.join(shown[:20])}")
    return loss


def weights_in(text: str) -> dict[str, float]:
    """The weights in ``a=2,b=1``, or in the JSON file of this name.

    Raises:
        BadSetting: it is neither.
    """
    if "=" not in text or Path(text).is_file():
        found: Any = read_json(Path(text), error=BadSetting, fix=_FORMS)
    else:
        found = dict(_weight_in(part) for part in text.split(","))
    if not isinstance(found, dict) or not all(map(_is_number, found.values())):
        raise BadSetting(
            "--class-weights needs a number for each label",
            got=json.dumps(found, default=str)[:120],
            fix=_FORMS,
        )
    weights = {str(label): float(weight) for label, weight in found.items()}
    if wrong := [label for label, weight in weights.items() if not 0 < weight < math.inf]:
        raise BadSetting(
            "a class weight must be above 0",
            got=f"{wrong[0][:80]}={weights[wrong[0]]:g}",
            fix="use a small one, such as 0.1, for a label that should hardly count",
        )
    return weights


def _weight_in(part: str) -> tuple[str, float]:
    """The label and the weight in ``a=2``.

    Raises:
        BadSetting: it holds no label and number.
    """
    label, _, number = part.rpartition("=")
    try:
        return label.strip(), float(number)
    except ValueError as err:
        raise BadSetting("no weight of a label", got=repr(part[:80]), fix=_FORMS) from err


def _is_number(value: object) -> bool:
    """Whether a value is a number, which True is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
