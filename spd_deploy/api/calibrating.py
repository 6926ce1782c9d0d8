"""``spd.calibrate``: scores that mean what they say, and thresholds that keep a promise."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.display import Displayed, ResultTable, ResultView
from spd_deploy.api.evaluation import AnsweredPart, agreed_task, answer_parts, refuse_unlabelled
from spd_deploy.api.loading import load
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import (
    SCORE,
    read_flag,
    read_model,
    read_path,
    read_text,
    read_windows,
)
from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact, save_manifest
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.decision import Decision, Threshold
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.files import refuse_existing, replacing
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import ProblemType, Task
from spd_deploy.domain.temperature import (
    FittedTemperature,
    TemperatureScaling,
    is_calibrated_by_temperature,
)
from spd_deploy.domain.text_encoder import EncodesOnce
from spd_deploy.domain.threshold_choice import ThresholdGoal, choose_threshold

if TYPE_CHECKING:
    from spd_train.calibrate import AnsweredRows

_HOLDOUT = "holdout"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class CalibrationResult(Displayed):
    """The result of a calibration.

    Attributes:
        path: the folder that was written.
        task: the name of the task.
        fitted_on: the rows that the temperature and the thresholds were chosen on.
        calibration: temperature, and the errors before and after.
        decision: the thresholds, and the score below which the model abstains.
        notes: messages of the run.
    """

    path: Path
    task: str
    fitted_on: str
    calibration: TemperatureScaling
    decision: Decision
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        """The folder, so that the result stands for a path."""
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        """What ``spd calibrate --json`` prints."""
        return {
            "path": str(self.path),
            "task": self.task,
            "fitted_on": self.fitted_on,
            "calibration": asdict(self.calibration),
            "decision": asdict(self.decision),
        }

    def view(self) -> ResultView:
        """The errors before and after, and each threshold."""
        found = self.calibration
        errors = {"calibration error": "expected", "Brier score": "brier"}
        rows = [
            (name, f"{getattr(found.before, field):.4f}", f"{getattr(found.after, field):.4f}")
            for name, field in errors.items()
        ]
        lines = [f"threshold of {name}: {one}" for name, one in self.decision.thresholds.items()]
        if self.decision.abstain_below is not None:
            lines.append(f"abstains below a score of {self.decision.abstain_below:g}")
        return ResultView(
            title=f"calibrated {self.task}",
            facts={
                "temperature": f"{found.temperature:.3f}",
                "fitted on": self.fitted_on,
                "measured on": found.split,
                "saved": str(self.path),
            },
            tables=(ResultTable(columns=("", "as trained", "calibrated"), rows=rows),),
            lines=lines,
        )


@needs_extras("calibrate", "train")
def calibrate(
    path: str | PathLike[str],
    *,
    output: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    task: str | None = None,
    threshold_for: Sequence[str] = (),
    abstain_below: float | None = None,
    skip_broken_rows: bool = False,
    long_texts: Literal["cut", "windows"] | None = None,
    window_stride: int | None = None,
    window_pooling: Literal["mean", "max"] | None = None,
    max_windows: int | None = None,
    overwrite: bool = False,
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    progress: bool | Progress = False,
) -> CalibrationResult:
    """Fit the temperature of a checkpoint, and choose thresholds, on labelled rows.

    Args:
        path: the folder of a checkpoint; or of an artefact, whose thresholds alone can be chosen.
        output: the folder to write.
        data: a folder with the task's files, or one file. Of the data that the model was trained
            on, its validation rows are taken.
        task: the task's name; by default the task that the model was trained for.
        threshold_for: goals such as ``spam:precision=0.95``, ``spam:recall=0.9`` or ``spam:f1``;
            ``*`` stands for every label. Earlier thresholds are replaced.
        abstain_below: the model gives no label where its best score is smaller.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        long_texts: ``windows`` reads a text that is longer than the model reads in windows, whose
            logits are pooled; ``cut`` leaves out what is behind the model's longest input.
            By default as the model was trained, and so are the three below.
        window_stride: tokens that a window shares with the one before; else a quarter of the
            longest input.
        window_pooling: ``mean`` or ``max`` of the logits; else ``mean``.
        max_windows: windows of a text, else 16; what is behind them is cut off.
        overwrite: replace what is in ``output``.
        runtime: as for ``load``.
        device: as for ``load``.
        threads: as for ``load``.
        progress: show bars, or tell a listener of your own.

    Raises:
        BadData: the data is missing or broken, too few rows, or no threshold reaches a goal.
        BadSetting: a goal that is not understood, or a model that answers numbers.
    """
    folder, target = read_model("path", path), read_path("output", output)
    name = None if task is None else read_text("task", task)
    file = None if data is None else read_path("data", data)
    texts = [threshold_for] if isinstance(threshold_for, str) else list(threshold_for)
    goals = [ThresholdGoal.parse(read_text("threshold_for", text)) for text in texts]
    below = None if abstain_below is None else SCORE.read("abstain_below", abstain_below)
    windows = read_windows(long_texts, window_stride, window_pooling, max_windows)
    refuse_existing(target, overwrite=read_flag("overwrite", overwrite))
    if is_artefact(folder) and not goals and below is None:
        raise BadSetting(
            "the temperature of an artefact is in its weights already",
            got=str(folder),
            fix="calibrate the checkpoint and export that, or name --threshold-for or "
            "--abstain-below",
        )
    recorder = NoteRecorder(progress)
    # What a session opens is a private copy, so the model is opened apart to be written again.
    source = open_artefact(folder) if is_artefact(folder) else open_checkpoint(folder)
    with load(folder, runtime=runtime, device=device, threads=threads) as model:
        agreed = agreed_task(model.task, name)
        _refuse_unfit(agreed, below)
        refuse_unlabelled(agreed, file)
        opened = model.opened().reading(windows)
        encoder = EncodesOnce(opened.tokenizer)
        from spd_train.data.validation_rows import rows_to_calibrate

        rows = rows_to_calibrate(
            agreed,
            file,
            holdout=_holdout_of(source),
            skip_broken=read_flag("skip_broken_rows", skip_broken_rows),
            note=recorder.note,
            open_tokenizer=lambda: encoder,
        )
        fit = _answered(agreed, answer_parts(opened, agreed, rows.fit, recorder, encoder))
        measured = fit
        if rows.measured is not rows.fit:
            parts = answer_parts(opened, agreed, rows.measured, recorder, encoder)
            measured = _answered(agreed, parts)
    fitted = _temperature(source, agreed, fit, recorder, needed=not goals and below is None)
    decision = Decision(
        thresholds=_thresholds(goals, agreed, fit, fitted.value), abstain_below=below
    )
    decided = replace(agreed, decision=decision, windows=windows.windows(agreed.windows))
    before = source.temperature if isinstance(source, Checkpoint) else 1.0
    found = measured.calibration(agreed, fitted, split=rows.measured_name, before=before)
    _write(source, decided, found, fitted, target)
    if isinstance(source, Checkpoint):
        from spd_train.plots.reliability import RELIABILITY_FILE

        measured.draw(agreed, found, target / RELIABILITY_FILE, before=before)
    return CalibrationResult(
        path=target,
        task=agreed.name,
        fitted_on=f"{rows.name}, {len(fit.truth)} rows",
        calibration=found,
        decision=decision,
        notes=recorder.notes,
    )


def _refuse_unfit(task: Task, below: float | None) -> None:
    """Refuse a model whose answers are numbers, and one that cannot abstain.

    Raises:
        BadSetting: with the reason.
    """
    if not is_calibrated_by_temperature(task):
        raise BadSetting(
            "only a classifier is calibrated, and this model answers a number",
            got=f"task {task.name}",
            fix="name a classifier",
        )
    if below is not None and task.problem_type is not ProblemType.SINGLE_LABEL:
        raise BadSetting(
            "a multi-label model gives no label where none reaches its threshold, and cannot "
            "abstain",
            got=f"--abstain-below {below:g}",
            fix="choose thresholds with --threshold-for instead",
        )


def _holdout_of(source: Checkpoint | Artefact) -> float:
    """The share of train that was set apart when the model was trained.

    An artefact does not say it; the share that training takes by default stands for it.
    """
    from spd_train.recipes import recipe_named

    recipe: Mapping[str, Any] = source.recipe if isinstance(source, Checkpoint) else {}
    share = recipe.get(_HOLDOUT)
    return float(recipe_named("spd").holdout if share is None else share)


def _answered(task: Task, parts: Mapping[str, AnsweredPart]) -> "AnsweredRows":
    """The answers to the rows of all files together."""
    from spd_deploy.domain.metrics import truth_of
    from spd_train.calibrate import AnsweredRows

    return AnsweredRows.joined(
        AnsweredRows(logits_BC=part.logits_BC, truth=truth_of(task, part.labels))
        for part in parts.values()
    )


def _temperature(
    source: Checkpoint | Artefact,
    task: Task,
    fit: "AnsweredRows",
    progress: Progress,
    *,
    needed: bool,
) -> FittedTemperature:
    """The temperature of a checkpoint; 1 for an artefact, and where none fits.

    Raises:
        BadData: none fits, and nothing else was asked for.
    """
    if isinstance(source, Artefact):
        return FittedTemperature()
    fitted = fit.temperature(task)
    if fitted.reason is not None:
        if needed:
            raise BadData(
                "no temperature fits these rows",
                got=fitted.reason,
                fix="name more labelled rows that the model was not trained on",
            )
        progress.note(f"the temperature stays as it is: {fitted.reason}")
    return fitted


def _thresholds(
    goals: Sequence[ThresholdGoal], task: Task, fit: "AnsweredRows", temperature: float
) -> dict[str, Threshold]:
    """The threshold of each label that a goal names, on calibrated scores."""
    from spd_deploy.domain.answers import scores_from

    scores_BC = scores_from(task, fit.logits_BC / temperature)
    found = {}
    for goal in goals:
        for label in goal.labels(task.labels):
            i = task.labels.index(label)
            has_B = fit.truth[:, i] >= 0.5 if task.is_multi_label else fit.truth == i
            found[label] = choose_threshold(goal, label, scores_BC[:, i], has_B)
    return found


def _write(
    source: Checkpoint | Artefact,
    task: Task,
    found: TemperatureScaling,
    fitted: FittedTemperature,
    output: Path,
) -> None:
    """Write the checkpoint with another head, or the artefact with other thresholds."""
    if isinstance(source, Checkpoint):
        from spd_train.calibrated_checkpoint import write_calibrated

        write_calibrated(source, task, found, output, by=fitted.value)
        return
    manifest = source.manifest
    with replacing(output) as draft:
        shutil.copytree(source.folder, draft)
        decided = replace(manifest.task, decision=task.decision, windows=task.windows)
        save_manifest(draft, replace(manifest, task=decided))
