"""From the options of ``spd train`` to its recipe."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.options.common import Command
from spd_deploy.cli.options.recipe_table import (
    DEFAULT_RECIPE,
    EXCLUDE_HELP,
    FIELDS,
    OPTIONS,
    recipe_option,
)
from spd_deploy.cli.options.speed_options import speedups_of
from spd_deploy.domain.folders import COMMAND
from spd_deploy.domain.patterns import parse_pattern

if TYPE_CHECKING:
    from spd_train.config import Recipe

# These are no fields of the recipe, and yet change it.
_COMPOSING = ("pattern", "sparsity", "speedups", "max_drop", "exclude", "recipe", "epochs")


def recipe_options(command: Command) -> Command:
    """The command with ``--recipe``, ``--epochs``, ``--exclude`` and all of :data:`OPTIONS`."""
    recipe = click.option(
        "--recipe",
        default=DEFAULT_RECIPE,
        show_default=True,
        metavar="NAME|FILE",
        help="spd, spd-paper, prune, prune-kd or one-shot; or the spd.json of an earlier run. The "
        "options below change single fields of the recipe. Their defaults are those of the recipe "
        "spd.",
    )
    epochs = click.option(
        "--epochs",
        type=float,
        metavar="EPOCHS",
        help="Length of the student's three stages together, in epochs; each is scaled by the same "
        f"factor. Raise it for accuracy, lower it for speed.  [default: {_default_epochs():g}]",
    )
    exclude = click.option("--exclude", multiple=True, metavar="TEXT", help=EXCLUDE_HELP)
    options: list[Callable[[Command], Command]] = [recipe, epochs]
    for name in OPTIONS:
        options.append(recipe_option(name))
        if name == "min_density":
            options.append(exclude)
    for option in reversed(options):
        command = option(command)
    return command


def recipe_from(options: Mapping[str, Any]) -> "Recipe":
    """The recipe that ``--recipe`` names, with the fields that the other options replace.

    Raises:
        SpdError: there is no such recipe, or the settings contradict each other.
    """
    from spd_train.recipes import recipe_named, with_field, with_fields

    if options["sparsity"] is not None and options["pattern"] is None:
        raise click.UsageError("--sparsity needs a --pattern")
    settings = {path: options[o] for o, path in FIELDS.items() if options[o] is not None}
    if speedups := speedups_of(options):
        if options["sparsity"] is not None:
            raise click.UsageError(
                "--speedup decides how much is removed, so --sparsity has no effect; leave one out"
            )
        settings["speedup"] = speedups[0]
        settings["pattern"] = parse_pattern(options["pattern"] or "structured")
    elif options["pattern"] is not None:
        settings["pattern"] = parse_pattern(options["pattern"], options["sparsity"])
    if options["exclude"]:
        settings["student.pruning.exclude"] = options["exclude"]
    recipe = with_fields(recipe_named(options["recipe"], settings.get("pattern")), settings)
    if options["epochs"] is not None:
        recipe = with_field(recipe, "student", recipe.student.lasting(options["epochs"]))
    return recipe


def recipe_to_resume(
    run: Mapping[str, Any], options: Mapping[str, Any], given: Collection[str]
) -> "Recipe":
    """The recipe of the run that is resumed, or of the options if one of them changes the recipe.

    Args:
        run: the run's ``run.json``; empty if no run is resumed.
        options: all options, with those that the run was started with.
        given: names of the options that the user typed now.
    """
    from spd_train.config import Recipe

    if run.get(COMMAND) and not {*FIELDS, *_COMPOSING} & set(given):
        return Recipe.from_json(run["recipe"])
    return recipe_from(options)


def refuse_student_options(options: Mapping[str, Any]) -> None:
    """Refuse options of the student where no pattern is given, and so no student is trained.

    Raises:
        UsageError: naming the first of them.
    """
    of_student = [name for name, path in FIELDS.items() if path.startswith("student.")]
    given = [n for n in ("teacher", "epochs", "max_steps", *of_student) if options[n] is not None]
    given += ["exclude"] if options["exclude"] else []
    if options["recipe"] != DEFAULT_RECIPE:
        given.append("recipe")
    if given:
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} configures the sparse student, but no --pattern is "
            "given, so only the dense model would be trained; add a --pattern, or leave the option "
            "out"
        )


def _default_epochs() -> float:
    """Length of the three stages of the default recipe, in epochs."""
    from spd_train.recipes import recipe_named

    return recipe_named(DEFAULT_RECIPE).student.epochs
