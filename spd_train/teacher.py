"""Checks before time is spent: whether the model fits the task, and the teacher the model."""

import json
from pathlib import Path

from spd_deploy.domain.checkpoint import CONFIG_FILE, open_checkpoint
from spd_deploy.domain.errors import BadModel, BadSetting
from spd_deploy.domain.export_shapes import exportable_architecture
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.task_agreement import refuse_other_answers
from spd_deploy.domain.tasks import TASKS, Task
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import (
    refuse_unembedded,
    tokenizer_json,
    tokenizer_of,
)
from spd_train.config import Recipe
from spd_train.data.batching import batches_per_epoch
from spd_train.model import classifier_config, encoder_from_config
from spd_train.pruning.masks import targets_of
from spd_train.training.schedule import stages_of


def check_fit(
    source: str, task: Task, recipe: Recipe, rows: int, windows: TextWindows | None = None
) -> None:
    """Refuse a model that spd cannot train, and a pattern, exclusion or schedule that does not fit.

    A model that could be trained but not exported, or whose tokenizer has more ids than the model
    has embeddings, is refused too, before any time is spent.

    Args:
        source: folder or hub name of the model.
        task: the task that it is trained for.
        recipe: pattern and schedules.
        rows: number of training rows.
        windows: how long texts are read; None cuts them.

    Raises:
        BadModel: the model is not supported.
        BadPattern: the pattern does not fit its matrices.
        BadSetting: an exclusion, the schedule or the stride of windows does not fit.
    """
    config = classifier_config(source, task)
    encoder = encoder_from_config(config)
    exportable_architecture(encoder, config.to_dict())
    if (folder := Path(source)).is_dir():
        content = tokenizer_json(folder)
        max_tokens = min(recipe.max_tokens, encoder.positions)
        tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens, content=content)
        types = getattr(config, "type_vocab_size", None)
        refuse_unembedded(tokenizer, encoder, folder, types=types)
        tokenizer.in_windows(windows, pairs=task.has_pair)
    if recipe.pattern is not None:
        targets_of(encoder, recipe.pattern, recipe.student.pruning.exclude)
        stages_of(recipe.student, batches_per_epoch(rows, recipe.batch_size), recipe.max_steps)


def check_teacher(folder: Path, model: str | None, task: Task) -> None:
    """Refuse a teacher of another task, other labels or another tokenizer.

    Args:
        folder: folder of the teacher.
        model: folder or hub name of the model that is given beside it, if any.
        task: the task that the student is trained for.

    Raises:
        BadSetting: the teacher was trained for something else, or is not a form of ``model``.
        BadModel: its tokenizer has ids without an embedding.
    """
    teacher = open_checkpoint(folder)
    # The task of the user's own data is named after its file, which does not tell tasks apart.
    named = {teacher.task.name, task.name} & set(TASKS)
    if named and teacher.task.name not in ("unknown", task.name):
        raise BadSetting(
            "the teacher was trained for another task",
            got=f"{teacher.task.name}, this is {task.name}",
            fix="use a teacher that was fine-tuned for this task",
        )
    refuse_other_answers(teacher.task, task, whose=f"--teacher {folder}")
    tokenizer_of(teacher)
    if model is not None and Path(model).is_dir():
        _check_kinship(folder, Path(model), task)


def _check_kinship(teacher: Path, model: Path, task: Task) -> None:
    """Refuse a teacher that is not a fine-tuned form of the model beside it."""
    ours, theirs = _vocabulary(model), _vocabulary(teacher)
    if ours and theirs and ours != theirs:
        raise BadSetting(
            "the teacher has another tokenizer than the model",
            got=f"{len(theirs)} and {len(ours)} pieces, or other ids for them",
            fix="use a teacher that was fine-tuned from this model, or leave --model out",
        )
    sizes = [encoder_from_config(classifier_config(str(p), task)) for p in (teacher, model)]
    if sizes[0] != sizes[1]:
        raise BadSetting(
            "the teacher is not a fine-tuned form of the model: their sizes differ",
            got=f"{teacher / CONFIG_FILE} and {model / CONFIG_FILE}",
            fix="leave --model out: the student starts from the teacher",
        )


def _vocabulary(folder: Path) -> dict[str, int]:
    """The id of each token in ``tokenizer.json``; empty if there is no such file."""
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        pieces = value["model"]["vocab"]
        ids = (
            {p: int(i) for p, i in pieces.items()}
            if isinstance(pieces, dict)
            else {str(p[0]): i for i, p in enumerate(pieces)}
        )
        return {**ids, **{a["content"]: int(a["id"]) for a in value.get("added_tokens", [])}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise BadModel(
            f"{file} is not a tokenizer", got=repr(err), fix="copy it from the model again"
        ) from err
