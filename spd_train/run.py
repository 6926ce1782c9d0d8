"""One whole run: data in, a dense teacher, a sparse student, and the student's checkpoint out.

output/
  run.json            the settings; a resumed run must have the same
  teacher/            the dense teacher, a checkpoint of its own (unless --teacher names one)
  log.jsonl           losses and schedules by step, scores, and the final scores
  state.safetensors   while the run is in progress: what a resumed run continues from
  best.safetensors    while the run is in progress: the weights with the best validation score
  model.safetensors, config.json, tokenizer.json, curves.png
  spd.json            written last: its presence says that the run is finished

A recipe without a pattern trains the dense model alone, into the output folder itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, Scores, notes_on, open_checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import ProblemType
from spd_deploy.domain.temperature import TemperatureScaling
from spd_train.begun_run import begun_run
from spd_train.calibrate import scale_head, scaled_head
from spd_train.calibrate_run import calibrate, calibrations, temperature_of
from spd_train.data.batching import LabelledTokens
from spd_train.grafting import GraftedNetwork
from spd_train.kept_zeros import zeros_of
from spd_train.model import copy_tokenizer, encoder_sizes, load_classifier, save_classifier
from spd_train.plots.curves import draw_curves
from spd_train.pruning.masks import targets_of
from spd_train.pruning.permutation.permute import reorder_for
from spd_train.pruning.pruner import Pruner
from spd_train.regression_head import start_at_labels
from spd_train.run_folder import local_sha256, remove_state
from spd_train.save_checkpoint import Zeros, describe_checkpoint, rows_of_one
from spd_train.setup import PreparedRun, calibration_of, prepare_run, score_on_dev
from spd_train.sparse_start import load_students
from spd_train.teacher import check_fit, check_teacher
from spd_train.train_config import TrainConfig
from spd_train.training.base import Training
from spd_train.training.distil import Distillation
from spd_train.training.distributed import Distributed
from spd_train.training.expected_time import STUDENT_STEP, LaterTrainings, TrainingWork
from spd_train.training.finetune import FineTuning
from spd_train.training.loop import run_loop
from spd_train.training.metrics_log import METRICS_FILE, MetricsLog
from spd_train.training.schedule import stages_of, steps_of

TEACHER_FOLDER = "teacher"


def run(config: TrainConfig, progress: Progress) -> Checkpoint:
    """Train, and return the sparse checkpoint, or the dense one if the recipe has no pattern.

    Raises:
        Interrupted: ``should_stop`` returned True; ``--resume`` continues the run.
        Diverged: the loss or the gradient is not finite.
        SpdError: the configuration, the data or a model is wrong.
    """
    notes = notes_on(Path(_checked_source(config)))
    with begun_run(config, progress, notes=notes) as begun:
        config, distributed, progress = begun.config, begun.distributed, begun.progress
        if begun.finished:
            return open_checkpoint(config.output)
        if config.recipe.pattern is None:
            return _train_dense(config, config.output, distributed, progress)
        teacher = _teacher(config, distributed, progress)
        return _train_student(config, config.recipe.pattern, teacher, distributed, progress)


def _checked_source(config: TrainConfig) -> str:
    """The model to start from, once model, teacher, task and recipe are known to fit."""
    _ = config.speed  # refuses a speed-up that cannot be reached
    config.refuse_unused_texts()
    config.refuse_unused_weights()
    config.refuse_pruned_further()
    source = config.teacher or config.model
    if source is None:
        raise BadSetting("nothing to train", fix="name a --model, or a --teacher")
    check_fit(source, config.task, config.recipe, len(config.data.train), config.windows)
    if config.teacher is not None:
        check_teacher(Path(config.teacher), config.model, config.task)
    return source


def _teacher(config: TrainConfig, distributed: Distributed, progress: Progress) -> Checkpoint:
    """The dense teacher: the given one, the one that was trained before a stop, or a new one."""
    if config.teacher is not None:
        return open_checkpoint(Path(config.teacher))
    folder = config.output / TEACHER_FOLDER
    if (folder / SPD_FILE).exists():
        return open_checkpoint(folder)
    return _train_dense(config, folder, distributed, progress)


def _train_dense(
    config: TrainConfig, folder: Path, distributed: Distributed, progress: Progress
) -> Checkpoint:
    """Fine-tune the pretrained model on the labels, and write its checkpoint into ``folder``."""
    if config.model is None:
        raise BadSetting("nothing to fine-tune", fix="name a --model")
    if distributed.is_main:
        copy_tokenizer(config.model, folder)
    distributed.barrier()
    torch.manual_seed(config.recipe.seed)  # the classification head is initialised at random
    model = load_classifier(config.model, config.task, note=progress.note)
    if config.task.problem_type is ProblemType.REGRESSION:
        start_at_labels(model, encoder_sizes(model), [one.label for one in config.data.train])
    zeros, masks = None, None
    if config.keep_masks:
        zeros, masks = zeros_of(model, encoder_sizes(model), config.model)
        progress.note(f"zeros that stay: {zeros.pattern}, {zeros.reason}")
    prepared = prepare_run(config, model, folder, distributed, progress)
    training = FineTuning(
        model,
        task=config.task,
        recipe=config.recipe.teacher,
        steps=steps_of(config.recipe.teacher.epochs, prepared.steps_per_epoch),
        context=prepared.context,
        masks=masks,
        label_loss=config.label_loss,
    )
    loop = replace(prepared.loop, later=_after_teacher(config, prepared))
    best_step = run_loop(training, prepared.rows, loop, progress)
    answer = training.constant_answer(_sample(prepared))
    _warn_of_collapse(answer, "dense model", "a higher --teacher-learning-rate", progress)
    if distributed.is_main:
        dev = score_on_dev(prepared.dev, training.score)
        owner = "dense" if zeros is None else "sparse"
        found = calibrate(config, prepared, training.logits, progress, owner)
        state = scaled_head(model.state_dict(), encoder_sizes(model), 1 / temperature_of(found))
        _write_model(config, folder, training, model, state, best_step, dev, title=owner)
        pretrained = local_sha256(config.model)
        parents = {"pretrained": pretrained} if pretrained else {}
        pattern = None if zeros is None else zeros.pattern
        _finish(
            config,
            folder,
            windows=prepared.windows,
            scores={owner: dev},
            calibration={} if found is None else {owner: found},
            parents=parents,
            origins=_origins(config, pretrained="model"),
            pattern=pattern,
            zeros=zeros,
        )
    distributed.barrier()
    return open_checkpoint(folder)


def _train_student(
    config: TrainConfig,
    pattern: Pattern,
    teacher: Checkpoint,
    distributed: Distributed,
    progress: Progress,
) -> Checkpoint:
    """Distil the sparse student from the teacher, and write its checkpoint into the output."""
    recipe, folder, task = config.recipe, config.output, config.task
    if distributed.is_main:
        copy_tokenizer(str(teacher.folder), folder)
    distributed.barrier()
    model = load_classifier(str(teacher.folder), task, trained=True)
    scale_head(model, teacher.encoder, teacher.temperature)  # the logits as they were trained
    targets = targets_of(teacher.encoder, pattern, recipe.student.pruning.exclude)
    if recipe.student.pruning.permute:
        reorder_for(model, teacher.encoder, targets, progress)
    network = _grafted(model, teacher, config).to(distributed.device)
    prepared = prepare_run(config, model, folder, distributed, progress)
    calibration = calibration_of(prepared, recipe.student.pruning.calibration_tokens)
    pruner = Pruner(
        network,
        targets,
        recipe.student.pruning,
        calibration,
        speed=config.speed,
        masks={} if config.start is None else load_students(network, config.start, task),
        progress=progress,
    )
    training = Distillation(
        network,
        pruner,
        task=task,
        recipe=recipe.student,
        stages=stages_of(recipe.student, prepared.student_steps_per_epoch, recipe.max_steps),
        context=prepared.context,
        label_loss=config.label_loss,
    )
    if recipe.compile:
        network.compile_parts()
    if config.teacher is not None:
        answer = training.constant_answer(_sample(prepared), training.teacher_logits)
        _warn_of_collapse(answer, "teacher", "another --teacher", progress)
    loop = replace(prepared.loop, later=_after_student(config, training))
    best_step = run_loop(training, prepared.student_rows, loop, progress)
    pruner.verify()
    training.compute_in_int8(False)  # scores of a checkpoint are those of its fp32 weights
    answer = training.constant_answer(_sample(prepared))
    _warn_of_collapse(answer, "student", "a lower speed-up or sparsity", progress)
    if distributed.is_main:
        dev = score_on_dev(prepared.dev, training.score)
        if recipe.speedup is not None:
            pattern = pruner.reached(pattern)
        title = f"{recipe.name}, {pattern} at {pattern.sparsity:.0%}"
        found = calibrate(config, prepared, training.logits, progress, "sparse")
        state = scaled_head(network.student_state(), teacher.encoder, 1 / temperature_of(found))
        _write_model(config, folder, training, model, state, best_step, dev, title=title)
        dense = _teacher_scores(config, training, teacher, prepared)
        _finish(
            config,
            folder,
            windows=prepared.windows,
            scores={"dense": dense, "sparse": dev},
            calibration=calibrations(config, prepared, training.teacher_logits, teacher, found),
            parents={"teacher": teacher.weights_sha256},
            origins={**teacher.origins, **_origins(config, teacher="teacher")},
            pattern=pattern,
            zeros=pruner,
        )
    distributed.barrier()
    return open_checkpoint(folder)


def _after_teacher(config: TrainConfig, prepared: PreparedRun) -> LaterTrainings:
    """The trainings that follow the dense model's in the same command."""
    recipe = config.recipe
    if recipe.pattern is None:
        return LaterTrainings(runs=config.later_runs)
    stages = stages_of(recipe.student, prepared.student_steps_per_epoch, recipe.max_steps)
    updates = min(recipe.student.pruning.updates, stages.prune)
    return LaterTrainings(
        students=1 + config.later_students,
        each=TrainingWork(steps=stages.total, updates=updates),
        relative_step=STUDENT_STEP,
        runs=config.later_runs,
    )


def _after_student(config: TrainConfig, training: Distillation) -> LaterTrainings:
    """The trainings that follow a student's; other seeds only where no teacher is trained."""
    return LaterTrainings(
        students=config.later_students,
        each=TrainingWork(steps=training.total_steps, updates=training.updates),
        runs=0 if config.teacher is None else config.later_runs,
    )


def _sample(prepared: PreparedRun) -> Sequence[LabelledTokens]:
    """The validation rows; without any a sample of the training rows."""
    samples = prepared.context.samples
    return samples.holdout or samples.train


def _warn_of_collapse(answer: str | None, model: str, remedy: str, progress: Progress) -> None:
    """Report that the model gives all rows the same answer, if it does."""
    if answer is not None:
        progress.note(
            f"warning: the {model} answers {answer}: it has learned nothing from the texts; "
            f"try more epochs, more rows or {remedy}"
        )


def _grafted(model: PreTrainedModel, teacher: Checkpoint, config: TrainConfig) -> GraftedNetwork:
    """The teacher's model with a student beside each part, recording what the losses compare."""
    student = config.recipe.student
    return GraftedNetwork(
        model,
        teacher.encoder,
        unit=student.graft.unit,
        attention=student.losses.attention > 0,
        hidden=student.losses.hidden > 0,
    )


def _teacher_scores(
    config: TrainConfig, training: Distillation, teacher: Checkpoint, prepared: PreparedRun
) -> Scores:
    """The teacher's metrics on dev: those of its checkpoint if this run trained it, or new ones."""
    recorded = teacher.scores.get("dense")
    if config.teacher is None and recorded is not None:
        return recorded
    return score_on_dev(prepared.dev, training.score_teacher)


def _write_model(
    config: TrainConfig,
    folder: Path,
    training: Training,
    model: PreTrainedModel,
    state: dict[str, Tensor],
    best_step: int,
    dev: Scores,
    *,
    title: str,
) -> None:
    """Write the last record of the log, the model's files and the picture of the curves."""
    samples = training.context.samples.parts()
    scores = {name: training.score(rows) for name, rows in samples.items()}
    if isinstance(training, Distillation) and "holdout" in samples:
        scores["teacher_holdout"] = training.score_teacher(samples["holdout"])
    final = {"chosen_step": best_step, **scores, "dev": dict(dev)}
    total = training.total_steps
    log = MetricsLog(
        folder / METRICS_FILE, from_step=total, on_record=partial(config.on_record, folder)
    )
    log.write("final", total, final)
    save_classifier(model.config, state, folder)
    draw_curves(
        folder,
        title=f"{config.task.name}, {title}",
        metric=config.task.metrics[0],
        measured_on=config.data.dev_name,
    )


def _origins(config: TrainConfig, **named: str) -> dict[str, Origin]:
    """The origins of the run's models, by their role for the checkpoint."""
    return {role: config.origins[one] for role, one in named.items() if one in config.origins}


def _finish(
    config: TrainConfig,
    folder: Path,
    *,
    windows: TextWindows | None,
    scores: Mapping[str, Scores],
    calibration: Mapping[str, TemperatureScaling],
    parents: Mapping[str, str],
    origins: Mapping[str, Origin],
    pattern: Pattern | None = None,
    zeros: Zeros | None = None,
) -> None:
    """Write ``spd.json``, which marks the training as finished, and remove the saved state."""
    describe_checkpoint(
        folder,
        task=replace(config.task, trained_on=config.data.trained_on, windows=windows),
        max_tokens=config.recipe.max_tokens,
        scores=scores,
        calibration=calibration,
        split=config.data.dev_name,
        scored_rows=rows_of_one(config.data.dev),
        recipe=config.recorded_recipe(),
        parents=parents,
        origins=origins,
        pattern=pattern,
        zeros=zeros,
    )
    remove_state(folder)
