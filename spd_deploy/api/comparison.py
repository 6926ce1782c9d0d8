"""``spd.compare``: where a sparse model answers otherwise than its dense model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.display import Displayed, ResultTable, ResultView, score
from spd_deploy.api.evaluation import agreed_task, labelled_rows
from spd_deploy.api.loading import Model, load
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import WholeNumber, read_path, read_text, read_windows
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.task_agreement import same_answers
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text_encoder import EncodesOnce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spd_deploy.domain.paired_answers import AnswerComparison, PairedAnswers, PartScores
    from spd_deploy.domain.text import Tokens
    from spd_deploy.sessions.open import OpenedModel
    from spd_train.data.examples import Example

_ROWS = WholeNumber(0, 10_000)
_TEXT_SHOWN = 60
_PARTS_SHOWN = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedRow:
    """One of the rows whose scores differ most.

    Attributes:
        row: number of the row among those that were scored, from 1.
        text: the text.
        pair: the second text; None for a single text.
        truth: the true label or number.
        dense: answer of the dense model.
        dense_score: its score, of that label.
        sparse: answer of the sparse model.
        sparse_score: its score, of that label.
        distance: distance of the two models' scores.
    """

    row: int
    text: str
    pair: str | None
    truth: str
    dense: str
    dense_score: float
    sparse: str
    sparse_score: float
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class ModelDifference(Displayed):
    """How a sparse model's answers differ from its dense model's.

    Attributes:
        dense: folder of the dense model.
        sparse: folder of the sparse model.
        task: the task.
        split: which rows were scored, such as ``dev``.
        group_by: the column that the groups come from; None without groups.
        answers: scores of both, changed answers, calibration, and the parts of the rows.
        worst: the rows whose scores differ most.
        notes: messages of the run.
    """

    dense: Path
    sparse: Path
    task: Task
    split: str
    group_by: str | None
    answers: "AnswerComparison"
    worst: tuple[ChangedRow, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``spd compare --json`` prints."""
        return {
            "dense": str(self.dense),
            "sparse": str(self.sparse),
            "task": self.task.name,
            "split": self.split,
            "group_by": self.group_by,
            **asdict(self.answers),
            "worst": [asdict(row) for row in self.worst],
        }

    def view(self) -> ResultView:
        """Scores and calibration of both models, then each part, then the rows that differ most."""
        return ResultView(
            title=f"{self.task.name}, {self.split}: {self.answers.rows} rows",
            facts={"dense": str(self.dense), "sparse": str(self.sparse)},
            tables=(
                _scores_table(self.answers),
                *(
                    _parts_table(self.group_by or by if by == "group" else by, parts, self.task)
                    for by, parts in self.answers.parts.items()
                    if len(parts) > 1
                ),
                *([_worst_table(self.worst)] if self.worst else []),
            ),
            lines=self.sentences(),
        )

    def sentences(self) -> list[str]:
        """The difference in words."""
        found, metric = self.answers, self.task.metrics[0]
        lines = []
        dense, sparse = found.dense[metric], found.sparse[metric]
        if dense is not None and sparse is not None:
            change = f"sparse minus dense in {metric}: {100 * (sparse - dense):+.2f} points"
            if found.interval is not None:
                low, high = (100 * end for end in found.interval)
                change += f", 95 % interval [{low:+.2f}, {high:+.2f}]"
            lines.append(change)
        if self.task.names:
            lines.append(
                f"the label changes in {found.changed} of {found.rows} rows "
                f"({found.changed / found.rows:.1%}): {found.broken} become wrong, "
                f"{found.fixed} become right"
            )
        return lines


@needs_extras("compare", "evaluate")
def compare(
    dense: str | PathLike[str],
    sparse: str | PathLike[str],
    *,
    data: str | PathLike[str] | None = None,
    task: str | None = None,
    split: str = "dev",
    group_by: str | None = None,
    rows: int = 20,
    skip_broken_rows: bool = False,
    long_texts: Literal["cut", "windows"] | None = None,
    window_stride: int | None = None,
    window_pooling: Literal["mean", "max"] | None = None,
    max_windows: int | None = None,
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    progress: bool | Progress = False,
) -> ModelDifference:
    """Compare the answers of a dense and a sparse model on labelled data, row by row.

    Args:
        dense: the folder of the dense model.
        sparse: the folder of the sparse model.
        data: a folder with the task's files, or one file, as for ``evaluate``.
        task: the task's name; by default the task that the sparse model was trained for.
        split: ``dev`` or ``train``.
        group_by: a column of the data, such as a source or genre. Its values are compared apart.
        rows: how many of the rows that differ most are listed.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        long_texts: ``windows`` reads a text that is longer than the model reads in windows, whose
            logits are pooled; ``cut`` leaves out what is behind the model's longest input.
            By default as the model was trained, and so are the three below.
        window_stride: tokens that a window shares with the one before; else a quarter of the
            longest input.
        window_pooling: ``mean`` or ``max`` of the logits; else ``mean``.
        max_windows: windows of a text, else 16; what is behind them is cut off.
        runtime: as for ``load``.
        device: as for ``load``.
        threads: as for ``load``.
        progress: show bars, or tell a listener of your own.

    Raises:
        BadData: the data is missing or broken, or has no labels.
        BadSetting: the two models answer different tasks, or another one than is named.
    """
    import numpy as np

    from spd_deploy.domain.metrics import truth_of
    from spd_deploy.domain.paired_answers import PairedAnswers, compare_answers, largest_distances

    name = None if task is None else read_text("task", task)
    file = None if data is None else read_path("data", data)
    group = None if group_by is None else read_text("group_by", group_by)
    shown = _ROWS.read("rows", rows)
    windows = read_windows(long_texts, window_stride, window_pooling, max_windows)
    if split == "test":
        raise BadData("the test split has no labels", fix="name a file that has labels with --data")
    recorder = NoteRecorder(progress)
    options: dict[str, Any] = {"runtime": runtime, "device": device, "threads": threads}
    with load(sparse, **options) as model:
        agreed = agreed_task(model.task, name)
        opened = model.opened().reading(windows)
        encoder = EncodesOnce(opened.tokenizer)
        scored = labelled_rows(
            agreed,
            file,
            split,
            encoder,
            recorder,
            skip_broken_rows=skip_broken_rows,
            group_column=group,
        )
        examples = [example for part in scored.parts.values() for example in part]
        encoded = [encoder.encode(e.text, e.pair) for e in examples]
        sparse_BC = _logits(opened, encoded, "sparse", recorder)
        sparse_path = model.path
    with load(dense, **options) as model:
        _refuse_other_task(model, agreed)
        opened = model.opened().reading(windows)
        own = [opened.tokenizer.encode(e.text, e.pair) for e in examples]
        dense_BC = _logits(opened, own, "dense", recorder)
        dense_path = model.path
    answers = PairedAnswers(
        task=agreed,
        dense_BC=dense_BC,
        sparse_BC=sparse_BC,
        labels_B=truth_of(agreed, [e.label for e in examples if e.label is not None]),
        tokens_B=np.array([len(row) for row in encoded]),
        groups=() if group is None else tuple(str(e.group) for e in examples),
    )
    worst = largest_distances(answers, shown)
    return ModelDifference(
        dense=dense_path,
        sparse=sparse_path,
        task=agreed,
        split=scored.name,
        group_by=group,
        answers=compare_answers(answers),
        worst=tuple(_changed_row(answers, examples[row], row) for row in worst),
        notes=recorder.notes,
    )


def _refuse_other_task(model: Model, task: Task) -> None:
    """Refuse a dense model that answers another task.

    Raises:
        BadSetting: its labels are others, or in another order.
    """
    if not same_answers(model.task, task):
        raise BadSetting(
            "the two models answer different tasks",
            got=f"{model.path} answers {', '.join(model.labels) or 'a number'}",
            fix="name a dense model of the same labels, in the same order",
        )


def _logits(
    opened: "OpenedModel", rows: "Sequence[Tokens]", name: str, progress: Progress
) -> "NDArray[np.float64]":
    """Logits ``[rows, C]`` of a model."""
    from spd_deploy.sessions.offline import logits_of

    runtime = opened.session.description.runtime
    with progress.stage(f"run {name} in {runtime}", len(rows)) as advance:
        return logits_of(opened.session, opened.tokenizer, rows, advance).astype("float64")


def _changed_row(answers: "PairedAnswers", example: "Example", row: int) -> ChangedRow:
    """A row with what both models answer."""
    import numpy as np

    from spd_deploy.domain.answers import answers_of

    task = answers.task
    dense, sparse = (
        answers_of(task, logits_BC[row].astype("float32"))[0]
        for logits_BC in (answers.dense_BC, answers.sparse_BC)
    )
    if not task.names:
        shown = [f"{answers.labels_B[row]:g}", f"{dense.score:.3f}", f"{sparse.score:.3f}"]
    else:
        one = answers.only(np.array([row]))
        has = (one.true_BC, one.given(one.dense_BC), one.given(one.sparse_BC))
        shown = [", ".join(compress(task.names, has_BC[0])) or "-" for has_BC in has]
    return ChangedRow(
        row=row + 1,
        text=example.text,
        pair=example.pair,
        truth=shown[0],
        dense=shown[1],
        dense_score=dense.score,
        sparse=shown[2],
        sparse_score=sparse.score,
        distance=float(answers.distances_B[row]),
    )


def _scores_table(found: "AnswerComparison") -> ResultTable:
    """The metrics of both models, and their calibration."""
    rows = [
        (name, score(found.dense[name]), score(found.sparse[name]), _retained(found, name))
        for name in found.dense
    ]
    if found.calibration is not None:
        dense, sparse = found.calibration
        rows += [
            ("calibration error", f"{dense.expected:.4f}", f"{sparse.expected:.4f}", ""),
            ("Brier score", f"{dense.brier:.4f}", f"{sparse.brier:.4f}", ""),
            ("mean confidence", f"{dense.confidence:.4f}", f"{sparse.confidence:.4f}", ""),
        ]
    return ResultTable(columns=("", "dense", "sparse", "kept"), rows=rows)


def _retained(found: "AnswerComparison", metric: str) -> str:
    """The share of the dense score that the sparse model keeps."""
    dense, sparse = found.dense[metric], found.sparse[metric]
    from spd_deploy.domain.metrics import SMALLER_IS_BETTER

    if metric in SMALLER_IS_BETTER:
        return "-"
    return "-" if not dense or sparse is None else f"{sparse / dense:.1%}"


def _parts_table(by: str, parts: "Sequence[PartScores]", task: Task) -> ResultTable:
    """Both models on each part of the rows."""
    from spd_deploy.domain.paired_answers import parts_metric

    metric = parts_metric(task)
    last = "changed" if task.names else "distance"
    rows = [
        (
            part.name,
            str(part.rows),
            score(part.dense),
            score(part.sparse),
            str(part.changed) if task.names else f"{part.distance:.3f}",
        )
        for part in parts[:_PARTS_SHOWN]
    ]
    more = len(parts) - _PARTS_SHOWN
    title = f"{metric} by {by}" + (f", the first {_PARTS_SHOWN} of {len(parts)}" * (more > 0))
    return ResultTable(columns=(by, "rows", "dense", "sparse", last), rows=rows, title=title)


def _worst_table(worst: "Sequence[ChangedRow]") -> ResultTable:
    """The rows that differ most, with the start of their texts."""
    rows = [
        (
            _start(row.text if row.pair is None else f"{row.text} | {row.pair}"),
            str(row.row),
            row.truth,
            _answer(row.dense, row.dense_score),
            _answer(row.sparse, row.sparse_score),
        )
        for row in worst
    ]
    return ResultTable(
        columns=("rows whose scores differ most", "row", "truth", "dense", "sparse"),
        rows=rows,
    )


def _answer(answer: str, value: float) -> str:
    """A label with its score; a number alone."""
    return answer if answer == f"{value:.3f}" else f"{answer} {value:.2f}"


def _start(text: str) -> str:
    """The start of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_SHOWN else f"{line[: _TEXT_SHOWN - 3]}..."
