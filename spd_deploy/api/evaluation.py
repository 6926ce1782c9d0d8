"""``spd.evaluate``: the task's official metrics of an artefact or checkpoint on a split."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.display import Displayed, ResultTable, ResultView, score
from spd_deploy.api.loading import load
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import SCORE, read_flag, read_model, read_path, read_text, read_windows
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.coverage import Coverage
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.task_agreement import refuse_other_answers
from spd_deploy.domain.tasks import ProblemType, Task, task_named
from spd_deploy.domain.text_encoder import EncodesOnce, TextEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spd_deploy.domain.metrics import Label
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Description
    from spd_train.data.examples import Splits
    from spd_train.data.splits import ScoringRows


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Evaluation(Displayed):
    """The scores of a model.

    Attributes:
        path: the model's folder.
        task: the name of the task.
        split: which rows were scored, such as ``dev`` or ``dev, a tenth of the file``.
        rows: how many.
        seconds: how long the model took for them.
        runtime: what ran the model.
        scores: the task's metrics; the first is the headline. None marks an undefined one.
        notes: messages of the run, such as how many texts were cut.
        calibration: how well the scores fit what is true; None for a regression.
        coverage: how many rows are answered, and how well, without the answers below a score.
    """

    path: Path
    task: str
    split: str
    rows: int
    seconds: float
    runtime: "Description"
    scores: Mapping[str, float | None]
    notes: tuple[str, ...] = ()
    calibration: CalibrationError | None = None
    coverage: tuple[Coverage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``spd evaluate --json`` prints."""
        return {
            "path": str(self.path),
            "task": self.task,
            "split": self.split,
            "rows": self.rows,
            "runtime": asdict(self.runtime),
            "scores": dict(self.scores),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "coverage": [asdict(one) for one in self.coverage],
        }

    def view(self) -> ResultView:
        """The scores, and what they were measured on."""
        facts = {
            "task": self.task,
            "split": f"{self.split}, {self.rows} rows in {self.seconds:.1f} s",
            "runtime": str(self.runtime),
        }
        rows = [(name, score(value)) for name, value in self.scores.items()]
        rows += self.calibration_rows()
        tables = [ResultTable(columns=("metric", "score"), rows=rows)]
        if self.coverage:
            tables.append(self.coverage_table())
        return ResultView(title=f"evaluation of {self.path}", facts=facts, tables=tables)

    def calibration_rows(self) -> list[tuple[str, str]]:
        """Calibration error and Brier score; none for a regression."""
        if self.calibration is None:
            return []
        found = self.calibration
        return [
            ("calibration error", f"{found.expected:.4f}"),
            ("Brier score", f"{found.brier:.4f}"),
        ]

    def coverage_table(self) -> ResultTable:
        """The rows that are answered without scores below a bound, and their accuracy."""
        rows = [
            (f"{one.below:g}", f"{one.coverage:.1%}", score(one.accuracy)) for one in self.coverage
        ]
        return ResultTable(columns=("abstain below", "coverage", "accuracy"), rows=rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredPart:
    """The logits of a model for the rows of one file, and their labels."""

    logits_BC: "NDArray[np.float32]"
    labels: "Sequence[Label]"


@needs_extras("evaluate", "evaluate")
def evaluate(
    path: str | PathLike[str],
    *,
    revision: str | None = None,
    task: str | None = None,
    data: str | PathLike[str] | None = None,
    split: str = "dev",
    skip_broken_rows: bool = False,
    long_texts: Literal["cut", "windows"] | None = None,
    window_stride: int | None = None,
    window_pooling: Literal["mean", "max"] | None = None,
    max_windows: int | None = None,
    abstain_below: float | None = None,
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    progress: bool | Progress = False,
) -> Evaluation:
    """Score an artefact or a checkpoint on labelled data.

    Args:
        path: the model's folder, its name on the Hugging Face hub, or an address.
        revision: branch, tag or commit of a model on the hub.
        task: the task's name; by default the task that the model was trained for.
        data: a folder with the task's files, or one file. Of the file that the model was trained
            on, its dev rows are scored.
        split: ``dev`` or ``train``.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        long_texts: ``windows`` reads a text that is longer than the model reads in windows, whose
            logits are pooled; ``cut`` leaves out what is behind the model's longest input.
            By default as the model was trained, and so are the three below.
        window_stride: tokens that a window shares with the one before; else a quarter of the
            longest input.
        window_pooling: ``mean`` or ``max`` of the logits; else ``mean``.
        max_windows: windows of a text, else 16; what is behind them is cut off.
        abstain_below: a score for the table of coverage, beside the usual ones.
        runtime: as for ``load``.
        device: as for ``load``.
        threads: as for ``load``.
        progress: show bars, or tell a listener of your own.

    Raises:
        BadData: the data is missing or broken, or has no labels.
        BadSetting: the model was trained for another task.
    """
    name = None if task is None else read_text("task", task)
    file = None if data is None else read_path("data", data)
    if split == "test":
        raise BadData(
            "the test split has no labels to score against",
            fix="use spd predict, or name a file that has labels with --data",
        )
    below = None if abstain_below is None else SCORE.read("abstain_below", abstain_below)
    windows = read_windows(long_texts, window_stride, window_pooling, max_windows)
    recorder = NoteRecorder(progress)
    folder = read_model("path", path, revision=revision, names="owned", note=recorder.note)
    with load(folder, runtime=runtime, device=device, threads=threads) as model:
        agreed = agreed_task(model.task, name)
        opened = model.opened().reading(windows)
        encoder = EncodesOnce(opened.tokenizer)
        scored = labelled_rows(
            agreed, file, split, encoder, recorder, skip_broken_rows=skip_broken_rows
        )
        if below is not None and agreed.problem_type is not ProblemType.SINGLE_LABEL:
            raise BadSetting(
                "only a classifier of one label abstains",
                got=f"--abstain-below {below:g} for {agreed.problem_type.value}",
                fix="leave --abstain-below out",
            )
        start = time.perf_counter()
        answered = answer_parts(opened, agreed, scored.parts, recorder, encoder)
        seconds = time.perf_counter() - start
    return Evaluation(
        path=model.path,
        task=agreed.name,
        split=scored.name,
        rows=sum(map(len, scored.parts.values())),
        seconds=seconds,
        runtime=model.runtime,
        scores=scores_of_parts(agreed, answered, recorder),
        notes=recorder.notes,
        calibration=_calibration(agreed, answered),
        coverage=_coverage(agreed, answered, below),
    )


def labelled_rows(
    task: Task,
    data: Path | None,
    split: str,
    encoder: TextEncoder,
    progress: Progress,
    *,
    skip_broken_rows: bool,
    group_column: str | None = None,
) -> "ScoringRows":
    """The rows of a split to score a model of ``task`` on.

    Args:
        task: the task of the model and of the data.
        data: a folder with the task's files, or one file; None for the hub or a built-in task.
        split: ``dev`` or ``train``.
        encoder: finds texts without a token.
        progress: reports the rows.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        group_column: the column that rows are grouped by.

    Raises:
        BadData: the data is missing or broken, or has no labels.
        BadSetting: the task does not say where its labels are, or a value is not allowed.
    """
    from spd_train.data.splits import rows_to_score

    refuse_unlabelled(task, data)
    return rows_to_score(
        task,
        data,
        read_text("split", split),
        skip_broken=read_flag("skip_broken_rows", skip_broken_rows),
        note=progress.note,
        open_tokenizer=lambda: encoder,
        group_column=group_column,
    )


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
        decided = trained.labels == wanted.labels
        return replace(wanted, decision=trained.decision) if decided else wanted
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
    opened: "OpenedModel",
    task: Task,
    parts: "Splits",
    progress: Progress,
    encoder: "TextEncoder | None" = None,
) -> dict[str, float | None]:
    """The task's metrics over the files of a split; the arguments are of :func:`answer_parts`."""
    answered = answer_parts(opened, task, parts, progress, encoder)
    return scores_of_parts(task, answered, progress)


def answer_parts(
    opened: "OpenedModel",
    task: Task,
    parts: "Splits",
    progress: Progress,
    encoder: "TextEncoder | None" = None,
) -> "dict[str, AnsweredPart]":
    """The model's logits for the files of a split, with what is true.

    Args:
        opened: the session with its tokenizer.
        task: of the labels.
        parts: labelled rows by the name of their file.
        progress: reports how many texts were cut.
        encoder: takes the place of the tokenizer, where it encoded some of the texts before.

    Raises:
        BadData: a row has no label.
    """
    from spd_deploy.domain.text_lengths import Lengths
    from spd_deploy.sessions.offline import logits_of

    encode = (encoder or opened.tokenizer).encode
    found: dict[str, AnsweredPart] = {}
    for part, examples in parts.items():
        rows = [encode(e.text, e.pair) for e in examples]
        labels = [e.label for e in examples if e.label is not None]
        if len(labels) != len(examples):
            raise BadData(f"{part} has rows without a label", fix="score a labelled split")
        progress.note(f"lengths of {part}: {Lengths.of(rows, limit=opened.tokenizer.max_tokens)}")
        with progress.stage(f"evaluate {part}", len(rows)) as advance:
            logits_BC = logits_of(opened.session, opened.tokenizer, rows, advance)
        found[part] = AnsweredPart(logits_BC=logits_BC, labels=labels)
    return found


def scores_of_parts(
    task: Task, answered: "Mapping[str, AnsweredPart]", progress: Progress
) -> dict[str, float | None]:
    """The task's metrics over all files; a model that always answers the same is reported."""
    from spd_deploy.domain.collapse import constant_answer
    from spd_deploy.domain.metrics import merged_scores, scores_of, truth_of

    found: dict[str, dict[str, float]] = {}
    for part, one in answered.items():
        found[part] = scores_of(task, one.logits_BC, one.labels)
        if answer := constant_answer(task, one.logits_BC, truth_of(task, one.labels)):
            progress.note(f"warning: the model answers {answer}: its score says nothing")
    return merged_scores(found)


def _calibration(task: Task, answered: "Mapping[str, AnsweredPart]") -> CalibrationError | None:
    """The calibration over all files; None where the scores are no probabilities of labels."""
    from spd_deploy.domain.temperature import error_of, is_calibrated_by_temperature

    if not is_calibrated_by_temperature(task):
        return None
    return error_of(task, *logits_and_truth(task, answered))


def _coverage(
    task: Task, answered: "Mapping[str, AnsweredPart]", below: float | None
) -> tuple[Coverage, ...]:
    """Coverage and accuracy over all files; empty for all but a classifier of one label."""
    from spd_deploy.domain.coverage import coverage_of

    also = () if below is None else (below,)
    return coverage_of(task, *logits_and_truth(task, answered), also=also)


def logits_and_truth(
    task: Task, answered: "Mapping[str, AnsweredPart]"
) -> "tuple[NDArray[np.float32], NDArray[np.float64]]":
    """The logits and the truth of all files."""
    import numpy as np

    from spd_deploy.domain.metrics import truth_of

    parts = answered.values()
    logits_BC = np.concatenate([part.logits_BC for part in parts])
    return logits_BC, np.concatenate([truth_of(task, part.labels) for part in parts])
