"""The recipes that come with spd, each composed by one function.

    spd         our best: permuted, second-order importance, kept weights reconstructed, grafted,
                distilled, with mixed pairs
    spd-paper   what the paper's code intends: magnitude, cubic in 12 updates, p held and then
                raised to 1, the learning rate decayed and rewound, three unweighted losses
    prune       magnitude pruning with the true labels
    prune-kd    magnitude pruning with distillation, without grafting
    one-shot    pruned once with reconstruction, then fine-tuned on the true labels

The last three are baselines. They start from the same fine-tuned teacher and train the same
parameters for as many epochs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import read_json
from spd_deploy.domain.patterns import Pattern
from spd_train.config import GraftRecipe, LossRecipe, Recipe, StudentRecipe
from spd_train.prune_recipe import PruneRecipe

Value = TypeVar("Value")

_LABELS_ALONE = LossRecipe(attention=0.0, hidden=0.0, logits=0.0, label=1.0)
_UNGRAFTED = GraftRecipe(shape="none", start=1.0)


def spd() -> StudentRecipe:
    """Sparse Progressive Distillation with our best settings: 2, 1 and 5 epochs."""
    return StudentRecipe(
        prune_epochs=2.0,
        graft_epochs=1.0,
        finetune_epochs=5.0,
        learning_rate=4e-4,
        decay="once",
        warmup_share=0.02,
        mix_pairs=0.5,
        graft=GraftRecipe(shape="linear", start=0.8, unit="sublayer"),
        losses=LossRecipe(attention=0.0, hidden=1.0, logits=1.0, label=0.0),
        pruning=PruneRecipe(
            importance="second-order", updates=6, regrow=True, reconstruct=True, permute=True
        ),
    )


def spd_paper() -> StudentRecipe:
    """The paper's schedule: 30, 10 and 20 epochs (Huang et al. 2022, and their code's command)."""
    return StudentRecipe(
        prune_epochs=30.0,
        graft_epochs=10.0,
        finetune_epochs=20.0,
        learning_rate=6.4e-4,
        decay="rewound",
        graft=GraftRecipe(shape="paper", start=0.8, unit="layer"),
        losses=LossRecipe(attention=1.0, hidden=1.0, logits=1.0, scale="plain"),
        pruning=PruneRecipe(importance="magnitude", updates=12),
    )


def prune() -> StudentRecipe:
    """Gradual magnitude pruning while fine-tuning on the true labels (Zhu and Gupta 2017)."""
    return StudentRecipe(
        prune_epochs=4.0,
        graft_epochs=0.0,
        finetune_epochs=4.0,
        learning_rate=1e-4,
        graft=_UNGRAFTED,
        losses=_LABELS_ALONE,
        pruning=PruneRecipe(importance="magnitude", updates=12),
    )


def prune_kd() -> StudentRecipe:
    """Gradual magnitude pruning with the three distillation losses, without grafting."""
    return StudentRecipe(
        prune_epochs=4.0,
        graft_epochs=0.0,
        finetune_epochs=4.0,
        learning_rate=2e-4,
        graft=_UNGRAFTED,
        losses=LossRecipe(),
        pruning=PruneRecipe(importance="magnitude", updates=12),
    )


def one_shot() -> StudentRecipe:
    """Pruned at the first step with reconstruction, then fine-tuned on the true labels."""
    return StudentRecipe(
        prune_epochs=0.01,
        graft_epochs=0.0,
        finetune_epochs=4.0,
        learning_rate=5e-5,
        decay="once",
        warmup_share=0.1,
        graft=_UNGRAFTED,
        losses=_LABELS_ALONE,
        pruning=PruneRecipe(importance="second-order", updates=1, reconstruct=True),
    )


RECIPES: Mapping[str, Callable[[], StudentRecipe]] = {
    "spd": spd,
    "spd-paper": spd_paper,
    "prune": prune,
    "prune-kd": prune_kd,
    "one-shot": one_shot,
}


# The peak learning rate of the recipe ``spd`` under the structured pattern. What is left after
# heads and neurons were removed one at a time is close to the teacher already, and the rate at
# which block-sparse students recover moves it away again.
STRUCTURED_LEARNING_RATE = 1e-4


def recipe_named(name: str, pattern: Pattern | None = None) -> Recipe:
    """The recipe of this name, or the one in a file; its pattern may be None.

    Args:
        name: one of ``RECIPES``, or the path of a ``spd.json`` or of its folder.
        pattern: what will be pruned to; ``spd`` has a lower learning rate for the structured one.

    Raises:
        BadSetting: there is no such recipe and no such file, or the file is damaged.
    """
    if name in RECIPES:
        student = RECIPES[name]()
        if name == "spd" and pattern is not None and pattern.structured:
            student = replace(student, learning_rate=STRUCTURED_LEARNING_RATE)
        return Recipe(name=name, pattern=None, student=student)
    file = Path(name) / SPD_FILE if Path(name).is_dir() else Path(name)
    if not file.is_file():
        raise BadSetting(
            "no such recipe", got=name, fix=f"use one of {', '.join(RECIPES)}, or a {SPD_FILE}"
        )
    value = read_json(file, error=BadSetting, fix=f"use a {SPD_FILE} that spd train wrote")
    recipe = value.get("recipe", value)
    if not isinstance(recipe, Mapping):
        raise BadSetting(f"{file} has no recipe", fix=f"use a {SPD_FILE} that spd train wrote")
    return Recipe.from_json(recipe)


def with_field(value: Value, path: str, new: object) -> Value:
    """A frozen value with one field replaced, at any depth, such as ``student.graft.start``."""
    return with_fields(value, {path: new})


def with_fields(value: Value, settings: Mapping[str, object]) -> Value:
    """A frozen value with fields replaced by their paths, all at once.

    The value is checked only after the last field is replaced, so the order does not matter.
    """
    fields: dict[str, object] = {}
    inner: dict[str, dict[str, object]] = {}
    for path, new in settings.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = new
        else:
            fields[name] = new
    below = {
        name: with_fields(fields.get(name, getattr(value, name)), parts)
        for name, parts in inner.items()
    }
    return replace(cast("Any", value), **{**fields, **below})  # type: ignore[no-any-return]
