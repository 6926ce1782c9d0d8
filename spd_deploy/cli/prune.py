"""``spd prune``: a dense classifier and some texts in, a sparse classifier out, in minutes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from spd_deploy.cli.inputs.text_inputs import rows_from_file
from spd_deploy.cli.long_run.threads import threads_option, use_free_threads
from spd_deploy.cli.options.common import json_option, revision_option
from spd_deploy.cli.options.pattern_options import pattern_options
from spd_deploy.cli.options.recipe_table import (
    ALLOCATION_HELP,
    CALIBRATION_HELP,
    EXCLUDE_HELP,
    IMPORTANCE_HELP,
    MIN_DENSITY_HELP,
    PERMUTE_HELP,
    PRECISION_HELP,
    RECONSTRUCT_HELP,
)
from spd_deploy.cli.options.speed_options import (
    latency_table_for,
    one_speed_options,
    refuse_without_speed,
    structures_measurer,
)
from spd_deploy.cli.output.console import TerminalProgress, show_json
from spd_deploy.cli.train import show_result
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.patterns import Pattern, parse_pattern
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.task_agreement import same_answers
from spd_deploy.domain.tasks import Task, task_named
from spd_deploy.hub.fetch import fetch_model
from spd_deploy.timing.machine_load import cpu_times
from spd_train.config import Device, PrecisionChoice
from spd_train.prune_recipe import Allocation, Importance, PruneRecipe

if TYPE_CHECKING:
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_train.data.examples import Example
    from spd_train.prune import Agreement, DevSplit
    from spd_train.pruning.structured.plan import SpeedTarget


@click.command(
    epilog="""\b
Examples:
  spd prune runs/mrpc/teacher --speedup 2 --data GLUE/MRPC --output pruned/mrpc-2x
  spd prune runs/mrpc/teacher --pattern 2:4 --data GLUE/MRPC --output pruned/mrpc-24
  spd prune MODEL_FOLDER --pattern block:64x1 --sparsity 0.5 --texts reviews.csv \\
      --text-column review --output pruned/reviews"""
)
@click.argument("model", type=click.Path(path_type=Path))
@revision_option
@pattern_options(absent="give this or --speedup")
@one_speed_options
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(path_type=Path),
    help="File of texts like those that the model will classify: .csv, .tsv, .jsonl or .parquet. A "
    "few hundred are enough; labels are not read.  [default: none; give this or --data]",
)
@click.option(
    "--text-column",
    metavar="NAME",
    help="Column of --texts that holds the text.  [default: text, or the column that the model was "
    "trained on]",
)
@click.option(
    "--pair-column",
    metavar="NAME",
    help="Column of --texts that holds the second text of a pair.  [default: text_pair, or the "
    "column that the model was trained on]",
)
@click.option(
    "--task",
    "task_name",
    metavar="TASK",
    help="GLUE task of --data. Needed only if the model does not record its task.  [default: the "
    "task that the model was trained for]",
)
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    help="Folder or file that the model was trained on, as for spd train. Its training texts "
    "calibrate the pruning, and both models are scored on its dev split.  [default: none; give "
    "this or --texts]",
)
@click.option(
    "--skip-broken-rows",
    is_flag=True,
    help="Leave broken rows out instead of stopping at the first; they are counted.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write the sparse checkpoint to.",
)
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is in --output.")
@click.option(
    "--importance",
    type=click.Choice(get_args(Importance)),
    default="second-order",
    show_default=True,
    help=IMPORTANCE_HELP + " `movement` and `taylor` need spd train.",
)
@click.option(
    "--mask-updates",
    type=click.IntRange(min=1),
    metavar="COUNT",
    default=4,
    show_default=True,
    help="Number of mask updates, each at a higher sparsity. More are more exact and slower.",
)
@click.option(
    "--reconstruct/--no-reconstruct", default=True, show_default=True, help=RECONSTRUCT_HELP
)
@click.option("--permute/--no-permute", default=True, show_default=True, help=PERMUTE_HELP)
@click.option(
    "--allocation",
    type=click.Choice(get_args(Allocation)),
    default="uniform",
    show_default=True,
    help=ALLOCATION_HELP,
)
@click.option(
    "--min-density",
    type=float,
    metavar="SHARE",
    default=PruneRecipe().least_density,
    show_default=True,
    help=MIN_DENSITY_HELP,
)
@click.option("--exclude", multiple=True, metavar="TEXT", help=EXCLUDE_HELP)
@click.option(
    "--calibration-tokens",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    default=16384,
    show_default=True,
    help=CALIBRATION_HELP,
)
@click.option(
    "--precision",
    type=click.Choice(get_args(PrecisionChoice)),
    default="auto",
    show_default=True,
    help=PRECISION_HELP,
)
@click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="cpu",
    show_default=True,
    help="Device to prune on. cuda needs an NVIDIA GPU and PyTorch with CUDA.",
)
@threads_option
@json_option("the result")
@needs_extras("prune", "train")
def prune(as_json: bool, **options: Any) -> None:
    """Prune a fine-tuned classifier in minutes, without training and without labels.

    MODEL is a checkpoint of spd, or any Hugging Face folder with a classifier; it may be on the hub
    as OWNER/NAME@REVISION, or at an address such as s3://BUCKET/MODEL. The kept weights are solved
    again, so that each matrix gives the dense model's outputs on the texts. If --data has labels
    and a dev split, both models are scored on it; the scores do not affect the pruning.
    """
    checkpoint, agreement = pruned(options, TerminalProgress())
    if as_json:
        found = {"checkpoint": str(checkpoint.folder), "agreement": asdict(agreement)}
        show_json({**found, **checkpoint.to_json()})
        return
    click.echo(agreement.sentence)
    show_result(checkpoint)


def pruned(options: Mapping[str, Any], progress: Progress) -> "tuple[Checkpoint, Agreement]":
    """Prune as the options say, and return the sparse model and its agreement with the dense one.

    Args:
        options: every option of the command but ``--json``, under the name that it has there.
        progress: reports the rows, and how far the pruning is.

    Raises:
        UsageError: options that do not go together.
    """
    _refuse_two_sources(options)
    from spd_deploy.domain.checkpoint import open_checkpoint
    from spd_train import prune as one_shot

    cpu_before = cpu_times()
    pattern = _pattern(options)
    recipe = _recipe(options)
    fetched = fetch_model(options["model"], options["revision"], names="owned", note=progress.note)
    options = {**options, "model": fetched.folder}
    source = open_checkpoint(options["model"])
    texts, dev = _texts_to_prune_on(options, source, progress)
    if options["device"] == "cpu":
        use_free_threads(options["threads"], cpu_before, progress.note)
    config = one_shot.PruneConfig(
        source=options["model"],
        texts=texts,
        dev=dev,
        pattern=pattern,
        speed=_speed(options, progress),
        recipe=recipe,
        output=options["output"],
        overwrite=options["overwrite"],
        precision=options["precision"],
        device=options["device"],
        origin=fetched.origin,
    )
    return one_shot.prune(config, progress)


def _refuse_two_sources(options: Mapping[str, Any]) -> None:
    """Refuse texts from both ``--texts`` and ``--data``, or from neither.

    Raises:
        UsageError: with the options to choose from.
    """
    given = [options[name] is not None for name in ("texts_file", "data_dir")]
    if all(given):
        raise click.UsageError("both --texts and --data are given; leave one out")
    if not any(given):
        raise click.UsageError("name a file with --texts, or the model's data with --data")


def _texts_to_prune_on(
    options: Mapping[str, Any], source: "Checkpoint", progress: Progress
) -> "tuple[Sequence[Example], DevSplit | None]":
    """The texts of a file, or of the model's data with the labelled rows to score on."""
    from spd_deploy.sessions.checkpoint_tokenizer import opener_of

    rows = {
        "skip_broken": options["skip_broken_rows"],
        "note": progress.note,
        "open_tokenizer": opener_of(options["model"], max_tokens=source.max_tokens),
    }
    if options["texts_file"] is not None:
        columns = options["text_column"], options["pair_column"]
        found = rows_from_file(source.task, options["texts_file"], *columns, **rows)
        return [example for _, example in found], None
    name = options["task_name"]
    task = source.task if name is None else task_named(name)
    return _texts_and_dev(source.task, task, options["data_dir"], rows)


def _pattern(options: Mapping[str, Any]) -> Pattern:
    """The pattern and its sparsity; with ``--speedup`` the structured one.

    Raises:
        UsageError: neither a pattern nor a speed-up is given, or a sparsity beside a speed-up.
    """
    refuse_without_speed(options)
    if options["speedup"] is None:
        if options["pattern"] is None:
            raise click.UsageError("say what to prune: --speedup 3, or --pattern 2:4")
        return parse_pattern(options["pattern"], options["sparsity"])
    if options["sparsity"] is not None:
        raise click.UsageError(
            "--speedup decides how much is removed, so --sparsity has no effect; leave one out"
        )
    return parse_pattern(options["pattern"] or "structured")


def _speed(options: Mapping[str, Any], progress: Progress) -> "SpeedTarget | None":
    """The speed-up to reach, with the times of this machine; None if the sparsity decides."""
    if options["speedup"] is None:
        return None
    from spd_train.pruning.structured.plan import SpeedTarget

    table = latency_table_for(options, {}, progress)
    return SpeedTarget(
        factor=options["speedup"],
        table=table,
        measure=structures_measurer(options, table, progress),
    )


def _recipe(options: Mapping[str, Any]) -> PruneRecipe:
    """The recipe that the options make; weights may always come back between two mask updates."""
    return PruneRecipe(
        importance=options["importance"],
        updates=options["mask_updates"],
        regrow=True,
        reconstruct=options["reconstruct"],
        permute=options["permute"],
        allocation=options["allocation"],
        least_density=options["min_density"],
        exclude=options["exclude"],
        calibration_tokens=options["calibration_tokens"],
    )


def _texts_and_dev(
    model: Task, task: Task, data_dir: Path | None, rows: Mapping[str, Any]
) -> "tuple[Sequence[Example], DevSplit | None]":
    """The training texts, and the labelled rows to score on if the model can answer them.

    Args:
        model: the task that the model records.
        task: the task of the data.
        data_dir: the data.
        rows: how broken rows are handled, as arguments of what reads them.
    """
    from spd_train.data.read_split import read_split
    from spd_train.data.splits import read_data
    from spd_train.prune import DevSplit

    foreign = model.name == "unknown" and same_answers(model, task)
    answered = task.columns.label is not None and (task.name == model.name or foreign)
    has_dev = data_dir is None or all(
        (data_dir / name).is_file() for name in task.files.get("dev", ())
    )
    if answered and has_dev:
        data = read_data(task, data_dir, **rows)
        return data.train, DevSplit(task=task, parts=data.dev, name=data.dev_name)
    parts = read_split(task, data_dir, "train", **rows)
    return [example for part in parts.values() for example in part], None
