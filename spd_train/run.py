"""One whole training: data, dense teacher, sparse student, and the checkpoint that comes of it.

output/
  run.json            the settings; a resumed run must have the same
  teacher/            the dense teacher, a checkpoint of its own (unless one was given)
  log.jsonl           what happened at each step
  state.safetensors   while the run is under way
  best.safetensors    likewise: the parameters that did best on the rows held out
  model.safetensors, config.json, tokenizer.json, curves.png
  spd.json            written last: its presence says that the run is finished

A recipe without a pattern trains the dense model alone, into the output folder itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from spd_deploy.domain.checkpoint import (
    SPD_FILE,
    Checkpoint,
    Scores,
    notes_on,
    open_checkpoint,
)
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.tasks import Task
from spd_train.config import Recipe
from spd_train.data.splits import Data
from spd_train.grafting import GraftedNetwork
from spd_train.hub import require_hub_for
from spd_train.model import copy_tokenizer, load_classifier, save_classifier
from spd_train.plots.curves import draw_curves
from spd_train.pruning.masks import targets_of
from spd_train.pruning.permutation.permute import reorder
from spd_train.pruning.pruner import Pruner
from spd_train.run_folder import begin, give_back, identity_of, local_sha256
from spd_train.save_checkpoint import describe
from spd_train.setup import Prepared, calibration_of, prepare, score_on_dev
from spd_train.teacher import check_fit, check_teacher
from spd_train.training.best_checkpoint import BEST_FILE
from spd_train.training.distil import Distillation
from spd_train.training.distributed import Distributed, start_processes
from spd_train.training.finetune import FineTuning
from spd_train.training.loop import train
from spd_train.training.metrics_log import METRICS_FILE, MetricsLog
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.schedule import stages_of, steps_of
from spd_train.training.state import STATE_FILE

TEACHER_FOLDER = "teacher"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What to train, from what, to where.

    Attributes:
        model: the pretrained encoder, a folder or a name on the hub.
        teacher: a classifier that is fine-tuned already; None to fine-tune ``model``. Where both
            are given the teacher must be a fine-tuned form of the model.
        resume: go on with what is in ``output``.
        should_stop: asked after each step.
        command: how the run was begun on the command line; it is kept and decides nothing.
    """

    task: Task
    data: Data
    recipe: Recipe
    model: str | None
    teacher: str | None
    output: Path
    resume: bool = False
    should_stop: Callable[[], bool] = lambda: False
    command: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What decides the run's outcome: a resumed run must agree in all of it."""
        return {
            "task": self.task.name,
            "recipe": self.recipe.to_json(),
            "data_sha256": self.data.sha256,
            "model": identity_of(self.model),
            "teacher": identity_of(self.teacher),
        }


def run(request: TrainConfig, progress: Progress) -> Checkpoint:
    """Train, and return the sparse checkpoint; the dense one where no pattern is wanted.

    Raises:
        Interrupted: stopped by ``should_stop``; ``--resume`` goes on.
        Diverged: the loss is not a number any more.
        SpdError: whatever of the input is amiss.
    """
    source = request.teacher or request.model
    if source is None:
        raise BadSetting("nothing to train", fix="name a --model, or a --teacher")
    if request.model is not None:
        require_hub_for(request.model)
    check_fit(source, request.task, request.recipe, len(request.data.train))
    if request.teacher is not None:
        check_teacher(Path(request.teacher), request.model, request.task)
    for note in notes_on(Path(source)):
        progress.note(note)
    precision = choose_precision(request.recipe.precision, request.recipe.device)
    # What was trained in is part of what was trained: it is kept, and a resumed run must have it.
    request = replace(request, recipe=replace(request.recipe, precision=precision.name))
    processes = start_processes(request.recipe.device)
    finished = None
    if processes.is_main:
        finished = begin(
            request.output, request.settings(), resume=request.resume, command=request.command
        )
    if processes.any(finished is not None):
        if processes.is_main:
            progress.note(f"{request.output} is finished already")
        return open_checkpoint(request.output)
    if processes.is_main:
        progress.note(f"precision: {precision.name}, {precision.reason}")
    try:
        if request.recipe.pattern is None:
            return _dense(request, request.output, processes, progress)
        teacher = _teacher(request, processes, progress)
        return _student(request, teacher, processes, progress)
    except BaseException:  # a Ctrl-C included: what holds no training is not to block the next try
        if processes.is_main and not request.resume:
            give_back(request.output)
        raise


def _teacher(request: TrainConfig, processes: Distributed, progress: Progress) -> Checkpoint:
    """The dense teacher: the one given, the one fine-tuned before a stop, or a new one."""
    if request.teacher is not None:
        return open_checkpoint(Path(request.teacher))
    folder = request.output / TEACHER_FOLDER
    if (folder / SPD_FILE).exists():
        return open_checkpoint(folder)
    return _dense(request, folder, processes, progress)


def _dense(
    request: TrainConfig, folder: Path, processes: Distributed, progress: Progress
) -> Checkpoint:
    """The pretrained model fine-tuned on the labels, as a checkpoint in ``folder``."""
    if request.model is None:
        raise BadSetting("nothing to fine-tune", fix="name a --model")
    if processes.is_main:
        copy_tokenizer(request.model, folder)
    processes.wait()
    torch.manual_seed(request.recipe.seed)  # the classifier's new head is drawn
    note = (progress if processes.is_main else Silent()).note
    model = load_classifier(request.model, request.task, note=note)
    prepared = prepare(request, model, folder, processes, progress)
    training = FineTuning(
        model,
        task=request.task,
        recipe=request.recipe.teacher,
        steps=steps_of(request.recipe.teacher.epochs, prepared.steps_per_epoch),
        place=prepared.place,
    )
    chosen = train(training, prepared.rows, prepared.loop, progress)
    if processes.is_main:
        dev = score_on_dev(prepared.dev, training.score_on)
        _finish_log(folder, training, chosen, dev)
        save_classifier(model.config, model.state_dict(), folder)
        draw_curves(
            folder,
            title=f"{request.task.name}, dense",
            metric=request.task.metrics[0],
            measured_on=request.data.dev_name,
        )
        pretrained = local_sha256(request.model)
        parents = {"pretrained": pretrained} if pretrained else {}
        _describe(request, folder, scores={"dense": dev}, parents=parents)
    processes.wait()
    return open_checkpoint(folder)


def _student(
    request: TrainConfig, teacher: Checkpoint, processes: Distributed, progress: Progress
) -> Checkpoint:
    """The sparse student, distilled from the teacher into the output folder."""
    recipe, folder, task = request.recipe, request.output, request.task
    assert recipe.pattern is not None  # noqa: S101 - run() trains the dense model alone otherwise
    if processes.is_main:
        copy_tokenizer(str(teacher.folder), folder)
    processes.wait()
    model = load_classifier(str(teacher.folder), task, trained=True)
    losses, pruning = recipe.student.losses, recipe.student.pruning
    goals = targets_of(teacher.encoder, recipe.pattern, pruning.exclude)
    if pruning.permute:
        reorder(model, teacher.encoder, goals, progress if processes.is_main else Silent())
    network = GraftedNetwork(
        model,
        teacher.encoder,
        unit=recipe.student.graft.unit,
        attention=losses.attention > 0,
        hidden=losses.hidden > 0,
    )
    network.to(processes.device)
    prepared = prepare(request, model, folder, processes, progress)
    stages = stages_of(recipe.student, prepared.steps_per_epoch, recipe.max_steps)
    pruner = Pruner(network, goals, pruning, calibration_of(prepared, pruning.calibration_tokens))
    training = Distillation(
        network,
        pruner,
        task=task,
        recipe=recipe.student,
        stages=stages,
        place=prepared.place,
    )
    if recipe.compile:
        network.compile_parts()
    chosen = train(training, prepared.rows, prepared.loop, progress)
    pruner.verify()
    if processes.is_main:
        sparse = score_on_dev(prepared.dev, training.score_on)
        _finish_log(folder, training, chosen, sparse)
        save_classifier(model.config, network.student_state(), folder)
        draw_curves(
            folder,
            title=f"{task.name}, {recipe.name}, {recipe.pattern} at {recipe.pattern.sparsity:.0%}",
            metric=task.metrics[0],
            measured_on=request.data.dev_name,
        )
        dense = _teacher_scores(request, training, teacher, prepared)
        _describe(
            request,
            folder,
            scores={"dense": dense, "sparse": sparse},
            parents={"teacher": teacher.weights_sha256},
            pruner=pruner,
        )
    processes.wait()
    return open_checkpoint(folder)


def _teacher_scores(
    request: TrainConfig, training: Distillation, teacher: Checkpoint, prepared: Prepared
) -> Scores:
    """The teacher's metrics on dev: known where this data was measured, measured otherwise."""
    known = teacher.scores.get("dense")
    if request.teacher is None and known is not None:
        return known
    return score_on_dev(prepared.dev, training.teacher_score_on)


def _finish_log(
    folder: Path, training: FineTuning | Distillation, chosen: int, dev: Scores
) -> None:
    """The last record: what was chosen, and how it does on train, on what was held out, on dev."""
    samples = training.place.samples.parts()
    scores = {name: training.score_on(rows) for name, rows in samples.items()}
    journal = MetricsLog(folder / METRICS_FILE, from_step=training.total_steps)
    journal.write(
        "final", training.total_steps, {"chosen_step": chosen, **scores, "dev": dict(dev)}
    )


def _describe(
    request: TrainConfig,
    folder: Path,
    *,
    scores: Mapping[str, Scores],
    parents: Mapping[str, str],
    pruner: Pruner | None = None,
) -> None:
    """Write ``spd.json`` and clear the state away: the training in ``folder`` is finished."""
    describe(
        folder,
        task=replace(request.task, trained_on=request.data.trained_on),
        max_tokens=request.recipe.max_tokens,
        scores=scores,
        split=request.data.dev_name,
        recipe=request.recipe.to_json(),
        parents=parents,
        pattern=None if pruner is None else request.recipe.pattern,
        pruner=pruner,
    )
    for name in (STATE_FILE, BEST_FILE):
        (folder / name).unlink(missing_ok=True)
