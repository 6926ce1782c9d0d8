"""``spd prune``: a dense classifier and some texts in, a sparse one out; minutes, no labels."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.cli.texts import from_file
from spd_deploy.cli.train import show_result
from spd_deploy.domain.patterns import SPELLINGS, parse_pattern
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task, task_named
from spd_train.config import Allocation, Device, Importance, PrecisionWish, PruneRecipe

if TYPE_CHECKING:
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_train.data.examples import Example
    from spd_train.prune import Agreement, Dev


@click.command(
    epilog="""\b
Examples:
  spd prune runs/mrpc/teacher --pattern 2:4 --data GLUE/MRPC --output pruned/mrpc-24
  spd prune MODEL_FOLDER --pattern block:64x1 --sparsity 0.5 --texts reviews.csv \\
      --text-column review --output pruned/reviews"""
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--pattern", "spelled", required=True, metavar="PATTERN", help=f"{SPELLINGS}.")
@click.option(
    "--sparsity",
    type=float,
    help="Share of zeros, in (0, 1). Default: 0.9 unstructured, 0.75 block, 0.5 structured.",
)
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(path_type=Path),
    help="Texts like those it will be used on (.csv, .tsv, .jsonl, .parquet).",
)
@click.option("--text-column", help="Of --texts.")
@click.option("--pair-column", help="Of --texts.")
@click.option("--task", "task_name", help="A GLUE task, where the model does not say its own.")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    help="Instead of --texts: the data that the model was trained on, as for spd train.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option(
    "--importance",
    type=click.Choice(get_args(Importance)),
    default="second-order",
    show_default=True,
    help="What weights are ranked by; movement and taylor need spd train.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=4, show_default=True, help="Steps to the goal."
)
@click.option("--reconstruct/--no-reconstruct", default=True, show_default=True)
@click.option("--permute/--no-permute", default=True, show_default=True)
@click.option(
    "--allocation",
    type=click.Choice(get_args(Allocation)),
    default="uniform",
    show_default=True,
)
@click.option(
    "--least-density",
    type=float,
    default=0.02,
    show_default=True,
    help="What every matrix keeps under an uneven allocation.",
)
@click.option("--exclude", multiple=True, help="Leave matrices with this in their name dense.")
@click.option("--calibration-tokens", type=click.IntRange(min=1), default=16384, show_default=True)
@click.option(
    "--precision", type=click.Choice(get_args(PrecisionWish)), default="auto", show_default=True
)
@click.option("--device", type=click.Choice(get_args(Device)), default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def prune(as_json: bool, **options: Any) -> None:
    """Prune a fine-tuned classifier in one shot: no labels, no training, minutes.

    MODEL is a checkpoint of ours or any Hugging Face folder with a classifier. The kept weights are
    solved again, so that each matrix gives what it gave before on the texts. Where --data has
    labels and a dev split, both models are scored on it; nothing is chosen by that.
    """
    checkpoint, agreement = pruned(progress=TerminalProgress(), **options)
    if as_json:
        agreed = asdict(agreement)
        found = {"checkpoint": str(checkpoint.folder), "agreement": agreed}
        show_json({**found, **checkpoint.to_json()})
        return
    click.echo(agreement.said)
    show_result(checkpoint)


def pruned(
    *,
    model: Path,
    spelled: str,
    sparsity: float | None,
    texts_file: Path | None,
    text_column: str | None,
    pair_column: str | None,
    task_name: str | None,
    data_dir: Path | None,
    output: Path,
    overwrite: bool,
    importance: Importance,
    rounds: int,
    reconstruct: bool,
    permute: bool,
    allocation: Allocation,
    least_density: float,
    exclude: tuple[str, ...],
    calibration_tokens: int,
    precision: PrecisionWish,
    device: Device,
    progress: Progress,
) -> "tuple[Checkpoint, Agreement]":
    """Prune as the options say: the checkpoint, and how far it agrees with the dense model."""
    if texts_file is not None and data_dir is not None:
        raise click.UsageError("both --texts and --data are given; leave one out")
    if texts_file is None and data_dir is None:
        raise click.UsageError("name a file with --texts, or a GLUE folder with --data")
    from spd_deploy.domain.checkpoint import open_checkpoint
    from spd_train import prune as one_shot

    pattern = parse_pattern(spelled, sparsity)
    recipe = PruneRecipe(
        importance=importance,
        updates=rounds,
        regrow=True,
        reconstruct=reconstruct,
        permute=permute,
        allocation=allocation,
        least_density=least_density,
        exclude=exclude,
        calibration_tokens=calibration_tokens,
    )
    task = open_checkpoint(model).task
    if texts_file is not None:
        texts: Sequence[Example] = from_file(task, texts_file, text_column, pair_column)
        dev = None
    else:
        known = task if task_name is None else task_named(task_name)
        texts, dev = _texts_and_dev(task, known, data_dir, progress)
    request = one_shot.OneShot(
        source=model,
        texts=texts,
        dev=dev,
        pattern=pattern,
        recipe=recipe,
        output=output,
        overwrite=overwrite,
        precision=precision,
        device=device,
    )
    return one_shot.prune(request, progress)


def _texts_and_dev(
    model: Task, known: Task, data_dir: Path | None, progress: Progress
) -> "tuple[Sequence[Example], Dev | None]":
    """The training texts, and labelled rows to score on, where the model can answer them.

    Where there is no dev file, what training held out is scored on and nothing else is done to it.
    """
    from spd_train.data.examples import read_split
    from spd_train.data.splits import read_data
    from spd_train.prune import Dev

    foreign = model.name == "unknown" and model.answers(known)
    answered = known.columns.label is not None and (known.name == model.name or foreign)
    there = data_dir is None or all(
        (data_dir / name).is_file() for name in known.files.get("dev", ())
    )
    if answered and there:
        data = read_data(known, data_dir, skip_broken=None, note=progress.note)
        return data.train, Dev(task=known, parts=data.dev, name=data.dev_name)
    parts = read_split(known, data_dir, "train", note=progress.note)
    return [example for part in parts.values() for example in part], None
