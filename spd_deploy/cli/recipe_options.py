"""The options of ``spd train`` that make its recipe."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.domain.folders import COMMAND
from spd_deploy.domain.patterns import parse_pattern

if TYPE_CHECKING:
    from spd_train.recipe import Recipe

# The field of the recipe that each option replaces; an option not given leaves it as it is.
FIELDS: Mapping[str, str] = {
    "teacher_epochs": "teacher.epochs",
    "teacher_learning_rate": "teacher.learning_rate",
    "prune_epochs": "student.prune_epochs",
    "graft_epochs": "student.graft_epochs",
    "finetune_epochs": "student.finetune_epochs",
    "learning_rate": "student.learning_rate",
    "dropout": "student.dropout",
    "mix_pairs": "student.mix_pairs",
    "graft": "student.graft.shape",
    "graft_start": "student.graft.start",
    "graft_unit": "student.graft.unit",
    "attention_weight": "student.losses.attention",
    "hidden_weight": "student.losses.hidden",
    "logits_weight": "student.losses.logits",
    "label_weight": "student.losses.label",
    "temperature": "student.losses.temperature",
    "importance": "student.pruning.importance",
    "updates": "student.pruning.updates",
    "regrow": "student.pruning.regrow",
    "reconstruct": "student.pruning.reconstruct",
    "permute": "student.pruning.permute",
    "allocation": "student.pruning.allocation",
    "least_density": "student.pruning.least_density",
    "calibration_tokens": "student.pruning.calibration_tokens",
    "batch_size": "batch_size",
    "accumulate": "accumulate",
    "max_tokens": "max_tokens",
    "max_steps": "max_steps",
    "holdout": "holdout",
    "seed": "seed",
    "precision": "precision",
    "device": "device",
    "compile": "compile",
}


def recipe_from(options: Mapping[str, Any]) -> "Recipe":
    """The recipe named, with what the command line changes of it.

    Raises:
        SpdError: no such recipe, or settings that make no run.
    """
    from spd_train.recipes import all_changed, changed, recipe_named

    if options["sparsity"] is not None and options["spelled"] is None:
        raise click.UsageError("--sparsity needs a --pattern")
    settings = {path: options[o] for o, path in FIELDS.items() if options[o] is not None}
    if options["spelled"] is not None:
        settings["pattern"] = parse_pattern(options["spelled"], options["sparsity"])
    if options["exclude"]:
        settings["student.pruning.exclude"] = options["exclude"]
    recipe = all_changed(recipe_named(options["recipe_name"]), settings)
    if options["epochs"] is not None:
        recipe = changed(recipe, "student", recipe.student.lasting(options["epochs"]))
    return recipe


def recipe_to_resume(
    run: Mapping[str, Any], options: Mapping[str, Any], given: Collection[str]
) -> "Recipe":
    """The recipe of a run that is gone on with, or else the one that the options make.

    Where an option says something of the recipe, all of them make it again, so that what was said
    before counts as the same.
    """
    from spd_train.recipe import Recipe

    of_recipe = {*FIELDS, "spelled", "sparsity", "exclude", "recipe_name", "epochs"}
    if run.get(COMMAND) and not of_recipe & set(given):
        return Recipe.from_json(run["recipe"])
    return recipe_from(options)


def refuse_student_options(options: Mapping[str, Any]) -> None:
    """Without a pattern there is no student, and what was said of it would be passed over."""
    of_student = [name for name, path in FIELDS.items() if path.startswith("student.")]
    given = [n for n in ("teacher", "epochs", "max_steps", *of_student) if options[n] is not None]
    given += ["exclude"] if options["exclude"] else []
    if options["recipe_name"] != "spd":
        given.append("recipe")
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise click.UsageError(
            f"{option} is of the sparse student, and without a --pattern there is none: the dense "
            "model alone would be trained; name a --pattern, or leave it out"
        )
