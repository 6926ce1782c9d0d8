"""Tasks: their texts, labels, kinds of answer, official metrics, and files.

The nine GLUE tasks are here by name with the columns of GLUE's own files and of the Hugging Face
hub's copy; the two built-in synthetic tasks have no files; a user's own task is made from the
column names given on the command line (:func:`own_task`). A task travels inside every checkpoint
and artefact, so nobody has to name it twice.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from spd_deploy.domain.decision import Decision
from spd_deploy.domain.errors import BadCheckpoint, BadSetting, UnknownTask
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.trained_rows import TrainedRows


class ProblemType(StrEnum):
    """The meaning of a model's outputs; the values are those of Hugging Face's ``config.json``."""

    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"
    REGRESSION = "regression"


class Activation(StrEnum):
    """How logits become scores; ``none`` gives the logits themselves."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


# What a task is scored by that has no official metrics; the first is the headline.
DEFAULT_METRICS: Mapping[ProblemType, tuple[str, ...]] = {
    ProblemType.SINGLE_LABEL: ("accuracy", "macro_f1"),
    ProblemType.MULTI_LABEL: ("micro_f1", "macro_f1", "mean_average_precision"),
    ProblemType.REGRESSION: ("pearson", "spearman"),
}
ORDINAL_METRICS = ("accuracy", "quadratic_kappa", "mean_absolute_error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Where a row keeps its text, the second text of a pair, and its label.

    A name refers to the header; a whole number, in GLUE files that have none, to a position.
    """

    text: str | int
    pair: str | int | None = None
    label: str | int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One classification or regression task.

    Attributes:
        labels: class names in the order of the model's outputs; empty for a regression, unless
            ``sigmoid`` is set.
        metrics: names known to ``domain.metrics``; the first is the headline.
        columns: where the files in GLUE's layout, or the user's own files, keep the fields.
        label_values: how the files spell the labels, where that differs from ``labels``.
        files: the file names of each split that GLUE's layout has; empty for other tasks.
        hub: the columns and configuration name of the hub's copy; None for other tasks.
        trained_on: the rows that a model of this task was trained on, where that is recorded.
        sigmoid: whether the only output is read as a probability. A cross-encoder is such a
            model: its config.json has one label and names no problem type.
        decision: how labels follow from scores, where it is not the label with the largest score.
        separator: what stands between the labels of a row in a text file, of a multi-label task.
        ordinal: of a regression whose number is rounded to a label, the labels from the lowest to
            the highest (:mod:`spd_deploy.domain.ordinal`).
        windows: how a model of this task reads long texts, as in training or when it was
            calibrated; None where they are cut.
    """

    name: str
    labels: tuple[str, ...]
    problem_type: ProblemType
    metrics: tuple[str, ...]
    columns: Columns
    label_values: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hub: Columns | None = None
    trained_on: TrainedRows | None = field(default=None, repr=False)
    sigmoid: bool = False
    decision: Decision = field(default_factory=Decision)
    separator: str = "|"
    ordinal: tuple[str, ...] = ()
    windows: TextWindows | None = None

    @property
    def has_pair(self) -> bool:
        """Whether a row carries two texts."""
        return self.columns.pair is not None

    @property
    def is_regression(self) -> bool:
        """Whether the answer is a number."""
        return self.problem_type is ProblemType.REGRESSION

    @property
    def is_multi_label(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.problem_type is ProblemType.MULTI_LABEL

    @property
    def names(self) -> tuple[str, ...]:
        """The labels that a text may be given; none where the answer is a number."""
        return self.ordinal if self.is_regression else self.labels

    @property
    def chosen_by(self) -> tuple[str, ...]:
        """The metrics of which the mean chooses the best checkpoint.

        GLUE averages a task's metrics in the same way. The metrics of several labels and of ordered
        ones say the same of a model, so the first counts alone.
        """
        return self.metrics[:1] if self.is_multi_label or self.ordinal else self.metrics

    @property
    def may_abstain(self) -> bool:
        """Whether a text may get no label since no score is large enough."""
        if self.problem_type is not ProblemType.SINGLE_LABEL:
            return False
        bounded = self.decision.thresholds.keys() >= set(self.labels)
        return bounded or self.decision.abstain_below is not None

    @property
    def outputs(self) -> int:
        """How many numbers the model answers with."""
        return 1 if self.is_regression else len(self.labels)

    @property
    def activation(self) -> Activation:
        """The function from logits to scores, as in Transformers' text-classification pipeline."""
        match self.problem_type:
            case ProblemType.REGRESSION:
                return Activation.SIGMOID if self.sigmoid else Activation.NONE
            case ProblemType.MULTI_LABEL:
                return Activation.SIGMOID
            case ProblemType.SINGLE_LABEL:
                return Activation.SOFTMAX

    def to_json(self) -> dict[str, Any]:
        """The task as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadCheckpoint: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                name=str(value["name"]),
                labels=tuple(map(str, value["labels"])),
                problem_type=ProblemType(value["problem_type"]),
                metrics=tuple(map(str, value["metrics"])),
                columns=Columns(**value["columns"]),
                label_values=dict(value["label_values"]),
                files={split: tuple(names) for split, names in value["files"].items()},
                hub=None if value["hub"] is None else Columns(**value["hub"]),
                trained_on=TrainedRows.from_json(value.get("trained_on")),
                # Older files have none of these.
                sigmoid=bool(value.get("sigmoid", False)),
                decision=Decision.from_json(value.get("decision") or {}, value["labels"]),
                separator=str(value.get("separator", "|")),
                ordinal=tuple(map(str, value.get("ordinal", ()))),
                windows=TextWindows.from_json(value.get("windows")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, BadSetting) as err:
            raise BadCheckpoint(
                "the description of the task is damaged", got=repr(err), fix="make it anew"
            ) from err


def own_task(
    *,
    text_column: str,
    pair_column: str | None,
    label_column: str | None,
    labels: tuple[str, ...],
    name: str = "own",
    separator: str | None = None,
    ordinal: tuple[str, ...] = (),
) -> Task:
    """A task over the user's own files.

    Without ``labels`` it is a regression, and with a ``separator`` a row may have several labels.
    ``ordinal`` are the labels that the number of a regression is rounded to.
    """
    kind = ProblemType.SINGLE_LABEL if labels else ProblemType.REGRESSION
    if separator is not None:
        kind = ProblemType.MULTI_LABEL
    return Task(
        name=name,
        labels=labels,
        problem_type=kind,
        metrics=ORDINAL_METRICS if ordinal else DEFAULT_METRICS[kind],
        columns=Columns(text=text_column, pair=pair_column, label=label_column),
        separator=separator or "|",
        ordinal=ordinal,
    )


def task_named(name: str) -> Task:
    """The GLUE or built-in task of this name; ``SST-2``, ``sst_2`` and ``sst2`` are one.

    Raises:
        UnknownTask: no task has this name.
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in TASKS:
        raise UnknownTask(
            "unknown task",
            got=repr(name),
            fix=f"use one of {', '.join(TASKS)}, or your own data with --text-column",
        )
    return TASKS[key]


def _glue(
    name: str,
    columns: Columns,
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    hub: Columns,
    *,
    label_values: Mapping[str, str] | None = None,
    dev: tuple[str, ...] = ("dev.tsv",),
    test: tuple[str, ...] = ("test.tsv",),
) -> Task:
    """One GLUE task; without labels it is a regression."""
    return Task(
        name=name,
        labels=labels,
        problem_type=ProblemType.SINGLE_LABEL if labels else ProblemType.REGRESSION,
        metrics=metrics,
        columns=columns,
        label_values=label_values or {},
        files={"train": ("train.tsv",), "dev": dev, "test": test},
        hub=hub,
    )


def _zero_one(zero: str, one: str) -> dict[str, str]:
    """Files that spell two labels as 0 and 1."""
    return {"0": zero, "1": one}


def _hub(text: str, pair: str | None = None) -> Columns:
    """The hub's columns; its label column is always ``label``."""
    return Columns(text=text, pair=pair, label="label")


_SENTENCES = Columns(text="sentence1", pair="sentence2", label="label")
_ENTAILS = ("entailment", "not_entailment")

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        _glue(
            "cola",
            Columns(text=3, label=1),
            ("unacceptable", "acceptable"),
            ("matthews",),
            _hub("sentence"),
            label_values=_zero_one("unacceptable", "acceptable"),
        ),
        _glue(
            "sst2",
            Columns(text="sentence", label="label"),
            ("negative", "positive"),
            ("accuracy",),
            _hub("sentence"),
            label_values=_zero_one("negative", "positive"),
        ),
        _glue(
            "mrpc",
            Columns(text="#1 String", pair="#2 String", label="Quality"),
            ("not_equivalent", "equivalent"),
            ("f1", "accuracy"),
            _hub("sentence1", "sentence2"),
            label_values=_zero_one("not_equivalent", "equivalent"),
        ),
        _glue(
            "stsb",
            Columns(text="sentence1", pair="sentence2", label="score"),
            (),
            ("pearson", "spearman"),
            _hub("sentence1", "sentence2"),
        ),
        _glue(
            "qqp",
            Columns(text="question1", pair="question2", label="is_duplicate"),
            ("not_duplicate", "duplicate"),
            ("f1", "accuracy"),
            _hub("question1", "question2"),
            label_values=_zero_one("not_duplicate", "duplicate"),
        ),
        _glue(
            "mnli",
            Columns(text="sentence1", pair="sentence2", label="gold_label"),
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            _hub("premise", "hypothesis"),
            dev=("dev_matched.tsv", "dev_mismatched.tsv"),
            test=("test_matched.tsv", "test_mismatched.tsv"),
        ),
        _glue(
            "qnli",
            Columns(text="question", pair="sentence", label="label"),
            _ENTAILS,
            ("accuracy",),
            _hub("question", "sentence"),
        ),
        _glue("rte", _SENTENCES, _ENTAILS, ("accuracy",), _hub("sentence1", "sentence2")),
        _glue(
            "wnli",
            _SENTENCES,
            ("not_entailment", "entailment"),
            ("accuracy",),
            _hub("sentence1", "sentence2"),
            label_values=_zero_one("not_entailment", "entailment"),
        ),
        Task(
            name="opinions",
            labels=("negative", "positive"),
            problem_type=ProblemType.SINGLE_LABEL,
            metrics=("accuracy",),
            columns=Columns(text="text", label="label"),
        ),
        Task(
            name="agreement",
            labels=("disagrees", "agrees"),
            problem_type=ProblemType.SINGLE_LABEL,
            metrics=("accuracy",),
            columns=Columns(text="text", pair="pair", label="label"),
        ),
    )
}

BUILT_IN = ("opinions", "agreement")
