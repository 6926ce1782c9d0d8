"""``spd evaluate``: the official metrics of an artefact or checkpoint on a split."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.cli.options import device_option, runtime_option
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.tasks import Task, refuse_other_answers, task_named

if TYPE_CHECKING:
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Device
    from spd_train.data.examples import Splits


@click.command(
    epilog="""\b
Example:
  spd evaluate artefacts/mrpc --task mrpc --data GLUE/MRPC --split dev"""
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--task", "task_name", help="Default: the task the model was trained for.")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    help="As for spd train. Of the file that "
    "the model was trained on, the rows that training held out are scored.",
)
@click.option(
    "--split",
    default="dev",
    show_default=True,
    help="train or dev; a file without a "
    "dev file beside it is scored whole, unless the model was trained on it.",
)
@click.option("--skip-broken-rows", is_flag=True, help="Leave broken rows out instead of stopping.")
@runtime_option
@device_option
@click.option(
    "--threads", type=click.IntRange(min=1), help="Default: the cores this process may use."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    path: Path,
    task_name: str | None,
    data_dir: Path | None,
    split: str,
    skip_broken_rows: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    as_json: bool,
) -> None:
    """Score an artefact or checkpoint on labelled data."""
    from spd_deploy.sessions.open import open_path
    from spd_train.data.splits import rows_to_score

    if split == "test":
        raise BadData(
            "the test split has no labels to score against",
            fix="use spd predict, or name a file that has labels with --data",
        )
    progress = TerminalProgress()
    opened = open_path(
        path, runtime_choice=RUNTIME_CHOICES[runtime], device=device, threads=threads
    )
    task = agreed_task(opened.task, task_name)
    refuse_unlabelled(task, data_dir)
    with opened.session:
        scored = rows_to_score(
            task,
            data_dir,
            split,
            skip_broken=skip_broken_rows,
            note=progress.note,
            open_tokenizer=lambda: opened.tokenizer,
        )
        start = time.perf_counter()
        scores = score_parts(opened, task, scored.parts, progress)
        seconds = time.perf_counter() - start
    rows, ran = sum(map(len, scored.parts.values())), opened.session.description
    if as_json:
        told = {"path": str(path), "task": task.name, "split": scored.name, "rows": rows}
        show_json({**told, "runtime": asdict(ran), "scores": scores})
        return
    for metric, value in scores.items():
        click.echo(f"{metric:<20} {'-' if value is None else f'{value:.4f}'}")
    click.echo(f"{task.name}, {scored.name}: {rows} rows in {seconds:.1f} s by {ran}")


def agreed_task(trained: Task, name: str | None) -> Task:
    """The task named, if the model can answer it; the model's own where none is named.

    Raises:
        BadSetting: the model was trained for another task, or its labels are others.
    """
    if name is None:
        return trained
    wanted = task_named(name) if trained.name != name else trained
    if trained.name == "unknown":
        refuse_other_answers(trained, wanted, whose="the model")
        return wanted
    if wanted.name != trained.name:
        raise BadSetting(
            "the model was trained for another task",
            got=f"--task {wanted.name}, the model's is {trained.name}",
            fix="leave --task out, or name another model",
        )
    return trained


def refuse_unlabelled(task: Task, data_dir: Path | None) -> None:
    """Refuse files of a task that does not say where its labels are, before anything is run.

    Raises:
        BadSetting: it does not.
    """
    if task.columns.label is None and data_dir is not None:
        raise BadSetting(
            "the model does not say its task, nor which column holds its labels",
            got="no --task",
            fix="name the --task it was trained for",
        )


def score_parts(
    opened: "OpenedModel", task: Task, parts: "Splits", progress: Progress
) -> dict[str, float | None]:
    """The task's metrics over the files of a split; it is told how many texts were cut."""
    from spd_deploy.domain.metrics import merged_scores, scores_of
    from spd_deploy.domain.text import Lengths
    from spd_deploy.sessions.offline import logits_of

    found: dict[str, dict[str, float]] = {}
    for part, examples in parts.items():
        rows = [opened.tokenizer.encode(e.text, e.pair) for e in examples]
        labels = [e.label for e in examples if e.label is not None]
        if len(labels) != len(examples):
            raise BadData(f"{part} has rows without a label", fix="score a labelled split")
        progress.note(f"lengths of {part}: {Lengths.of(rows, limit=opened.tokenizer.max_tokens)}")
        with progress.stage(f"evaluate {part}", len(rows)) as advance:
            logits_BC = logits_of(opened.session, opened.tokenizer, rows, advance)
        found[part] = scores_of(task, logits_BC, labels)
    return merged_scores(found)
