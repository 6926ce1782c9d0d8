"""``spd quickstart``: the whole main job on built-in data, from nothing to a report."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.console import TerminalProgress, show_table
from spd_deploy.cli.train import stop_on_signals
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.files import bytes_of, refuse_foreign, write_json
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import BUILT_IN, Task, task_named

if TYPE_CHECKING:
    from spd_deploy.benchmark.judge import Judgement
    from spd_deploy.benchmark.report import Report
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_train.recipe import Recipe

_MARK = "quickstart.json"
_BATCHES, _TOKENS = (1, 8, 32), (32,)
_ASK = {
    "opinions": '{"inputs": [{"text": "The film was not boring."}]}',
    "agreement": '{"inputs": [{"text": "The film was not boring.", '
    '"text_pair": "I would recommend it."}]}',
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One of the two models: its artefact and its headline metric on dev."""

    name: str
    artefact: Artefact
    score: float | None


@click.command(
    epilog="""\b
Example:
  spd quickstart --output quickstart"""
)
@click.option(
    "--task",
    "task_name",
    type=click.Choice(BUILT_IN),
    default="opinions",
    show_default=True,
    help="Single sentences, or pairs of them (which take longer to learn).",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("quickstart"),
    show_default=True,
    help="Folder to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier quickstart there.")
def quickstart(task_name: str, output: Path, overwrite: bool) -> None:
    """Train, export, evaluate and benchmark a small sparse BERT on built-in synthetic data.

    Takes a few minutes on two cores and needs no network, no GPU and no files.
    """
    _claim(output, overwrite=overwrite)
    start = time.perf_counter()
    progress = TerminalProgress()
    task = task_named(task_name)
    checkpoint = _train(task, output, progress)
    arms = _export(checkpoint, output, progress)
    report, judgement = _measure(arms, progress)
    page = _publish(report, judgement, checkpoint, output)
    _show(task, arms, judgement, page, output, seconds=time.perf_counter() - start)


def recipe_for(task: Task) -> "Recipe":
    """Settings that fit the built-in model and data, and a few minutes on two cores."""
    from spd_deploy.domain.patterns import Block
    from spd_train.recipe import Recipe, TeacherRecipe
    from spd_train.recipes import spd

    return Recipe(
        pattern=Block(rows=64, columns=1, sparsity=0.9),
        teacher=TeacherRecipe(
            epochs=4.8 if task.has_pair else 1.6, learning_rate=5e-4, weight_decay=0.0
        ),
        student=replace(
            spd(), prune_epochs=0.8, graft_epochs=0.2, finetune_epochs=0.6, learning_rate=1e-3
        ),
        batch_size=64,
        max_tokens=64,
    )


def _claim(output: Path, *, overwrite: bool) -> None:
    """Make the folder; only an earlier quickstart is ever replaced."""
    made_here = (output / _MARK).is_file()
    refuse_foreign(output, overwrite=overwrite, what="quickstart", ours=lambda _: made_here)
    if made_here:
        shutil.rmtree(output)
    write_json(output / _MARK, {"made_by": "spd quickstart"})


def _train(task: Task, output: Path, progress: Progress) -> "Checkpoint":
    """The built-in model, its dense teacher, and the sparse student."""
    from spd_train.data.built_in import make_model
    from spd_train.data.splits import read_data
    from spd_train.run import Request, run

    with stop_on_signals() as should_stop:
        return run(
            Request(
                task=task,
                data=read_data(task, None),
                recipe=recipe_for(task),
                model=str(make_model(output / "model")),
                teacher=None,
                output=output / "run",
                should_stop=should_stop,
            ),
            progress,
        )


def _export(checkpoint: "Checkpoint", output: Path, progress: Progress) -> list[Arm]:
    """Both models as artefacts, each scored as it will be served."""
    from exporters.onnx import artefact_from_checkpoint
    from spd_deploy.cli.evaluate import score_parts
    from spd_deploy.domain.checkpoint import open_checkpoint
    from spd_deploy.sessions.opening import open_path
    from spd_train.data.examples import read_split

    teacher = open_checkpoint(checkpoint.folder / "teacher")
    dev = read_split(checkpoint.task, None, "dev")
    found = []
    for name, source in (("dense", teacher), ("sparse", checkpoint)):
        artefact = artefact_from_checkpoint(source, output / name, progress=progress)
        opened = open_path(artefact.folder)
        with opened.session:
            scores = score_parts(opened, checkpoint.task, dev, progress)
        found.append(Arm(name=name, artefact=artefact, score=scores[checkpoint.task.metrics[0]]))
    return found


def _measure(arms: Sequence[Arm], progress: Progress) -> tuple["Report", "Judgement"]:
    """The latency of both, interleaved."""
    from spd_deploy.benchmark.arms import arms_of
    from spd_deploy.benchmark.judge import judge
    from spd_deploy.benchmark.run import run_benchmark
    from spd_deploy.benchmark.values import Settings, Shape
    from spd_deploy.domain.cores import default_threads

    settings = Settings(
        shapes=Shape.grid(_BATCHES, _TOKENS), threads=default_threads(), rounds=4, seconds=2.0
    )
    compared = arms_of([arm.artefact for arm in arms])
    report = run_benchmark(compared, settings, baseline=compared[0].name, progress=progress)
    return report, judge(report)


def _publish(
    report: "Report", judgement: "Judgement", checkpoint: "Checkpoint", output: Path
) -> Path:
    """The benchmark's page with the training curves in it."""
    from spd_deploy.benchmark.page import Section
    from spd_deploy.benchmark.publish import write_report
    from spd_train.reports.curves import CURVES_FILE

    curves: Section = Section(
        title="Training",
        png=(checkpoint.folder / CURVES_FILE).read_bytes(),
        caption="Sparse Progressive Distillation of the student from its dense teacher: the metric "
        "on samples of train and dev, sparsity and graft probability, the losses, and the learning "
        "rate. Shaded: the prune stage in grey, the graft stage in blue.",
    )
    return write_report(report, output / "report", extra_sections=[curves], judgement=judgement)


def _show(
    task: Task,
    arms: Sequence[Arm],
    judgement: "Judgement",
    page: Path,
    output: Path,
    *,
    seconds: float,
) -> None:
    """The table, the report's path, and what to type next."""
    shapes = [row.shape for row in judgement.of(judgement.rows[0].arm)]
    _, sparse = arms
    manifest = sparse.artefact.manifest
    sizes = [bytes_of(arm.artefact.folder) for arm in arms]
    rows = [
        [
            arm.name,
            "-" if arm.score is None else f"{arm.score:.3f}",
            f"{size / 1e6:.1f} MB",
            *(f"{judgement.row(arm.name, shape).p50.value * 1e3:.2f} ms" for shape in shapes),
        ]
        for arm, size in zip(arms, sizes, strict=True)
    ]
    gains = [judgement.row(sparse.name, shape).speed_up for shape in shapes]
    rows.append(
        [
            "speed-up",
            "",
            f"{sizes[0] / sizes[1]:.1f}x smaller",
            *("-" if gain is None else gain.numbers for gain in gains),
        ]
    )
    click.echo()
    show_table(
        f"{task.name} (synthetic data), {manifest.pattern} at {manifest.sparsity:.0%}; "
        f"latency by rows x tokens; {seconds:.0f} s in all",
        ["", task.metrics[0], "size on disk", *(f"p50 {shape}" for shape in shapes)],
        rows,
    )
    click.echo(f"\nreport  {page}\n\nnext, serve it, ask it, and use your own data:")
    click.echo(f"  spd serve {output / 'sparse'} --port 8000")
    click.echo(
        "  curl -s http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' "
        f"-d '{_ASK[task.name]}'"
    )
    click.echo(
        "  spd train --data reviews.csv --text-column review --label-column stars "
        "--model BERT_FOLDER --pattern block:64x1 --output runs/reviews"
    )
