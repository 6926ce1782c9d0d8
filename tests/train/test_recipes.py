"""Recipes to JSON and back, strictly; and what the built-in ones promise."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_train.config import Recipe
from spd_train.prune_recipe import PruneRecipe
from spd_train.recipes import RECIPES, recipe_named, with_field, with_fields

PATTERNS: list[Pattern | None] = [
    None,
    NM(n=2, m=4),
    Unstructured(sparsity=0.8),
    Block(rows=16, columns=2, sparsity=0.6),
    Structured(sparsity=0.25),
]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_every_recipe_survives_json(name: str, pattern: Pattern | None) -> None:
    """What is written into a checkpoint and read again is the same value."""
    recipe = replace(recipe_named(name), pattern=pattern, max_steps=7)
    recipe = with_field(recipe, "student.pruning.exclude", ("layer.0", "query"))

    text = json.dumps(recipe.to_json())

    assert Recipe.from_json(json.loads(text)) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_in_a_file_and_in_a_folder(tmp_path: Path, name: str) -> None:
    """A ``spd.json``, its folder, and the bare recipe in a file all name the same recipe."""
    recipe = recipe_named(name)
    (tmp_path / "spd.json").write_text(json.dumps({"recipe": recipe.to_json(), "task": "x"}))
    (tmp_path / "bare.json").write_text(json.dumps(recipe.to_json()))

    assert recipe_named(str(tmp_path)) == recipe
    assert recipe_named(str(tmp_path / "spd.json")) == recipe
    assert recipe_named(str(tmp_path / "bare.json")) == recipe


def test_a_recipe_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    """The error lists the names there are."""
    with pytest.raises(BadSetting, match="no such recipe") as caught:
        recipe_named(str(tmp_path / "nowhere.json"))

    assert all(name in caught.value.fix for name in RECIPES)


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": 3}', "3"])
def test_a_file_without_a_recipe_is_refused(tmp_path: Path, text: str) -> None:
    """Broken JSON, and JSON that is no recipe."""
    (tmp_path / "r.json").write_text(text)

    with pytest.raises(BadSetting):
        recipe_named(str(tmp_path / "r.json"))


def at(value: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The object that holds a field, and the field's own name."""
    *above, name = path.split(".")
    for part in above:
        value = value[part]
    return value, name


def paths(value: dict[str, Any], above: str = "") -> list[str]:
    """Every field, at any depth."""
    found = []
    for name, inner in value.items():
        found += [f"{above}{name}"]
        found += paths(inner, f"{above}{name}.") if isinstance(inner, dict) else []
    return found


FIELDS = paths(recipe_named("spd").to_json())


@pytest.mark.parametrize("path", FIELDS)
def test_a_missing_field_is_named(path: str) -> None:
    """No field has a default in a file: an older recipe does not change its meaning in silence."""
    value = recipe_named("spd").to_json()
    place, name = at(value, path)
    del place[name]

    with pytest.raises(BadSetting, match=f"lacks a field; got {re.escape(path)}"):
        Recipe.from_json(value)


@pytest.mark.parametrize(
    "above",
    ["", "teacher.", "student.", "student.graft.", "student.losses."],
)
def test_an_unknown_field_is_named(above: str) -> None:
    """A field of a later version, or a slip of the pen, is not passed over."""
    value = recipe_named("spd").to_json()
    place, name = at(value, f"{above}sparkle")
    place[name] = 1

    with pytest.raises(BadSetting, match=f"unknown field; got {re.escape(above)}sparkle"):
        Recipe.from_json(value)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("batch_size", "8"),
        ("batch_size", 8.5),
        ("batch_size", True),
        ("compile", 1),
        ("compile", "yes"),
        ("holdout", "0.1"),
        ("max_steps", 1.5),
        ("name", 3),
        ("precision", "fp8"),
        ("device", "tpu"),
        ("student", 3),
        ("student", None),
        ("student.dropout", 0),
        ("student.decay", "twice"),
        ("student.graft", []),
        ("student.graft.unit", "neuron"),
        ("student.pruning.importance", "luck"),
        ("student.pruning.exclude", "query"),
        ("student.pruning.exclude", [1]),
        ("student.pruning.updates", None),
        ("teacher.epochs", [3]),
    ],
)
def test_a_field_of_the_wrong_type_is_named(path: str, wrong: object) -> None:
    """No type passes for another: no number for a text, no truth for a number."""
    value = recipe_named("spd").to_json()
    place, name = at(value, path)
    place[name] = wrong

    with pytest.raises(BadSetting, match=name):
        Recipe.from_json(value)


@given(
    name=st.sampled_from(sorted(RECIPES)),
    epochs=st.floats(0.01, 100),
)
def test_stages_are_scaled_alike(name: str, epochs: float) -> None:
    """A recipe that is to last so many epochs lasts so many, in the proportions it had."""
    student = RECIPES[name]()

    found = student.lasting(epochs)

    assert found.epochs == pytest.approx(epochs)
    assert found.prune_epochs * student.epochs == pytest.approx(student.prune_epochs * epochs)
    assert found.graft_epochs * student.epochs == pytest.approx(student.graft_epochs * epochs)
    assert (
        replace(
            found,
            prune_epochs=student.prune_epochs,
            graft_epochs=student.graft_epochs,
            finetune_epochs=student.finetune_epochs,
        )
        == student
    )


@pytest.mark.parametrize(
    ("path", "new", "read"),
    [
        ("seed", 5, lambda r: r.seed),
        ("student.learning_rate", 0.5, lambda r: r.student.learning_rate),
        ("student.graft.start", 0.25, lambda r: r.student.graft.start),
    ],
)
def test_one_field_is_changed_and_no_other(
    path: str, new: object, read: Callable[[Recipe], object]
) -> None:
    """The changed recipe differs from the old one just there; the old one stays."""
    recipe = recipe_named("spd")
    before = recipe.to_json()

    found = with_field(recipe, path, new)

    assert read(found) == new
    assert recipe.to_json() == before
    place, name = at(before, path)
    place[name] = new
    assert found.to_json() == before


def test_a_change_is_checked() -> None:
    """A value that makes no run is refused where it is put in."""
    with pytest.raises(BadSetting, match="graft-start"):
        with_field(recipe_named("spd"), "student.graft.start", 2.0)


def test_made_up_pairs_and_labels_are_refused_together() -> None:
    """A recipe that learns labels cannot have pairs which nobody labelled; the error has both."""
    with pytest.raises(BadSetting, match=r"no labels.*--label-weight 0.5 with --mix-pairs 0.5"):
        with_field(recipe_named("spd"), "student.losses.label", 0.5)
    with pytest.raises(BadSetting, match=r"no labels.*--label-weight 1 with --mix-pairs 0.25"):
        with_field(recipe_named("prune"), "student.mix_pairs", 0.25)


@pytest.mark.parametrize("backwards", [False, True])
def test_settings_are_refused_for_what_they_are_together(backwards: bool) -> None:
    """What excludes each other on the way from one recipe to another is fine in the end."""
    settings: dict[str, object] = {
        "pattern": NM(n=2, m=4),
        "student.losses.label": 0.0,
        "student.mix_pairs": 0.1,
        "student.losses.logits": 1.0,
        "student.pruning.allocation": "uniform",
    }
    before = replace(recipe_named("prune"), pattern=Unstructured())
    before = with_field(before, "student.pruning.allocation", "global")

    found = with_fields(before, dict(sorted(settings.items(), reverse=backwards)))

    value = found.to_json()
    for path, new in settings.items():
        place, name = at(value, path)
        assert place[name] == (str(new) if path == "pattern" else new)


@pytest.mark.parametrize("allocation", ["global", "sensitivity"])
def test_a_pattern_of_one_sparsity_cannot_be_spread(allocation: Any) -> None:
    """N:M with an uneven allocation is refused; with the even one it is fine."""
    recipe = replace(recipe_named("spd"), pattern=Unstructured())
    uneven = with_field(recipe, "student.pruning.allocation", allocation)

    with pytest.raises(BadSetting, match="no allocation can spread"):
        replace(uneven, pattern=NM(n=2, m=4))
    assert PruneRecipe().allocation == "uniform"


def test_what_recipes_are_compared_on_is_equal() -> None:
    """Every arm shares the teacher, the batches and the rows held out."""
    shared = [replace(recipe_named(n), name="", student=RECIPES["spd"]()) for n in RECIPES]

    assert all(recipe == shared[0] for recipe in shared)


def test_spd_has_a_lower_learning_rate_for_structures() -> None:
    """Under the structured pattern it differs from the others in that alone."""
    blocks, structured = (
        recipe_named("spd", pattern) for pattern in (Block(rows=64, columns=1), Structured())
    )
    assert structured.student.learning_rate < blocks.student.learning_rate
    rate = blocks.student.learning_rate
    assert with_field(structured, "student.learning_rate", rate) == blocks == recipe_named("spd")
