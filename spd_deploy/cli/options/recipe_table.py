"""The options of ``spd train`` that set single fields of its recipe, with their helps.

The defaults in the helps are read from the recipe ``spd``, so a help cannot disagree with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import click

from spd_deploy.cli.options.common import Command
from spd_train.config import Device, GraftShape, GraftUnit, PrecisionChoice
from spd_train.prune_recipe import Allocation, Importance
from spd_train.recipes import recipe_named

DEFAULT_RECIPE = "spd"
IMPORTANCE_HELP = (
    "Score by which weights are ranked; the lowest are pruned. `magnitude`: w^2. `movement` and "
    "`taylor`: from the gradients of training steps. `activation`: w^2 times the mean square of "
    "the input (Wanda). `second-order`: rise of the output error (Optimal Brain Surgeon). "
    "`magnitude` is the fastest to compute."
)
RECONSTRUCT_HELP = (
    "After each mask update, solve the kept weights again by least squares, so that each matrix "
    "gives the dense model's outputs on the calibration texts. Turn off to save time; costs "
    "accuracy."
)
PERMUTE_HELP = (
    "Before pruning, reorder rows and columns so that the pattern keeps more of the large weights. "
    "The dense model's outputs stay the same. Affects N:M and block patterns."
)
ALLOCATION_HELP = (
    "Sparsity of each matrix. `uniform`: the same for all. `global`: one ranking over all "
    "matrices. `sensitivity`: more where a trial on the calibration texts costs less. N:M has only "
    "`uniform`."
)
MIN_DENSITY_HELP = (
    "Smallest share of weights, in (0, 1), that a matrix keeps with --allocation global or "
    "sensitivity. Raise it if accuracy falls because some become too sparse."
)
EXCLUDE_HELP = (
    "Keep matrices dense whose name contains this text, such as `query` or `layer.0`; spd inspect "
    "lists the names. May be given several times.  [default: no matrix]"
)
CALIBRATION_HELP = (
    "Number of tokens of training text on which importance and reconstruction are computed. More "
    "is more exact and slower."
)
PRECISION_HELP = (
    "Number format of the forward and backward passes; weights stay in fp32. `auto`: bf16 if the "
    "hardware multiplies it, otherwise fp32. Use fp32 if the loss is not a number."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeOption:
    """One option and the field of the recipe that it replaces.

    Attributes:
        field: path of the field, such as ``student.graft.start``.
        help: what it sets, its unit, and when to change it; the default is added.
        metavar: stands for the value in the help.
        choices: the values that are accepted, if they are a list.
        flag: the option is a pair of switches, ``--NAME`` and ``--no-NAME``.
    """

    field: str
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    flag: bool = False


OPTIONS: Mapping[str, RecipeOption] = {
    "max_steps": RecipeOption(
        field="max_steps",
        metavar="STEPS",
        help="Upper bound on the student's optimiser steps. The finetune stage is cut to meet it. "
        "Use it for a quick trial.",
    ),
    "prune_epochs": RecipeOption(
        field="student.prune_epochs",
        metavar="EPOCHS",
        help="Length of the prune stage, in epochs. The sparsity rises to its target in it. Raise "
        "it for a high sparsity.",
    ),
    "graft_epochs": RecipeOption(
        field="student.graft_epochs",
        metavar="EPOCHS",
        help="Length of the graft stage, in epochs. The grafting probability reaches 1 at its end. "
        "Set it to 0 with --graft-schedule none.",
    ),
    "finetune_epochs": RecipeOption(
        field="student.finetune_epochs",
        metavar="EPOCHS",
        help="Length of the finetune stage, in epochs. All parts of the student are in place in "
        "it. Raise it if the validation score still rises at the end.",
    ),
    "int8_epochs": RecipeOption(
        field="student.int8_epochs",
        metavar="EPOCHS",
        help="Length of quantisation-aware training at the end of the finetune stage, in epochs: "
        "the student rounds weights and inputs as an int8 artefact does. Use 2 if spd export "
        "--precision int8 costs too much.",
    ),
    "learning_rate": RecipeOption(
        field="student.learning_rate",
        metavar="RATE",
        help="Peak learning rate of the student; in the recipe spd 1e-4 with --speedup or "
        "--pattern structured. Lower it if the training diverges.",
    ),
    "dropout": RecipeOption(
        field="student.dropout",
        flag=True,
        help="Dropout of the student, with the rates of the model. The teacher has none. "
        "Turn it off if the student underfits.",
    ),
    "mix_pairs": RecipeOption(
        field="student.mix_pairs",
        metavar="SHARE",
        help="Share, in [0, 1], of the text pairs of a batch that get the second text of another "
        "row. Only the teacher labels them, so --label-weight must be 0. No effect on single "
        "texts.",
    ),
    "graft_schedule": RecipeOption(
        field="student.graft.shape",
        choices=get_args(GraftShape),
        help="Schedule of the grafting probability p, with which a part of the student replaces "
        "its teacher's. `constant` keeps --graft-start until the graft stage ends. `linear` raises "
        "p to 1 over the prune and graft stages. `paper` keeps --graft-start over the prune stage "
        "and raises p to 1 over the graft stage. `none`: p is always 1.",
    ),
    "graft_start": RecipeOption(
        field="student.graft.start",
        metavar="PROBABILITY",
        help="Grafting probability p at the first step, in [0, 1]. Lower it to keep more of the "
        "teacher in place at first.",
    ),
    "graft_unit": RecipeOption(
        field="student.graft.unit",
        choices=get_args(GraftUnit),
        help="Part that is drawn as one: a whole encoder `layer`, or a `sublayer` (attention and "
        "feed-forward are drawn apart). The paper draws layers.",
    ),
    "attention_weight": RecipeOption(
        field="student.losses.attention",
        metavar="WEIGHT",
        help="Weight of the loss between the attention probabilities of student and teacher "
        "(squared distance). 0 leaves it out, so that the faster fused attention kernel runs. The "
        "paper has 1.",
    ),
    "hidden_weight": RecipeOption(
        field="student.losses.hidden",
        metavar="WEIGHT",
        help="Weight of the loss between the hidden states of student and teacher (squared "
        "distance). 0 leaves it out; set it to 0 to learn from answers alone.",
    ),
    "logits_weight": RecipeOption(
        field="student.losses.logits",
        metavar="WEIGHT",
        help="Weight of the loss between the logits of student and teacher (KL divergence). 0 "
        "leaves it out; set it to 0 to learn the labels alone.",
    ),
    "label_weight": RecipeOption(
        field="student.losses.label",
        metavar="WEIGHT",
        help="Weight of the loss to the true labels (cross-entropy, or squared error for a "
        "regression). 0 leaves it out. Raise it if the teacher is weak.",
    ),
    "temperature": RecipeOption(
        field="student.losses.temperature",
        metavar="T",
        help="Temperature of the KL divergence, above 0. Raise it to give small logits more "
        "weight.",
    ),
    "importance": RecipeOption(
        field="student.pruning.importance", choices=get_args(Importance), help=IMPORTANCE_HELP
    ),
    "mask_updates": RecipeOption(
        field="student.pruning.updates",
        metavar="COUNT",
        help="Number of mask updates in the prune stage. Each raises the sparsity. Fewer are "
        "faster.",
    ),
    "regrow": RecipeOption(
        field="student.pruning.regrow",
        flag=True,
        help="Let a pruned weight come back at a later mask update if its score has risen. Turn it "
        "off to repeat pruning that never takes a zero back.",
    ),
    "reconstruct": RecipeOption(
        field="student.pruning.reconstruct", flag=True, help=RECONSTRUCT_HELP
    ),
    "permute": RecipeOption(field="student.pruning.permute", flag=True, help=PERMUTE_HELP),
    "allocation": RecipeOption(
        field="student.pruning.allocation", choices=get_args(Allocation), help=ALLOCATION_HELP
    ),
    "min_density": RecipeOption(
        field="student.pruning.least_density", metavar="SHARE", help=MIN_DENSITY_HELP
    ),
    "keep_layers": RecipeOption(
        field="student.pruning.keep_layers",
        metavar="COUNT",
        help="Keep so many whole layers and nothing of the others, with --pattern structured: a "
        "shallower dense student. Use it to compare a sparse student with.",
    ),
    "calibration_tokens": RecipeOption(
        field="student.pruning.calibration_tokens", metavar="TOKENS", help=CALIBRATION_HELP
    ),
    "teacher_epochs": RecipeOption(
        field="teacher.epochs",
        metavar="EPOCHS",
        help="Length of the teacher's fine-tuning, in epochs. Raise it for small data. No effect "
        "with --teacher.",
    ),
    "teacher_learning_rate": RecipeOption(
        field="teacher.learning_rate",
        metavar="RATE",
        help="Peak learning rate of the teacher. Lower it if its training diverges. No effect with "
        "--teacher.",
    ),
    "batch_size": RecipeOption(
        field="batch_size",
        metavar="ROWS",
        help="Rows of an optimiser step, over all processes and micro-batches. A smaller batch "
        "makes more steps an epoch.",
    ),
    "accumulate": RecipeOption(
        field="accumulate",
        metavar="COUNT",
        help="Micro-batches that a process computes a step in (gradient accumulation). Raise it if "
        "memory runs out; --batch-size stays the same.",
    ),
    "max_tokens": RecipeOption(
        field="max_tokens",
        metavar="TOKENS",
        help="Length to which a text or pair is cut, in tokens. The start of the training reports "
        "how many texts are cut. Lower it for speed, raise it for long texts.",
    ),
    "holdout": RecipeOption(
        field="holdout",
        metavar="SHARE",
        help="Share of train, in [0, 1), that becomes validation rows: the best checkpoint is "
        "chosen on them. At most 2000 rows. 0 trains on all rows and takes the last checkpoint.",
    ),
    "seed": RecipeOption(
        field="seed",
        metavar="SEED",
        help="Seed of the new classification head, the batches, dropout, mixed pairs and grafting. "
        "Change it to repeat a training with other random numbers.",
    ),
    "precision": RecipeOption(
        field="precision", choices=get_args(PrecisionChoice), help=PRECISION_HELP
    ),
    "device": RecipeOption(
        field="device",
        choices=get_args(Device),
        help="Device to train on. cuda needs an NVIDIA GPU and PyTorch with CUDA.",
    ),
    "calibrate": RecipeOption(
        field="calibrate",
        flag=True,
        help="Divide the logits of teacher and student by a temperature that is fitted on the "
        "validation rows, so that of answers with a score of 0.9 nine in ten are right. Changes no "
        "label. Turn it off to keep the logits as they were trained.",
    ),
    "compile": RecipeOption(
        field="compile",
        flag=True,
        help="Compile the layers with torch.compile. The first steps take minutes longer, all "
        "others are faster; worth it for long runs on a GPU.",
    ),
}
FIELDS: Mapping[str, str] = {name: option.field for name, option in OPTIONS.items()}


def recipe_option(name: str, help: str | None = None) -> Callable[[Command], Command]:
    """The click option of one entry of :data:`OPTIONS`. Its value is None if it is not given.

    Args:
        name: name of the entry.
        help: what the option says where a command has a use of its own for it.
    """
    option = OPTIONS[name]
    spelled = name.replace("_", "-")
    text = f"{help or option.help}  [default: {default_text(option.field)}]"
    if option.flag:
        return click.option(f"--{spelled}/--no-{spelled}", name, default=None, help=text)
    if option.choices:
        return click.option(f"--{spelled}", name, type=click.Choice(option.choices), help=text)
    return click.option(
        f"--{spelled}", name, type=_number_type(option), metavar=option.metavar, help=text
    )


def default_text(field: str) -> str:
    """The value of a field in the recipe ``spd``, as a help shows it."""
    value = default_of(field)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_of(field: str) -> object:
    """The value of a field in the recipe ``spd``."""
    value: object = recipe_named(DEFAULT_RECIPE)
    for name in field.split("."):
        value = getattr(value, name)
    return value


def _number_type(option: RecipeOption) -> click.ParamType[Any]:
    """A number of the field's own kind; an absent number is a count."""
    return click.FLOAT if isinstance(default_of(option.field), float) else click.INT
