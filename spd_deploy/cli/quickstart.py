"""``spd quickstart``: train, export, evaluate and benchmark a small model on built-in data."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.long_run.signals import resume_hint, stop_on_signals
from spd_deploy.cli.long_run.threads import threads_option, use_free_threads
from spd_deploy.cli.output.console import TerminalProgress, show_table
from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.errors import BadSetting, NotWritten
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.files import (
    bytes_of,
    read_json,
    refuse_foreign,
    refuse_unwritable,
    write_json,
)
from spd_deploy.domain.folders import QUICKSTART_FILE, QUICKSTART_REPORT, RUN_FILE
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import BUILT_IN, Task, task_named
from spd_deploy.timing.machine_load import cpu_times

if TYPE_CHECKING:
    from spd_deploy.benchmark.judge import Judgement
    from spd_deploy.benchmark.records import BenchmarkSettings
    from spd_deploy.benchmark.report import Report
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_train.config import Recipe

_BATCHES, _TOKENS = (1, 8, 32), (32,)
_ASK = {
    "opinions": '{"inputs": [{"text": "The film was not boring."}]}',
    "agreement": '{"inputs": [{"text": "The film was not boring.", '
    '"text_pair": "I would recommend it."}]}',
}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartArm:
    """One of the two models.

    Attributes:
        name: ``dense`` or ``sparse``.
        artefact: the exported model.
        score: its main metric on dev; None if undefined.
    """

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
    help="Built-in data: `opinions` has single sentences, `agreement` has pairs, which take about "
    "three times as long to learn.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("quickstart"),
    show_default=True,
    help="Folder to write: model, checkpoints, artefacts and report.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an earlier quickstart in --output and start from the beginning.",
)
@threads_option
@needs_extras("quickstart", "bench", "train")
def quickstart(task_name: str, output: Path, overwrite: bool, threads: int | None) -> None:
    """Train, export, evaluate and benchmark a small sparse BERT on built-in synthetic data.

    Takes a few minutes on two free cores, and needs no network, no GPU and no files. After a Ctrl-C
    the same command continues.
    """
    before = cpu_times()
    resumed = _claim(output, task_name, overwrite=overwrite)
    start = time.perf_counter()
    progress = TerminalProgress(watch=True)
    if resumed:
        progress.note(f"continuing the quickstart in {output}")
    task = task_named(task_name)
    with resume_hint("continue with the same command", begun=lambda: True):
        threads = use_free_threads(threads, before, progress.note)
        checkpoint = _train(task, output, progress)
        arms = _export(checkpoint, output, progress, threads)
        report, judgement = _measure(arms, progress, threads)
        page = _publish(report, judgement, checkpoint, output)
    duration = (
        f"{time.perf_counter() - start:.0f} s {'since it was resumed' if resumed else 'in all'}"
    )
    _show(task, arms, judgement, page, output, duration=duration)


def recipe_for(task: Task) -> "Recipe":
    """A recipe for the built-in model and data that takes a few minutes on two cores."""
    from spd_deploy.domain.patterns import Structured
    from spd_train.config import Recipe, TeacherRecipe
    from spd_train.recipes import spd

    return Recipe(
        pattern=Structured(sparsity=0.8),
        teacher=TeacherRecipe(
            epochs=4.8 if task.has_pair else 1.6, learning_rate=5e-4, weight_decay=0.0
        ),
        student=replace(
            spd(), prune_epochs=0.8, graft_epochs=0.2, finetune_epochs=0.6, learning_rate=1e-3
        ),
        batch_size=64,
        max_tokens=64,
    )


def benchmark_settings(threads: int | None) -> "BenchmarkSettings":
    """A benchmark of single requests and of batches, in well under a minute."""
    from spd_deploy.benchmark.records import BenchmarkSettings, Shape
    from spd_deploy.domain.cores import default_threads

    return BenchmarkSettings(
        shapes=Shape.grid(_BATCHES, _TOKENS),
        threads=threads or default_threads(),
        rounds=4,
        seconds=2.0,
    )


def _claim(output: Path, task_name: str, *, overwrite: bool) -> bool:
    """Create the folder, or find an unfinished quickstart in it. Returns whether there is one.

    Raises:
        NotWritten: the folder holds something else, or a finished quickstart, or one of another
            task.
    """
    made_here = (output / QUICKSTART_FILE).is_file()
    if made_here and not overwrite and not (output / QUICKSTART_REPORT).exists():
        mark = read_json(
            output / QUICKSTART_FILE, error=NotWritten, fix="start again with --overwrite"
        )
        if (before := mark.get("task", task_name)) != task_name:
            raise NotWritten(
                f"{output} holds a quickstart of another task that is not finished",
                got=f"--task {task_name}, it has {before}",
                fix="name that --task, choose another --output, or start again with --overwrite",
            )
        refuse_unwritable(output, output)
        return True
    refuse_foreign(output, overwrite=overwrite, what="quickstart", ours=lambda _: made_here)
    if made_here:
        shutil.rmtree(output)
    write_json(output / QUICKSTART_FILE, {"made_by": "spd quickstart", "task": task_name})
    return False


def _train(task: Task, output: Path, progress: Progress) -> "Checkpoint":
    """Train the built-in model's dense teacher and its sparse student."""
    from spd_deploy.domain.checkpoint import CONFIG_FILE
    from spd_train.data.built_in import make_model
    from spd_train.data.splits import read_data
    from spd_train.run import run
    from spd_train.train_config import TrainConfig

    model, folder = output / "model", output / "run"
    if not (model / CONFIG_FILE).exists():  # written last
        make_model(model)
    with stop_on_signals() as should_stop:
        config = TrainConfig(
            task=task,
            data=read_data(task, None),
            recipe=recipe_for(task),
            model=str(model),
            teacher=None,
            output=folder,
            resume=(folder / RUN_FILE).exists(),
            should_stop=should_stop,
        )
        try:
            return run(config, progress)
        except BadSetting as err:
            if not config.resume:
                raise
            raise BadSetting(
                "the quickstart in the folder was started by another version of spd",
                got=err.got,
                fix="start again with --overwrite, or choose another --output",
            ) from err


def _export(
    checkpoint: "Checkpoint", output: Path, progress: Progress, threads: int | None
) -> list[QuickstartArm]:
    """Export both models, and score each as it will be served."""
    from spd_deploy.api.evaluation import score_parts
    from spd_deploy.domain.checkpoint import open_checkpoint
    from spd_deploy.sessions.open import open_path
    from spd_train.data.read_split import read_split

    teacher = open_checkpoint(checkpoint.folder / "teacher")
    dev = read_split(checkpoint.task, None, "dev")
    found = []
    for name, source in (("dense", teacher), ("sparse", checkpoint)):
        artefact = _exported(source, output / name, progress)
        opened = open_path(artefact.folder, threads=threads)
        with opened.session:
            scores = score_parts(opened, checkpoint.task, dev, progress)
        found.append(
            QuickstartArm(name=name, artefact=artefact, score=scores[checkpoint.task.metrics[0]])
        )
    return found


def _exported(source: "Checkpoint", folder: Path, progress: Progress) -> Artefact:
    """The checkpoint's artefact: the one that an earlier call made, or a new one."""
    from exporters.export import artefact_from_checkpoint

    if is_artefact(folder):
        artefact = open_artefact(folder)
        if artefact.manifest.checkpoint_sha256 == source.weights_sha256:
            return artefact
    return artefact_from_checkpoint(source, folder, overwrite=True, progress=progress)


def _measure(
    arms: Sequence[QuickstartArm], progress: Progress, threads: int | None
) -> tuple["Report", "Judgement"]:
    """Measure the latency of both models in interleaved rounds."""
    from spd_deploy.benchmark.artefact_arms import arms_of
    from spd_deploy.benchmark.judge import judge
    from spd_deploy.benchmark.run import run_benchmark

    compared = arms_of([arm.artefact for arm in arms])
    report = run_benchmark(
        compared, benchmark_settings(threads), baselines=(compared[0].name,), progress=progress
    )
    return report, judge(report)


def _publish(
    report: "Report", judgement: "Judgement", checkpoint: "Checkpoint", output: Path
) -> Path:
    """Write the report of the benchmark with the training curves in it. Returns its path."""
    from spd_deploy.benchmark.publish import write_report
    from spd_deploy.benchmark.report_html import PageSection
    from spd_train.plots.curves import CURVES_FILE

    curves: PageSection = PageSection(
        title="Training",
        png=(checkpoint.folder / CURVES_FILE).read_bytes(),
        caption="Sparse Progressive Distillation of the student from its dense teacher: the metric "
        "on a sample of train and on the validation rows, sparsity and graft probability, the "
        "losses, and the learning rate.",
    )
    return write_report(
        report, output / QUICKSTART_REPORT, extra_sections=[curves], judgement=judgement
    )


def _show(
    task: Task,
    arms: Sequence[QuickstartArm],
    judgement: "Judgement",
    page: Path,
    output: Path,
    *,
    duration: str,
) -> None:
    """Print the table, the path of the report, and the next commands."""
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
        f"latency by rows x tokens; {duration}",
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
        "--model BERT_FOLDER --speedup 3 --output runs/reviews"
    )
