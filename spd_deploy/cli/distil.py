"""``spd distil``: a pretrained encoder and texts in, a sparse encoder for any task out."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.inputs.fetched_models import FetchedOptions, with_fetched_models
from spd_deploy.cli.inputs.text_inputs import rows_from_file
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
from spd_deploy.cli.options.common import json_option, revision_option, track_option
from spd_deploy.cli.options.distil_options import FIELDS, distil_recipe_options
from spd_deploy.cli.options.pattern_options import pattern_options
from spd_deploy.cli.output.console import TerminalProgress, show_json, speaks
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.folders import COMMAND, is_finished
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.timing.machine_load import cpu_times

if TYPE_CHECKING:
    from spd_train.config import Recipe
    from spd_train.distilled_encoder import DistilledEncoder
    from spd_train.train_config import TrainConfig


@click.command(
    epilog="""\b
Examples:
  spd distil --texts reviews.csv --text-column review --model MINILM_FOLDER \\
      --pattern structured --sparsity 0.5 --output encoders/half
  spd train --task mrpc --data GLUE/MRPC --model encoders/half --keep-masks \\
      --output runs/mrpc
  spd distil --resume --output encoders/half"""
)
@click.option(
    "--texts",
    type=click.Path(path_type=Path, exists=True, allow_dash=False),
    multiple=True,
    metavar="FILE",
    help="File of texts like those of the tasks to come: .csv, .tsv, .jsonl or .parquet. Labels "
    "are not read. May be given several times. More texts give a better encoder: use thousands.  "
    "[default: none; needed]",
)
@click.option(
    "--text-column",
    metavar="NAME",
    help="Column of --texts that holds the text.  [default: text]",
)
@click.option(
    "--pair-column",
    metavar="NAME",
    help="Column of --texts that holds the second text of a pair. Name it if the tasks to come "
    "compare two texts.  [default: none, for single texts]",
)
@click.option(
    "--skip-broken-rows",
    is_flag=True,
    help="Leave broken rows out instead of stopping at the first; they are counted.",
)
@click.option(
    "--model",
    metavar="FOLDER|NAME",
    help="Pretrained encoder to prune: a folder, a name on the Hugging Face hub (NAME@REVISION), "
    "or an address such as s3://BUCKET/MODEL. A head that it has is left out.  "
    "[default: none; needed]",
)
@revision_option
@pattern_options(absent="needed")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write the sparse encoder to. It must be new or empty.",
)
@resume_option
@distil_recipe_options
@threads_option
@track_option
@json_option("the result")
@needs_extras("distil", "train")
def distil(**options: Any) -> None:
    """Prune a pretrained encoder on texts without labels, once for all tasks.

    The sparse encoder learns to repeat the hidden states of the dense one, layer by layer. Then
    spd train --model DIR --keep-masks fine-tunes it on any task, and its zeros stay.
    """
    progress = TerminalProgress(watch=True) if speaks() else Silent()
    found = distilled(options, options_given(click.get_current_context()), progress)
    if not speaks():
        return
    if options["as_json"]:
        show_json({"encoder": str(found.folder), **found.to_json()})
        return
    click.echo(found.sentence)
    click.echo(f"pattern {found.pattern}, density {found.density:.3f} of the encoder's weights")
    click.echo(f"saved   {found.folder}")
    click.echo(f"next    spd train --model {found.folder} --keep-masks --task TASK --output DIR")


def distilled(
    options: Mapping[str, Any], given: Collection[str], progress: Progress
) -> "DistilledEncoder":
    """Distil as the options say, and return the sparse encoder.

    Args:
        options: every option of the command, under the name that it has there.
        given: the names of the options that the user set. A resumed run keeps its own others.
        progress: reports the texts, and how far the run is.

    Raises:
        UsageError: an option is missing, or options do not go together.
    """
    from spd_train.distilled_encoder import open_distilled
    from spd_train.run_folder import refuse_taken
    from spd_train.training.trackers import installed_trackers

    cpu_before = cpu_times()
    options, given, output = dict(options), set(given), options["output"]
    earlier_run = run_to_resume(output, "distil") if options["resume"] else {}
    if earlier_run:
        options = resumed_options(options, given, earlier_run)
        if is_finished(output) and given <= SHOWING_OPTIONS:
            progress.note(f"{output} is finished already")
            return open_distilled(output)
    _refuse_lacking(options)
    if not earlier_run:
        refuse_taken(output, resume=False)
    recipe = _recipe(options)
    if recipe.device == "cpu":
        options["threads"] = use_free_threads(options["threads"], cpu_before, progress.note)
    trackers = installed_trackers(options["track"])
    fetched = with_fetched_models(options, progress.note)
    command = command_of(fetched.pinned, {*given, *earlier_run.get(COMMAND, ()), "threads"})
    config = replace(_config(fetched, recipe, command, progress), track=trackers)
    return _run(config, progress)


def _refuse_lacking(options: Mapping[str, Any]) -> None:
    """Refuse a command without texts, a model or a pattern, which only a resumed run knows.

    Raises:
        UsageError: with the option that is missing.
    """
    if not options["texts"]:
        raise click.UsageError("name at least one file of texts with --texts")
    if options["model"] is None:
        raise click.UsageError("name the encoder to prune with --model")
    if options["pattern"] is None:
        raise click.UsageError("say which weights become zero: --pattern 2:4")


def _recipe(options: Mapping[str, Any]) -> "Recipe":
    """The recipe of the command, with the fields that options replace."""
    from spd_train.distil_encoder import distil_recipe
    from spd_train.recipes import with_field, with_fields

    recipe = distil_recipe(parse_pattern(options["pattern"], options["sparsity"]))
    settings = {path: options[name] for name, path in FIELDS.items() if options[name] is not None}
    if options["exclude"]:
        settings["student.pruning.exclude"] = options["exclude"]
    recipe = with_fields(recipe, settings)
    if options["epochs"] is not None:
        recipe = with_field(recipe, "student", recipe.student.lasting(options["epochs"]))
    return recipe


def _config(
    fetched: FetchedOptions, recipe: "Recipe", command: Mapping[str, Any], progress: Progress
) -> "TrainConfig":
    """The run, with its texts read."""
    from spd_deploy.sessions.checkpoint_tokenizer import opener_of
    from spd_train.distil_encoder import refuse_classifier, texts_data, texts_task
    from spd_train.train_config import TrainConfig

    options = fetched.options
    refuse_classifier(options["model"])
    columns = options["text_column"], options["pair_column"]
    task = texts_task(*columns)
    texts = [
        example
        for file in options["texts"]
        for _, example in rows_from_file(
            task,
            file,
            *columns,
            skip_broken=options["skip_broken_rows"],
            note=progress.note,
            open_tokenizer=opener_of(options["model"], max_tokens=recipe.max_tokens),
        )
    ]
    data = texts_data(texts, recipe.holdout)
    progress.note(f"{len(data.train)} texts to train on, {len(data.holdout)} to score on")
    return TrainConfig(
        task=task,
        data=data,
        recipe=recipe,
        model=None,
        teacher=options["model"],
        output=options["output"],
        resume=options["resume"],
        origins=fetched.origins,
        command=command,
    )


def _run(config: "TrainConfig", progress: Progress) -> "DistilledEncoder":
    """Run it; Ctrl-C saves the state and names the command that resumes."""
    from spd_train.distil_encoder import distil_encoder

    output = config.output
    with (
        resume_hint(resume_command(output, "distil"), begun=lambda: has_run(output)),
        stop_on_signals() as should_stop,
    ):
        return distil_encoder(replace(config, should_stop=should_stop), progress)
