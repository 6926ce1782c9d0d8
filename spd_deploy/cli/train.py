"""``spd train``: a classifier and its data in, a sparse classifier out."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.domain.patterns import SPELLINGS, Pattern, parse_pattern
from spd_deploy.domain.tasks import TASKS, Task, task_named

if TYPE_CHECKING:
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_train.recipe import Recipe


@click.command(
    epilog="""\b
Example:
  spd train --task mrpc --data-dir GLUE/MRPC --model MINILM_FOLDER --pattern 2:4 --output runs/mrpc
  spd train --data-dir reviews.csv --text-column review --label-column stars \\
      --model MINILM_FOLDER --pattern block:64x1 --sparsity 0.75 --output runs/reviews"""
)
@click.option(
    "--task", "task_name", help=f"One of {', '.join(TASKS)}; or a name for your own data."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with the task's files in GLUE's layout, or with your own train and dev file "
    "(.csv, .tsv, .jsonl), or one such file. Left out: the Hugging Face hub, for GLUE tasks.",
)
@click.option("--text-column", help="Your own data: the column with the text.")
@click.option("--pair-column", help="Your own data: the column with the second text, if any.")
@click.option(
    "--label-column", default="label", show_default=True, help="Your own data: the label."
)
@click.option("--regression", is_flag=True, help="Your own data: the label is a number to predict.")
@click.option("--skip-broken-rows", is_flag=True, help="Leave broken rows out instead of stopping.")
@click.option("--model", help="Pretrained encoder: a folder, or a name on the Hugging Face hub.")
@click.option("--teacher", help="A fine-tuned classifier to distil from, instead of making one.")
@click.option("--pattern", "spelled", required=True, metavar="PATTERN", help=f"{SPELLINGS}.")
@click.option(
    "--sparsity",
    type=float,
    help="Share of zeros, in (0, 1). Default: 0.9 unstructured, 0.75 block, 0.5 structured.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--resume", is_flag=True, help="Go on with the run in --output after a stop.")
@click.option("--teacher-epochs", type=float, default=3.0, show_default=True)
@click.option("--teacher-learning-rate", type=float, default=5e-5, show_default=True)
@click.option("--prune-epochs", type=float, default=3.0, show_default=True, help="Sparsity rises.")
@click.option("--graft-epochs", type=float, default=1.0, show_default=True, help="p rises to 1.")
@click.option("--finetune-epochs", type=float, default=2.0, show_default=True, help="All grafted.")
@click.option(
    "--learning-rate", type=float, default=2e-4, show_default=True, help="Of the student."
)
@click.option(
    "--graft-start",
    type=float,
    default=0.8,
    show_default=True,
    help="Chance p of a student layer to be in place while pruning.",
)
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option(
    "--max-tokens", type=int, default=128, show_default=True, help="Longer texts are cut."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(task_name: str | None, spelled: str, sparsity: float | None, **options: Any) -> None:
    """Fine-tune a dense teacher and distil a sparse student from it (SPD)."""
    pattern = parse_pattern(spelled, sparsity)
    progress = TerminalProgress()

    from spd_train.data.splits import read_data
    from spd_train.run import Request, run

    recipe = _recipe(pattern, options)
    task = choose_task(task_name, options)
    data = read_data(
        task, options["data_dir"], skip_broken=options["skip_broken_rows"], note=progress.note
    )
    with stop_on_signals() as should_stop:
        checkpoint = run(
            Request(
                task=task,
                data=data,
                recipe=recipe,
                model=options["model"],
                teacher=options["teacher"],
                output=options["output"],
                resume=options["resume"],
                should_stop=should_stop,
            ),
            progress,
        )
    if options["as_json"]:
        show_json({"checkpoint": str(checkpoint.folder), **checkpoint.to_json()})
    else:
        show_result(checkpoint)


def choose_task(name: str | None, options: dict[str, Any]) -> Task:
    """A known task by name, or the user's own by its columns."""
    if options["text_column"] is None:
        if name is None:
            raise click.UsageError("name a --task, or the --text-column of your own data")
        return task_named(name)
    if options["data_dir"] is None:
        raise click.UsageError("--text-column needs --data-dir")
    from spd_train.data.examples import own_task_from

    return own_task_from(
        options["data_dir"],
        text_column=options["text_column"],
        pair_column=options["pair_column"],
        label_column=options["label_column"],
        regression=options["regression"],
        name=name or "own",
    )


def show_result(checkpoint: "Checkpoint") -> None:
    """What came out, and the next command."""
    for arm, scores in checkpoint.scores.items():
        shown = ", ".join(f"{k} {'-' if v is None else f'{v:.4f}'}" for k, v in scores.items())
        click.echo(f"{arm:<7} {shown} ({checkpoint.split})")
    if checkpoint.pattern is not None:
        density = sum(checkpoint.densities.values()) / len(checkpoint.densities)
        click.echo(
            f"pattern {checkpoint.pattern}, density {density:.3f} over the encoder's matrices"
        )
    click.echo(f"saved   {checkpoint.folder}")
    click.echo(f"next    spd export {checkpoint.folder} --format onnx --output DIR")


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a question that Ctrl-C or SIGTERM turns to True; a second Ctrl-C stops at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        """Remember the first signal; give the second its usual effect."""
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _recipe(pattern: Pattern, options: dict[str, Any]) -> "Recipe":
    """The command line's settings as the one value that decides the run."""
    from spd_train.recipe import Recipe, SpdRecipe, TeacherRecipe

    return Recipe(
        pattern=pattern,
        teacher=TeacherRecipe(
            epochs=options["teacher_epochs"], learning_rate=options["teacher_learning_rate"]
        ),
        spd=SpdRecipe(
            prune_epochs=options["prune_epochs"],
            graft_epochs=options["graft_epochs"],
            finetune_epochs=options["finetune_epochs"],
            learning_rate=options["learning_rate"],
            graft_start=options["graft_start"],
        ),
        batch_size=options["batch_size"],
        max_tokens=options["max_tokens"],
        seed=options["seed"],
        precision=options["precision"],
        device=options["device"],
    )
