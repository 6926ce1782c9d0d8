"""One whole training: data, dense teacher, sparse student, and the checkpoint that comes of it.

output/
  run.json            the settings; a resumed run must have the same
  teacher/            the dense teacher, a checkpoint of its own (unless one was given)
  log.jsonl           what happened at each step
  state.safetensors   while the run is under way
  model.safetensors, config.json, tokenizer.json, curves.png
  spd.json            written last: its presence says that the run is finished
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from spd_deploy.domain.checkpoint import (
    SPD_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    Scores,
    open_checkpoint,
    save_description,
)
from spd_deploy.domain.errors import (
    BadCheckpoint,
    BadInput,
    BadSetting,
    NotWritten,
    VerificationFailed,
)
from spd_deploy.domain.files import read_json, sha256_of, write_json
from spd_deploy.domain.metrics import merged_scores
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.domain.versions import versions_of
from spd_train.data.batches import LabelledTokens, batches_per_epoch, tokenise
from spd_train.data.splits import Data
from spd_train.model import (
    classifier_config,
    copy_tokenizer,
    encoder_from_config,
    encoder_sizes,
    load_classifier,
    save_classifier,
)
from spd_train.network import GraftedNetwork
from spd_train.recipe import Recipe
from spd_train.reports.curves import draw_curves
from spd_train.training.distil import Distillation
from spd_train.training.finetune import FineTuning
from spd_train.training.loop import Loop, train
from spd_train.training.precision import Precision, choose_precision
from spd_train.training.schedule import Stages, steps_of
from spd_train.training.scoring import Forward, Samples, sample, score_rows
from spd_train.training.state import STATE_FILE

RUN_FILE = "run.json"
TEACHER_FOLDER = "teacher"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to train, from what, to where.

    Attributes:
        model: the pretrained encoder, a folder or a name on the hub.
        teacher: a classifier that is fine-tuned already; None to fine-tune ``model``.
        resume: go on with what is in ``output``.
        should_stop: asked after each step.
    """

    task: Task
    data: Data
    recipe: Recipe
    model: str | None
    teacher: str | None
    output: Path
    resume: bool = False
    should_stop: Callable[[], bool] = lambda: False


def run(request: Request, progress: Progress) -> Checkpoint:
    """Train, and return the sparse checkpoint.

    Raises:
        Interrupted: stopped by ``should_stop``; ``--resume`` goes on.
        SpdError: whatever of the input is amiss.
    """
    source = request.teacher or request.model
    if source is None:
        raise BadSetting("nothing to train", fix="name a --model, or a --teacher")
    encoder_from_config(classifier_config(source, request.task)).check(request.recipe.pattern)
    if (done := _begin(request, progress)) is not None:
        return done
    try:
        teacher = _teacher(request, progress)
        return _student(request, teacher, progress)
    except BadInput:
        _give_back(request.output)
        raise


def _begin(request: Request, progress: Progress) -> Checkpoint | None:
    """Claim the output folder; a run that is finished already is returned."""
    settings = _settings(request)
    file = request.output / RUN_FILE
    if not request.resume:
        if request.output.exists() and any(request.output.iterdir()):
            raise NotWritten(
                f"{request.output} already exists",
                fix="choose another --output, or continue the run there with --resume",
            )
        write_json(file, settings)
        return None
    before = read_json(
        file, error=BadCheckpoint, fix="there is no run to resume; leave --resume out"
    )
    _refuse_differences(before, settings)
    if not (request.output / SPD_FILE).exists():
        return None
    progress.note(f"{request.output} is finished already")
    return open_checkpoint(request.output)


def _give_back(output: Path) -> None:
    """Remove a folder in which nothing was trained yet, so that the next try finds it free."""
    if not any(p.name in (STATE_FILE, SPD_FILE) for p in output.rglob("*")):
        shutil.rmtree(output)


def _teacher(request: Request, progress: Progress) -> Checkpoint:
    """The dense teacher: the one given, the one fine-tuned before a stop, or a new one."""
    if request.teacher is not None:
        return open_checkpoint(Path(request.teacher))
    folder = request.output / TEACHER_FOLDER
    if (folder / SPD_FILE).exists():
        return open_checkpoint(folder)
    assert request.model is not None  # noqa: S101 - run() checked
    copy_tokenizer(request.model, folder)
    model = load_classifier(request.model, request.task)
    prepared = _prepare(request, model, folder)
    per_epoch = batches_per_epoch(len(prepared.rows), request.recipe.batch_size)
    training = FineTuning(
        model,
        task=request.task,
        recipe=request.recipe.teacher,
        steps=steps_of(request.recipe.teacher.epochs, per_epoch),
        samples=prepared.samples,
        pad_id=prepared.loop.pad_id,
        device=request.recipe.device,
    )
    progress.note(f"precision: {prepared.precision.name}, {prepared.precision.reason}")
    train(training, prepared.rows, prepared.loop, progress)
    model.train(mode=False)
    scores = _score(request, training.logits, prepared.dev, prepared.loop.pad_id)
    save_classifier(model.config, model.state_dict(), folder)
    draw_curves(folder, title=f"{request.task.name}, teacher", metric=request.task.metrics[0])
    parents = {"pretrained": sha256_of(file)} if (file := _weights(request.model)) else {}
    return _describe(request, folder, scores={"dense": scores}, parents=parents)


def _student(request: Request, teacher: Checkpoint, progress: Progress) -> Checkpoint:
    """The sparse student, distilled from the teacher into the output folder."""
    recipe, folder = request.recipe, request.output
    copy_tokenizer(str(teacher.folder), folder)
    network = GraftedNetwork(load_classifier(str(teacher.folder), request.task, trained=True))
    prepared = _prepare(request, network.model, folder)
    per_epoch = batches_per_epoch(len(prepared.rows), recipe.batch_size)
    training = Distillation(
        network,
        encoder=teacher.encoder,
        pattern=recipe.pattern,
        task=request.task,
        recipe=recipe.spd,
        stages=Stages(
            prune=steps_of(recipe.spd.prune_epochs, per_epoch),
            graft=steps_of(recipe.spd.graft_epochs, per_epoch),
            finetune=steps_of(recipe.spd.finetune_epochs, per_epoch),
        ),
        samples=prepared.samples,
        seed=recipe.seed,
        pad_id=prepared.loop.pad_id,
        device=recipe.device,
    )
    dense = _teacher_scores(request, training, teacher, prepared)
    train(training, prepared.rows, prepared.loop, progress)
    _verify(training)
    sparse = _score(request, training.answer, prepared.dev, prepared.loop.pad_id)
    save_classifier(network.model.config, network.student_state(), folder)
    draw_curves(
        folder,
        title=f"{request.task.name}, {recipe.pattern} at {recipe.pattern.sparsity:.0%}",
        metric=request.task.metrics[0],
    )
    return _describe(
        request,
        folder,
        scores={"dense": dense, "sparse": sparse},
        parents={"teacher": teacher.weights_sha256},
        densities=training.densities(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """What both trainings need: token ids, samples for the curves, and the loop's settings."""

    rows: list[LabelledTokens]
    dev: Mapping[str, list[LabelledTokens]]
    samples: Samples
    loop: Loop
    precision: Precision


def _prepare(request: Request, model: PreTrainedModel, folder: Path) -> _Prepared:
    """Tokenise the data as the model's tokenizer does, and set up the loop."""
    recipe = request.recipe
    max_tokens = min(recipe.max_tokens, encoder_sizes(model).positions)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens)
    rows = tokenise(request.data.train, tokenizer)
    dev = {name: tokenise(part, tokenizer) for name, part in request.data.dev.items()}
    first_dev = next(iter(dev.values()))
    precision = choose_precision(recipe.precision, recipe.device)
    return _Prepared(
        rows=rows,
        dev=dev,
        samples=Samples(
            train=sample(rows, seed=0)[: len(first_dev)], dev=sample(first_dev, seed=0)
        ),
        precision=precision,
        loop=Loop(
            folder=folder,
            fingerprint=_fingerprint(_settings(request)),
            batch_size=recipe.batch_size,
            pad_id=tokenizer.pad_id,
            seed=recipe.seed,
            device=recipe.device,
            precision=precision,
            should_stop=request.should_stop,
        ),
    )


def _score(
    request: Request,
    forward: Forward,
    dev: Mapping[str, Sequence[LabelledTokens]],
    pad_id: int,
) -> Scores:
    """The metrics on all of dev."""
    device = request.recipe.device
    return merged_scores(
        {
            part: score_rows(forward, request.task, rows, pad_id=pad_id, device=device)
            for part, rows in dev.items()
        }
    )


def _teacher_scores(
    request: Request, training: Distillation, teacher: Checkpoint, prepared: _Prepared
) -> Scores:
    """The teacher's metrics on dev: known where it was made here, measured where it was given."""
    if request.teacher is None:
        return teacher.scores["dense"]
    return _score(
        request,
        lambda batch: training.network.eval().teach(batch).logits_BC,
        prepared.dev,
        prepared.loop.pad_id,
    )


def _verify(training: Distillation) -> None:
    """The pattern must hold on every matrix before a checkpoint is written."""
    for matrix in training.encoder.matrices():
        pattern = training.encoder.pattern_on(matrix, training.pattern)
        if not pattern.holds(training.weights[matrix.name].detach()):
            raise VerificationFailed(
                f"{matrix.name} does not satisfy {pattern} after training",
                fix="this is a fault of spd; please report it",
            )


def _describe(
    request: Request,
    folder: Path,
    *,
    scores: Mapping[str, Scores],
    parents: Mapping[str, str],
    densities: Mapping[str, float] | None = None,
) -> Checkpoint:
    """Write ``spd.json`` and clear the state away: the training in ``folder`` is finished."""
    plain = open_checkpoint(folder)
    checkpoint = Checkpoint(
        folder=folder,
        task=request.task,
        encoder=plain.encoder,
        max_tokens=min(request.recipe.max_tokens, plain.encoder.positions),
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
        pattern=None if densities is None else request.recipe.pattern,
        densities=densities or {m.name: 1.0 for m in plain.encoder.matrices()},
        scores=scores,
        split=request.data.dev_name,
        recipe=request.recipe.to_json(),
        parents=parents,
        versions=versions_of("torch", "transformers", "tokenizers"),
    )
    save_description(checkpoint)
    (folder / STATE_FILE).unlink(missing_ok=True)
    return checkpoint


def _settings(request: Request) -> dict[str, Any]:
    """What decides the run's outcome: a resumed run must agree in all of it."""
    return {
        "task": request.task.name,
        "recipe": request.recipe.to_json(),
        "data_sha256": request.data.sha256,
        "model": _identity(request.model),
        "teacher": _identity(request.teacher),
    }


def _refuse_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A resumed run with other settings would be neither the one nor the other."""
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            _refuse_differences(old, value)
        elif old != value:
            raise BadSetting(
                f"the run to be resumed had another {name}",
                got=f"{value}, it had {old}",
                fix="use the same command as before, or another --output",
            )


def _identity(reference: str | None) -> str | None:
    """A model by the hash of its weights, so that it may be moved; by name on the hub."""
    file = _weights(reference)
    return f"sha256:{sha256_of(file)}" if file else reference


def _weights(reference: str | None) -> Path | None:
    """The weights of a local model."""
    file = None if reference is None else Path(reference) / WEIGHTS_FILE
    return file if file is not None and file.is_file() else None


def _fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
