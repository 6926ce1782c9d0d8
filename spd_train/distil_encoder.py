"""``spd distil``: a pretrained encoder and texts in, a sparse encoder out, without labels.

The dense encoder is the teacher. It is loaded as a classifier whose head is never used, so that the
student is pruned, grafted and trained by the code of ``spd_train.run``, with the loss between
hidden states alone. The result is fine-tuned on any task with ``spd train --keep-masks``.

output/
  run.json            the settings; a resumed run must have the same
  log.jsonl           losses and schedules by step, and scores
  state.safetensors   while the run is in progress: what a resumed run continues from
  best.safetensors    while the run is in progress: the weights with the best score
  model.safetensors, config.json, tokenizer.json
  distil.json         written last: its presence says that the run is finished
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from spd_deploy.domain.errors import BadData, BadModel, BadSetting
from spd_deploy.domain.folders import SPD_FILE, VERB
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task, own_task
from spd_train.begun_run import begun_run
from spd_train.config import LossRecipe, Recipe
from spd_train.data.examples import Example
from spd_train.data.splits import Data, hold_out
from spd_train.distilled_encoder import DistilledEncoder, open_distilled
from spd_train.grafting import GraftedNetwork
from spd_train.model import copy_tokenizer, encoder_sizes, load_classifier
from spd_train.pruning.masks import targets_of
from spd_train.pruning.pruner import Pruner
from spd_train.recipes import recipe_named, with_fields
from spd_train.run_folder import identity_of, remove_state
from spd_train.save_encoder import save_encoder
from spd_train.setup import PreparedRun, calibration_of, prepare_run
from spd_train.teacher import check_fit
from spd_train.train_config import TrainConfig
from spd_train.training.distributed import Distributed
from spd_train.training.encoder_distillation import EXPLAINED_VARIANCE, EncoderDistillation
from spd_train.training.loop import run_loop
from spd_train.training.metrics_log import METRICS_FILE, MetricsLog
from spd_train.training.schedule import stages_of

_MIN_TEXTS = 2


def texts_task(text_column: str | None, pair_column: str | None) -> Task:
    """The columns of the texts, in the place of a task: there are no labels."""
    task = own_task(
        text_column=text_column or "text",
        pair_column=pair_column,
        label_column=None,
        labels=(),
        name="distil",
    )
    return replace(task, metrics=(EXPLAINED_VARIANCE,))


def distil_recipe(pattern: Pattern) -> Recipe:
    """The recipe ``spd`` for an encoder alone.

    Nothing is permuted, since that would reorder the encoder's outputs.
    """
    return with_fields(
        recipe_named("spd", pattern),
        {
            "name": "distil",
            "pattern": pattern,
            "calibrate": False,
            "student.losses": LossRecipe(attention=0.0, hidden=1.0, logits=0.0, label=0.0),
            "student.pruning.permute": False,
            "student.mix_pairs": 0.0,
        },
    )


def texts_data(texts: Sequence[Example], holdout: float) -> Data:
    """Texts to train on, and a share of them to score on.

    Raises:
        BadData: there are too few texts.
    """
    if len(texts) < _MIN_TEXTS:
        raise BadData("there are too few texts", got=len(texts), fix="give thousands")
    train, held_out = hold_out(texts, holdout)
    return Data.of(train, {}, dev_name="held-out texts", holdout=held_out)


def refuse_classifier(source: str) -> None:
    """Refuse a classifier of spd, whose head would be lost.

    Raises:
        BadModel: it is one.
    """
    if (Path(source) / SPD_FILE).exists():
        raise BadModel(
            f"{source} is a classifier, and spd distil prunes a pretrained encoder",
            got=f"{SPD_FILE} in it",
            fix="use spd prune, or spd train --teacher",
        )


def distil_encoder(config: TrainConfig, progress: Progress) -> DistilledEncoder:
    """Prune and distil the encoder ``config.teacher``, and return the sparse one.

    Args:
        config: its teacher is the dense encoder, and its task that of :func:`texts_task`.
        progress: reports how far the run is.

    Raises:
        Interrupted: ``should_stop`` returned True; ``--resume`` continues the run.
        Diverged: the loss or the gradient is not finite.
        SpdError: the configuration, the texts or the model is wrong.
    """
    source, pattern = _checked(config)
    with begun_run(config, progress, settings={VERB: "distil"}) as begun:
        if begun.finished:
            return open_distilled(config.output)
        return _distil(begun.config, source, pattern, begun.distributed, begun.progress)


def _checked(config: TrainConfig) -> tuple[str, Pattern]:
    """The encoder and the pattern, once they are known to fit.

    Raises:
        BadSetting: the model or the pattern is not given.
        BadModel: the model is a classifier of spd, or is not supported.
    """
    source, pattern = config.teacher, config.recipe.pattern
    if source is None:
        raise BadSetting("nothing to distil", fix="name a --model")
    if pattern is None:
        raise BadSetting("nothing to prune", fix="say which weights become zero: --pattern 2:4")
    refuse_classifier(source)
    check_fit(source, config.task, config.recipe, len(config.data.train))
    return source, pattern


def _distil(
    config: TrainConfig,
    source: str,
    pattern: Pattern,
    distributed: Distributed,
    progress: Progress,
) -> DistilledEncoder:
    """Train the student, and write it into the output."""
    recipe, folder = config.recipe, config.output
    if distributed.is_main:
        copy_tokenizer(source, folder)
    distributed.barrier()
    torch.manual_seed(recipe.seed)  # a head is drawn, which nothing reads
    model = load_classifier(source, config.task)
    encoder = encoder_sizes(model)
    targets = targets_of(encoder, pattern, recipe.student.pruning.exclude)
    network = GraftedNetwork(
        model, encoder, unit=recipe.student.graft.unit, attention=False, hidden=True
    ).to(distributed.device)
    prepared = prepare_run(config, model, folder, distributed, progress)
    pruner = Pruner(
        network,
        targets,
        recipe.student.pruning,
        calibration_of(prepared, recipe.student.pruning.calibration_tokens),
        progress=progress,
    )
    training = EncoderDistillation(
        network,
        pruner,
        task=config.task,
        recipe=recipe.student,
        stages=stages_of(recipe.student, prepared.steps_per_epoch, recipe.max_steps),
        context=prepared.context,
    )
    if recipe.compile:
        network.compile_parts()
    best_step = run_loop(training, prepared.rows, prepared.loop, progress)
    pruner.verify()
    if distributed.is_main:
        scores = _scores(training, prepared)
        log = MetricsLog(
            folder / METRICS_FILE,
            from_step=training.total_steps,
            on_record=prepared.loop.on_record,
        )
        log.write("final", training.total_steps, {"chosen_step": best_step, **scores})
        save_encoder(source, model, encoder, network.student_state(), folder)
        DistilledEncoder(
            folder=folder,
            pattern=pattern,
            density=encoder.density(pruner.densities),
            explained_variance=scores.get("holdout", scores["train"])[EXPLAINED_VARIANCE],
            texts=len(prepared.rows),
            held_out=len(prepared.context.samples.holdout),
            recipe=recipe.to_json(),
            pretrained=identity_of(source),
            origin=config.origins.get("model"),
        ).save()
        remove_state(folder)
    distributed.barrier()
    return open_distilled(folder)


def _scores(training: EncoderDistillation, prepared: PreparedRun) -> dict[str, dict[str, float]]:
    """The scores of the chosen weights in fp32, by sample."""
    parts = prepared.context.samples.parts()
    return {name: training.score(rows) for name, rows in parts.items()}
