"""``spd train``: a classifier and its data in, a sparse classifier out."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from spd_deploy.cli.console import TerminalProgress, show_json, speaks
from spd_deploy.cli.options import data_options
from spd_deploy.cli.recipe_options import recipe_to_resume, refuse_student_options
from spd_deploy.cli.resume import (
    command_of,
    has_run,
    is_finished,
    options_given,
    resumed_options,
    run_to_resume,
)
from spd_deploy.cli.scores import score_lines
from spd_deploy.cli.sections import Sectioned
from spd_deploy.cli.seeds import show_seeds
from spd_deploy.cli.signals import going_on, resume_command, stop_on_signals
from spd_deploy.cli.threads import choose_threads, threads_option, use_threads
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.folders import COMMAND
from spd_deploy.domain.patterns import SPELLINGS
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.scores import own_arm
from spd_deploy.domain.tasks import Task, task_named
from spd_deploy.timing.machine_load import cpu_times
from spd_train.config import Allocation, Device, GraftShape, GraftUnit, Importance, PrecisionWish

if TYPE_CHECKING:
    from spd_train.run import TrainConfig
    from spd_train.seeds import Seeds

# With these alone a run that is finished has nothing left to say or do.
_ENOUGH_TO_RESUME = {"output", "resume", "as_json", "threads"}
NO_PATTERN = (
    "no --pattern: the dense model alone is trained, and nothing becomes sparse, smaller or faster"
)
_DENSE_ONLY = (
    "dense   no --pattern was given, so this model has no zeros and is no faster; for a sparse one "
    "add --pattern, with --teacher {teacher} in place of --model"
)

# The first option of each section of the help.
_HEADINGS: Mapping[str, str] = {
    "task_name": "Data",
    "model": "Model, pattern and result",
    "recipe_name": "Recipe",
    "epochs": "Length of the student's training",
    "graft": "Grafting",
    "attention_weight": "Losses",
    "importance": "Pruning",
    "teacher_epochs": "Teacher",
    "batch_size": "Batches, seeds and machine",
}


@click.command(
    cls=Sectioned,
    headings=_HEADINGS,
    epilog="""\b
Example:
  spd train --task mrpc --data GLUE/MRPC --model MINILM_FOLDER --pattern 2:4 --output runs/mrpc
  spd train --data reviews.csv --text-column review --label-column stars \\
      --model MINILM_FOLDER --pattern block:64x1 --sparsity 0.75 --output runs/reviews
  spd train ... --recipe runs/mrpc/spd.json --seed 1 --output runs/mrpc-again
  spd train --resume --output runs/mrpc""",
)
@data_options
@click.option("--model", help="Pretrained encoder: a folder, or a name on the Hugging Face hub.")
@click.option("--teacher", help="A fine-tuned classifier to distil from, instead of making one.")
@click.option(
    "--pattern",
    "spelled",
    metavar="PATTERN",
    help=f"{SPELLINGS}. Left out, and not in the recipe: the dense model alone.",
)
@click.option(
    "--sparsity",
    type=float,
    help="Share of zeros, in (0, 1). Default: 0.9 unstructured, 0.75 block, 0.5 structured.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --output after a stop. The run knows the other options.",
)
@click.option(
    "--recipe",
    "recipe_name",
    default="spd",
    show_default=True,
    help="spd, spd-paper, prune, prune-kd or one-shot; or the spd.json of an earlier run. The "
    "options below change single settings of it.",
)
@click.option("--epochs", type=float, help="Length of all the student's stages, scaled alike.")
@click.option("--max-steps", type=int, help="Bound on the student's steps; fine-tuning is cut.")
@click.option("--prune-epochs", type=float, help="Stage in which sparsity rises.")
@click.option("--graft-epochs", type=float, help="Stage in which p comes to 1.")
@click.option("--finetune-epochs", type=float, help="Stage in which all is grafted.")
@click.option("--learning-rate", type=float, help="Peak, of the student.")
@click.option("--dropout/--no-dropout", default=None, help="Of the student; the teacher has none.")
@click.option("--mix-pairs", type=float, help="Share of pairs made up of two rows of a batch.")
@click.option("--graft", type=click.Choice(get_args(GraftShape)), help="How p goes.")
@click.option(
    "--graft-start", type=float, help="Chance p of a student part to be in place at first."
)
@click.option(
    "--graft-unit", type=click.Choice(get_args(GraftUnit)), help="What is grafted at once."
)
@click.option(
    "--attention-weight", type=float, help="Of the attention loss; at 0 attention is fused."
)
@click.option("--hidden-weight", type=float, help="Of the hidden-state loss.")
@click.option("--logits-weight", type=float, help="Of the distance from the teacher's answer.")
@click.option("--label-weight", type=float, help="Of the loss to the true labels.")
@click.option("--temperature", type=float, help="Of the distance from the teacher's answer.")
@click.option(
    "--importance",
    type=click.Choice(get_args(Importance)),
    help="What weights are ranked by.",
)
@click.option("--updates", type=int, help="How often the masks tighten.")
@click.option("--regrow/--no-regrow", default=None, help="May a weight come back while pruning?")
@click.option("--reconstruct/--no-reconstruct", default=None, help="Solve kept weights again?")
@click.option("--permute/--no-permute", default=None, help="Reorder first, so that more is kept?")
@click.option(
    "--allocation",
    type=click.Choice(get_args(Allocation)),
    help="How sparsity is spread over the matrices.",
)
@click.option("--least-density", type=float, help="What every matrix keeps if it is uneven.")
@click.option("--exclude", multiple=True, help="Leave matrices with this in their name dense.")
@click.option("--calibration-tokens", type=int, help="Text for statistics and reconstruction.")
@click.option("--teacher-epochs", type=float, help="Where one is made.")
@click.option("--teacher-learning-rate", type=float, help="Peak, of the teacher.")
@click.option("--batch-size", type=int, help="Rows a step, over all processes.")
@click.option("--accumulate", type=int, help="Parts a step is computed in, to save memory.")
@click.option(
    "--max-tokens",
    type=int,
    help="Tokens of a text or pair that the model is given; longer ones are cut, and counted at "
    "the start.  [default: 128, or the recipe's]",
)
@click.option(
    "--holdout",
    type=float,
    help="Share of train kept out to choose the best on; at most 2000 rows.",
)
@click.option(
    "--seed", type=int, help="Of the new classifier, batches, dropout, texts and grafting."
)
@click.option(
    "--seeds", type=click.IntRange(min=1), help="Train so many, and show mean and interval."
)
@click.option(
    "--precision", type=click.Choice(get_args(PrecisionWish)), help="auto: bf16 where it is quick."
)
@click.option("--device", type=click.Choice(get_args(Device)), help="What to train on.")
@threads_option
@click.option("--compile/--no-compile", default=None, help="Compile layers (torch.compile).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(**options: Any) -> None:
    """Fine-tune a dense teacher and distil a sparse student from it (SPD).

    Without a --pattern the dense model alone is trained. After a stop,
    spd train --resume --output DIR goes on: the run knows its command.
    """
    progress = TerminalProgress(watch=True) if speaks() else Silent()
    found = trained(options, options_given(click.get_current_context()), progress)
    if isinstance(found, Checkpoint):
        _show(found, as_json=options["as_json"])
    else:
        _show_seeds(found, as_json=options["as_json"])


def trained(
    options: Mapping[str, Any], given: Collection[str], progress: Progress
) -> "Checkpoint | Seeds":
    """Train as the options say, and return the finished checkpoint, or those of several seeds.

    Args:
        options: every option of the verb under the name that it has there.
        given: the names of those that the user gave; a resumed run takes the others from its start.
        progress: told how far the training is.
    """
    from spd_train.run_folder import refuse_taken

    before = cpu_times()
    options = dict(options)
    run_before = run_to_resume(options["output"]) if options["resume"] else {}
    if run_before:
        options = resumed_options(options, given, run_before)
    if options["seeds"] is None:  # each seed has a folder of its own
        refuse_taken(options["output"], resume=options["resume"])
    if options["resume"] and is_finished(options["output"]) and set(given) <= _ENOUGH_TO_RESUME:
        progress.note(f"{options['output']} is finished already")
        return open_checkpoint(options["output"])

    from spd_train.data.splits import read_data  # these take seconds
    from spd_train.data.summary import tell_data
    from spd_train.run import TrainConfig, run

    recipe = recipe_to_resume(run_before, options, given)
    if recipe.pattern is None:
        refuse_student_options(options)
        progress.note(NO_PATTERN)
    task = choose_task(options["task_name"], options)
    data = read_data(
        task,
        options["data_dir"],
        holdout=recipe.holdout,
        skip_broken=options["skip_broken_rows"],
        note=progress.note,
    )
    tell_data(task, data, progress.note)
    if recipe.device == "cpu":
        options["threads"] = choose_threads(options["threads"], before, progress.note)
        use_threads(options["threads"])
    output = options["output"]
    with (
        going_on(resume_command(output), begun=lambda: has_run(output)),
        stop_on_signals() as should_stop,
    ):
        request = TrainConfig(
            task=task,
            data=data,
            recipe=recipe,
            model=options["model"],
            teacher=options["teacher"],
            output=output,
            resume=options["resume"],
            should_stop=should_stop,
            command=command_of(options, {*given, *run_before.get(COMMAND, ()), "threads"}),
        )
        if options["seeds"] is not None:
            return _train_seeds(request, options["seeds"], progress)
        return run(request, progress)


def _show(checkpoint: Checkpoint, *, as_json: bool) -> None:
    """What came out, from the one process that prints."""
    if not speaks():
        return
    if as_json:
        show_json({"checkpoint": str(checkpoint.folder), **checkpoint.to_json()})
    else:
        show_result(checkpoint)


def _train_seeds(request: "TrainConfig", count: int, progress: Progress) -> "Seeds":
    """The same training with several seeds."""
    from spd_train.recipes import changed
    from spd_train.run import run
    from spd_train.seeds import run_seeds

    def train_one(seed: int, folder: Path, resume: bool) -> Checkpoint:
        recipe = changed(request.recipe, "seed", seed)
        return run(replace(request, recipe=recipe, output=folder, resume=resume), progress)

    return run_seeds(
        train_one,
        first=request.recipe.seed,
        count=count,
        output=request.output,
        resume=request.resume,
    )


def _show_seeds(seeds: "Seeds", *, as_json: bool) -> None:
    """The mean of several seeds with its interval."""
    if not speaks():
        return
    if as_json:
        show_json(seeds.to_json())
    else:
        show_seeds(seeds)
        first = next(iter(seeds.runs.values()))
        if first.pattern is None:
            click.echo(_DENSE_ONLY.format(teacher=first.folder))


def choose_task(name: str | None, options: Mapping[str, Any]) -> Task:
    """A known task by name, or the user's own by its columns."""
    if options["text_column"] is None:
        if name is None:
            raise click.UsageError("name a --task, or the --text-column of your own data")
        return task_named(name)
    if options["data_dir"] is None:
        raise click.UsageError("--text-column needs --data")
    from spd_train.data.own import own_task_from

    return own_task_from(
        options["data_dir"],
        text_column=options["text_column"],
        pair_column=options["pair_column"],
        label_column=options["label_column"],
        regression=options["regression"],
        skip_broken=options["skip_broken_rows"],
        name=name,
    )


def show_result(checkpoint: Checkpoint) -> None:
    """What came out, and the next command."""
    own = own_arm(pruned=checkpoint.pattern is not None)
    for line in score_lines(checkpoint.scores, checkpoint.split, own):
        click.echo(line)
    if checkpoint.pattern is not None:
        density = sum(checkpoint.densities.values()) / len(checkpoint.densities)
        click.echo(
            f"pattern {checkpoint.pattern}, density {density:.3f} over the encoder's matrices"
        )
    else:
        click.echo(_DENSE_ONLY.format(teacher=checkpoint.folder))
    click.echo(f"saved   {checkpoint.folder}")
    click.echo(f"next    spd export {checkpoint.folder} --format onnx --output DIR")
