"""``spd train`` as a user types it: options change single settings, and a run can be made again."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from spd_deploy.cli.main import cli
from spd_deploy.cli.options.recipe_options import recipe_from
from spd_deploy.cli.options.recipe_table import FIELDS
from spd_deploy.cli.train import train
from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.tasks import TASKS
from spd_train.config import Recipe
from spd_train.recipes import recipe_named
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_model


def spd(*arguments: str) -> Result:
    """Run a command in this process; a failure of the command is shown whole."""
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def recipe(*arguments: str) -> Recipe:
    """The recipe that these options make."""
    with click.Context(train) as context:
        train.parse_args(context, ["--output", "out", *arguments])
        return recipe_from(context.params)


def value_at(value: object, path: str) -> object:
    """A field at any depth."""
    for name in path.split("."):
        value = getattr(value, name)
    return value


def other(option: click.Option, before: object) -> tuple[list[str], object]:
    """Words that set an option to what it was not, and the value that they stand for."""
    if option.is_flag:
        return [option.opts[0] if not before else option.secondary_opts[0]], not before
    if isinstance(option.type, click.Choice):
        new = next(c for c in option.type.choices if c != before)
        return [option.opts[0], new], new
    new = 3 if option.type is click.INT else 0.125
    new = new + 4 if new == before else new
    new = new + 1 if option.name == "max_tokens" else new
    return [option.opts[0], str(new)], new


@pytest.mark.parametrize("name", FIELDS)
def test_each_option_changes_its_field_and_no_other(name: str) -> None:
    """The recipe with an option is the named one but for that field."""
    option = next(o for o in train.params if o.name == name)
    assert isinstance(option, click.Option)
    named = ("--recipe", "spd-paper", "--pattern", "unstructured")
    if name == "keep_layers":  # layers are removed under this pattern alone
        named = ("--recipe", "spd", "--pattern", "structured")
    before = recipe(*named)
    words, new = other(option, value_at(before, FIELDS[name]))

    found = recipe(*named, *words)

    assert value_at(found, FIELDS[name]) == new != value_at(before, FIELDS[name])
    changes = [path for path in FIELDS.values() if value_at(found, path) != value_at(before, path)]
    assert changes == [FIELDS[name]]


def test_no_option_leaves_the_recipe_as_it_is() -> None:
    """An option that is not given has no say: its default is the recipe's."""
    assert recipe() == recipe_named("spd")
    assert recipe("--recipe", "prune") == recipe_named("prune")


def test_stages_are_scaled_after_they_are_set() -> None:
    """``--epochs`` keeps the proportions of the stages as the other options made them."""
    found = recipe("--prune-epochs", "1", "--graft-epochs", "1", "--finetune-epochs", "2",
                   "--epochs", "8")  # fmt: skip

    student = found.student
    assert (student.prune_epochs, student.graft_epochs, student.finetune_epochs) == (2, 2, 4)


def test_what_may_not_be_pruned_is_collected() -> None:
    """``--exclude`` may be given many times."""
    found = recipe("--exclude", "query", "--exclude", "layer.0")

    assert found.student.pruning.exclude == ("query", "layer.0")


def test_a_run_can_be_made_again_from_its_record(tmp_path: Path) -> None:
    """``--recipe RUN/spd.json`` and nothing else of its settings gives the same bits."""
    data, model = mrpc_files(tmp_path / "MRPC"), tmp_path / "model"
    tiny_model(model, task=TASKS["mrpc"], hidden=32, intermediate=64)
    given = ("--task", "mrpc", "--data", str(data), "--model", str(model))
    settings = (
        *("--pattern", "block:8x1", "--sparsity", "0.5", "--epochs", "1.5", "--seed", "3"),
        *("--teacher-epochs", "0.5", "--batch-size", "16", "--max-tokens", "32"),
        *("--allocation", "global", "--calibration-tokens", "64", "--exclude", "layer.0"),
    )

    first = spd("train", *given, *settings, "--output", str(tmp_path / "a"))
    record = str(tmp_path / "a" / SPD_FILE)
    second = spd("train", *given, "--recipe", record, "--output", str(tmp_path / "b"))

    assert first.exit_code == second.exit_code == 0, first.output + second.output
    for part in (".", "teacher"):
        ours, theirs = (tmp_path / run / part / WEIGHTS_FILE for run in ("a", "b"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert json.loads((tmp_path / "b" / SPD_FILE).read_text()) == json.loads(
        (tmp_path / "a" / SPD_FILE).read_text()
    )
    found = open_checkpoint(tmp_path / "b")
    assert found.recipe["seed"] == 3 and found.sparsities
