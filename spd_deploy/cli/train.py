"""``spd train``: a classifier and its data in, a sparse classifier out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.inputs.fetched_models import with_fetched_models
from spd_deploy.cli.inputs.train_data import read_task_and_data, windows_of_training
from spd_deploy.cli.long_run.resume import (
    SHOWING_OPTIONS,
    command_of,
    has_run,
    options_given,
    resume_option,
    resumed_options,
    run_to_resume,
)
from spd_deploy.cli.long_run.signals import resume_command, resume_hint, stop_on_signals
from spd_deploy.cli.long_run.threads import threads_option, use_free_threads
from spd_deploy.cli.options.common import (
    data_options,
    json_option,
    more_texts_option,
    revision_option,
    track_option,
)
from spd_deploy.cli.options.label_options import label_loss_of, label_options
from spd_deploy.cli.options.long_text_options import long_text_options
from spd_deploy.cli.options.pattern_options import pattern_options
from spd_deploy.cli.options.recipe_options import (
    recipe_options,
    recipe_to_resume,
    refuse_student_options,
)
from spd_deploy.cli.options.sections import Sectioned
from spd_deploy.cli.options.speed_options import (
    latency_table_for,
    reachable_speedups,
    refuse_without_speed,
    speed_options,
    speedups_of,
    structures_measurer,
)
from spd_deploy.cli.output.console import TerminalProgress, show_json, speaks
from spd_deploy.cli.output.family_table import show_family
from spd_deploy.cli.output.score_lines import score_lines, trust_lines
from spd_deploy.cli.output.seeds_table import show_seeds
from spd_deploy.cli.train_family import family_comparer
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.folders import COMMAND, is_finished
from spd_deploy.domain.metrics import led_by
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.scores import score_owner
from spd_deploy.domain.tasks import Task
from spd_deploy.timing.machine_load import cpu_times

if TYPE_CHECKING:
    from spd_deploy.domain.latency_table import LatencyTable
    from spd_deploy.domain.origin import Origin
    from spd_train.config import Recipe
    from spd_train.data.splits import Data
    from spd_train.family_result import Family
    from spd_train.label_loss import LabelLoss
    from spd_train.seeds import SeedResults
    from spd_train.train_config import TrainConfig

NO_PATTERN = (
    "neither --speedup nor --pattern is given: only the dense model is trained, which is no "
    "smaller and no faster"
)
_DENSE_ONLY = (
    "dense   no --pattern was given, so this model has no zeros and is no faster; for a sparse one "
    "add --pattern, with --teacher {teacher} in place of --model"
)

# The first option of each section of the help.
_HEADINGS: Mapping[str, str] = {
    "task_name": "Data",
    "class_weights": "Rare labels, and the metric",
    "model": "Model, pattern and result",
    "speedups": "Speed",
    "more_texts": "More texts",
    "recipe": "Recipe",
    "epochs": "Student's training",
    "graft_schedule": "Grafting",
    "attention_weight": "Losses",
    "importance": "Pruning",
    "teacher_epochs": "Teacher",
    "batch_size": "Batches, seeds and machine",
    "long_texts": "Long texts",
    "seeds": "Several runs, and the machine",
}


@click.command(
    cls=Sectioned,
    headings=_HEADINGS,
    epilog="""\b
Example:
  spd train --task mrpc --data GLUE/MRPC --model MINILM_FOLDER --pattern 2:4 --output runs/mrpc
  spd train --data reviews.csv --text-column review --label-column stars \\
      --model MINILM_FOLDER --pattern block:64x1 --sparsity 0.75 --output runs/reviews
  spd train --task mrpc --data GLUE/MRPC --model MINILM_FOLDER --speedup 2,3,5 --output runs/fast
  spd train ... --recipe runs/mrpc/spd.json --seed 1 --output runs/mrpc-again
  spd train --resume --output runs/mrpc""",
)
@data_options
@label_options
@click.option(
    "--model",
    metavar="FOLDER|NAME",
    help="Pretrained encoder to start from: a folder, a name on the Hugging Face hub "
    "(NAME@REVISION), or an address such as s3://BUCKET/MODEL.  "
    "[default: none; give this or --teacher]",
)
@revision_option
@click.option(
    "--teacher",
    metavar="FOLDER",
    help="Folder of a classifier that is fine-tuned for the task already. The student is distilled "
    "from it and no teacher is trained.  [default: --model, fine-tuned first]",
)
@click.option(
    "--keep-masks",
    is_flag=True,
    help="Keep the zeros of a sparse --model while it is fine-tuned on the labels: they stay zero, "
    "and the result has the same pattern. For sparse pretrained encoders. Off by default: every "
    "weight is trained.",
)
@pattern_options(absent="which trains the dense model alone; structured with --speedup")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write: checkpoint, log, curves, and the teacher. It must be new or empty.",
)
@resume_option
@speed_options
@more_texts_option
@recipe_options
@long_text_options
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Train with this many seeds, from --seed on, and show the mean and its 95 % interval. Use "
    "it to compare two settings.  [default: one run]",
)
@threads_option
@track_option
@json_option("the result")
@needs_extras("train", "train")
def train(**options: Any) -> None:
    """Fine-tune a dense teacher and distil a sparse student from it (SPD).

    Say how fast the student has to be with --speedup, or which weights become zero with --pattern.
    Without either only the dense model is trained. After a stop,
    spd train --resume --output DIR continues the run: it knows its command.
    """
    from spd_train.family_result import Family

    progress = TerminalProgress(watch=True) if speaks() else Silent()
    found = trained(options, options_given(click.get_current_context()), progress)
    if isinstance(found, Checkpoint):
        _show(found, as_json=options["as_json"])
    elif isinstance(found, Family):
        _show_family(found, as_json=options["as_json"])
    else:
        _show_seeds(found, as_json=options["as_json"])


def trained(
    options: Mapping[str, Any], given: Collection[str], progress: Progress
) -> "Checkpoint | SeedResults | Family":
    """Train as the options say, and return the finished checkpoint, or those of several seeds.

    Args:
        options: every option of the command, under the name that it has there.
        given: the names of the options that the user set. A resumed run keeps its own others.
        progress: reports the data, and how far the training is.

    Raises:
        UsageError: options that do not go together.
    """
    from spd_train.run_folder import refuse_taken
    from spd_train.training.trackers import installed_trackers

    refuse_without_speed(options)
    cpu_before = cpu_times()
    options, given = dict(options), set(given)
    earlier_run = run_to_resume(options["output"]) if options["resume"] else {}
    if earlier_run:
        options = resumed_options(options, given, earlier_run)
    elif options["seeds"] is None:  # each seed has a folder of its own
        refuse_taken(options["output"], resume=False)
    if options["resume"] and _is_complete(options) and given <= SHOWING_OPTIONS:
        progress.note(f"{options['output']} is finished already")
        return open_checkpoint(options["output"])
    trackers = installed_trackers(options["track"])
    recipe = recipe_to_resume(earlier_run, options, given)
    if recipe.pattern is None:
        refuse_student_options(options)
        if not options["keep_masks"]:
            progress.note(NO_PATTERN)
    fetched = with_fetched_models(options, progress.note)
    options, pinned = dict(fetched.options), fetched.pinned
    task, data = read_task_and_data(options, recipe, progress)
    if options["metric"] is not None:
        task = led_by(task, options["metric"])
    label_loss = label_loss_of(options, task, data.train, progress)
    windows = windows_of_training(options, progress.note)
    if recipe.device == "cpu":
        options["threads"] = use_free_threads(options["threads"], cpu_before, progress.note)
    pinned = {**pinned, "threads": options["threads"]}
    command = command_of(pinned, {*given, *earlier_run.get(COMMAND, ()), "threads"})
    latency = None
    if recipe.speedup is not None:
        latency = latency_table_for(options, earlier_run, progress)
    options["track"] = trackers
    run = _run_of(options, task, data, recipe, label_loss, latency, command, fetched.origins)
    return _train(options, replace(run, windows=windows), progress)


def _is_complete(options: Mapping[str, Any]) -> bool:
    """Whether nothing is left to do: a student of ``--speedup`` has been compared too."""
    from spd_train.family_folders import FAMILY_FILE

    compared = speedups_of(options) is None or (options["output"] / FAMILY_FILE).exists()
    return compared and is_finished(options["output"])


def _run_of(
    options: Mapping[str, Any],
    task: Task,
    data: "Data",
    recipe: "Recipe",
    label_loss: "LabelLoss",
    latency: "LatencyTable | None",
    command: Mapping[str, Any],
    origins: "Mapping[str, Origin]",
) -> "TrainConfig":
    """The run that the options make."""
    from spd_train.train_config import TrainConfig

    return TrainConfig(
        task=task,
        data=data,
        recipe=recipe,
        model=options["model"],
        teacher=options["teacher"],
        output=options["output"],
        latency=latency,
        keep_masks=options["keep_masks"],
        label_loss=label_loss,
        metric=options["metric"],
        resume=options["resume"],
        origins=origins,
        track=options["track"],
        command=command,
    )


def _train(
    options: Mapping[str, Any], config: "TrainConfig", progress: Progress
) -> "Checkpoint | SeedResults | Family":
    """Train one seed or several; Ctrl-C saves the state and names the command that resumes."""
    from spd_train.run import run

    output = options["output"]
    with (
        resume_hint(resume_command(output), begun=lambda: has_run(output)),
        stop_on_signals() as should_stop,
    ):
        config = replace(config, should_stop=should_stop)
        if options["seeds"] is not None:
            return _train_seeds(config, options["seeds"], progress)
        if speedups := reachable_speedups(options, config.latency, progress.note):
            return _train_family(config, speedups, config.latency, options, progress)
        return run(config, progress)


def _show(checkpoint: Checkpoint, *, as_json: bool) -> None:
    """Print the result, on the main process alone."""
    if not speaks():
        return
    if as_json:
        show_json({"checkpoint": str(checkpoint.folder), **checkpoint.to_json()})
    else:
        show_result(checkpoint)


def _train_seeds(config: "TrainConfig", count: int, progress: Progress) -> "SeedResults":
    """Train with ``count`` seeds."""
    from spd_train.recipes import with_field
    from spd_train.run import run
    from spd_train.seeds import run_seeds

    first = config.recipe.seed

    def train_one(seed: int, folder: Path, resume: bool) -> Checkpoint:
        later = first + count - 1 - seed
        recipe = with_field(config.recipe, "seed", seed)
        one = replace(config, recipe=recipe, output=folder, resume=resume, later_runs=later)
        return run(one, progress)

    return run_seeds(
        train_one,
        first=first,
        count=count,
        output=config.output,
        resume=config.resume,
    )


def _train_family(
    config: "TrainConfig",
    speedups: Sequence[float],
    table: "LatencyTable | None",
    options: Mapping[str, Any],
    progress: Progress,
) -> "Family":
    """Train a student for each speed-up, and compare them with dense models."""
    from spd_train.family import train_family
    from spd_train.run import run

    measure = None if table is None else structures_measurer(options, table, progress)
    measured = replace(config, measure=measure)
    return train_family(
        measured,
        speedups,
        train=lambda member: run(member, progress),
        compare=family_comparer(options, table, config.task, config.data, progress),
        max_drop=options["max_drop"],
        layers=tuple(dict.fromkeys(options["compare_layers"] or ())),
    )


def _show_family(family: "Family", *, as_json: bool) -> None:
    """Print the result of each speed-up, on the main process alone."""
    if not speaks():
        return
    if as_json:
        show_json(family.to_json())
    else:
        show_family(family)


def _show_seeds(seeds: "SeedResults", *, as_json: bool) -> None:
    """Print the mean scores of several seeds with their intervals, on the main process alone."""
    if not speaks():
        return
    if as_json:
        show_json(seeds.to_json())
    else:
        show_seeds(seeds)
        first = next(iter(seeds.runs.values()))
        if first.pattern is None:
            click.echo(_DENSE_ONLY.format(teacher=first.folder))


def show_result(checkpoint: Checkpoint) -> None:
    """Print scores, pattern and folder of a checkpoint, and the command to type next."""
    own = score_owner(pruned=checkpoint.pattern is not None)
    for line in score_lines(checkpoint.scores, checkpoint.split, own):
        click.echo(line)
    for line in trust_lines(checkpoint.calibration, own, checkpoint.task.decision):
        click.echo(line)
    if checkpoint.pattern is not None:
        click.echo(
            f"pattern {checkpoint.pattern}, density {checkpoint.density:.3f} "
            "of the encoder's weights"
        )
    else:
        click.echo(_DENSE_ONLY.format(teacher=checkpoint.folder))
    click.echo(f"saved   {checkpoint.folder}")
    click.echo(f"next    spd export {checkpoint.folder} --format onnx --output DIR")
