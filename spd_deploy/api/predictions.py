"""The answers of a model: one for each text, in the order of the texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from spd_deploy.api.display import Displayed, ResultTable, ResultView
from spd_deploy.domain.errors import BadData
from spd_deploy.domain.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spd_deploy.domain.long_texts import TextWindows
    from spd_deploy.domain.tasks import Task
    from spd_deploy.domain.text import Tokens
    from spd_deploy.sessions.open import OpenedModel
    from spd_train.data.examples import Example

_ROWS_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPrediction:
    """The answer for one text or pair.

    Attributes:
        label: the label; None for a regression, for several labels, and where the model abstains.
        score: the probability of that label; of several labels and where the model abstains, of the
            best one; for a regression, and for labels with an order, the predicted number.
        scores: the score of every label, best first; empty for labels with an order.
        truncated: whether the text was longer than the model reads, so that its end was cut; of a
            text that is read in windows, whether some of it is in none.
        labels: of a multi-label model every label that is given, best first; else None.
        abstained: whether the model gives no label since its score is too small; None for a model
            that never abstains.
        windows: how many windows of the text the model read; None where long texts are cut.
    """

    label: str | None
    score: float
    scores: Mapping[str, float]
    truncated: bool = False
    labels: tuple[str, ...] | None = None
    abstained: bool | None = None
    windows: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields of a line of ``spd predict``, scores unrounded."""
        read: dict[str, Any] = {"truncated": self.truncated}
        if self.windows is not None:
            read["windows"] = self.windows
        if self.labels is not None:
            return {"labels": list(self.labels), "scores": dict(self.scores), **read}
        if self.label is None and not self.abstained:
            return {"score": self.score, **read}
        return {
            "label": self.label,
            "score": self.score,
            **({"scores": dict(self.scores)} if self.scores else {}),
            **read,
            **({} if self.abstained is None else {"abstained": self.abstained}),
        }

    @property
    def shown(self) -> str:
        """The label or labels in words; ``-`` where there is none."""
        return ", ".join(self.labels or ()) or self.label or "-"

    def _repr_html_(self) -> str:
        """A row for each label, in a notebook."""
        scores = self.scores or {"score": self.score}
        rows = [(label, f"{value:.4f}") for label, value in scores.items()]
        cut = ("the text was cut: it is longer than the model reads",) if self.truncated else ()
        table = ResultTable(columns=("label", "score"), rows=rows)
        regression = self.label is None and self.labels is None and not self.abstained
        title = "score" if regression else self.shown
        return ResultView(title=title, tables=(table,), lines=cut).html()


class Predictions(Displayed, Sequence[TextPrediction]):
    """The answers for several texts, in their order.

    A slice is again ``Predictions``. ``labels`` and ``scores`` are plain lists, which pandas takes
    as columns: ``table["label"] = predictions.labels``.
    """

    __slots__ = ("_answers",)

    def __init__(self, answers: Sequence[TextPrediction]) -> None:
        self._answers = tuple(answers)

    @property
    def labels(self) -> list[str | None]:
        """The label of each text; None for a regression, and where the model abstains."""
        return [answer.label for answer in self._answers]

    @property
    def scores(self) -> list[float]:
        """The score of each text's best label; for a regression the predicted numbers."""
        return [answer.score for answer in self._answers]

    def to_json(self) -> list[dict[str, Any]]:
        """A dict for each text, such as ``pandas.DataFrame`` takes."""
        return [answer.to_json() for answer in self._answers]

    def view(self) -> ResultView:
        """The first answers, and how many more there are."""
        labelled = any(answer.shown != "-" for answer in self._answers)
        rows = [
            (str(i), *((answer.shown,) if labelled else ()), f"{answer.score:.4f}")
            for i, answer in enumerate(islice(self._answers, _ROWS_SHOWN))
        ]
        more = len(self._answers) - len(rows)
        columns = ("row", *(("label",) if labelled else ()), "score")
        return ResultView(
            title=f"{len(self._answers)} predictions",
            tables=(ResultTable(columns=columns, rows=rows),) if rows else (),
            lines=(f"and {more} more",) if more else (),
        )

    @overload
    def __getitem__(self, index: int) -> TextPrediction: ...
    @overload
    def __getitem__(self, index: slice) -> "Predictions": ...
    def __getitem__(self, index: int | slice) -> "TextPrediction | Predictions":
        """One answer, or the answers of a slice."""
        found = self._answers[index]
        return Predictions(found) if isinstance(found, tuple) else found

    def __len__(self) -> int:
        """How many texts were answered."""
        return len(self._answers)

    def __iter__(self) -> Iterator[TextPrediction]:
        """The answers in the order of the texts."""
        return iter(self._answers)

    def __eq__(self, other: object) -> bool:
        """Whether all answers are equal."""
        return isinstance(other, Predictions) and self._answers == other._answers

    def __hash__(self) -> int:
        """The hash of all answers; scores by label are a dict, which has none."""
        return hash(tuple((answer.label, answer.score) for answer in self._answers))


def predictions_for(
    opened: "OpenedModel", examples: "Sequence[Example]", progress: Progress
) -> Predictions:
    """One answer for each example, in order; texts of like lengths run together.

    Raises:
        BadData: a text holds only characters that the tokenizer drops.
    """
    from spd_deploy.sessions.offline import logits_of

    if not examples:
        return Predictions(())
    rows = [opened.tokenizer.encode(e.text, e.pair) for e in examples]
    for number, row in enumerate(rows, start=1):
        if row.empty:
            raise BadData(
                f"text {number} of {len(rows)} is empty",
                got="only characters that the tokenizer drops",
                fix="give some text, or leave it out",
            )
    with progress.stage("predict", len(rows)) as advance:
        logits_BC = logits_of(opened.session, opened.tokenizer, rows, advance)
    return Predictions(
        [
            prediction_of(opened.task, logits_C, row, windows=opened.tokenizer.windows)
            for row, logits_C in zip(rows, logits_BC, strict=True)
        ]
    )


def prediction_of(
    task: "Task",
    logits_C: "NDArray[np.float32]",
    row: "Tokens",
    *,
    windows: "TextWindows | None" = None,
) -> TextPrediction:
    """The answer that the logits of one row give; ``windows`` are those of its tokenizer.

    Raises:
        EngineFailed: the logits are not finite.
    """
    from spd_deploy.domain.answers import answers_of, decided_of

    answers = answers_of(task, logits_C)
    scores = {answer.label: answer.score for answer in answers}
    truncated, count = row.dropped > 0, None if windows is None else len(row.windows)
    if task.is_regression:
        return TextPrediction(
            label=answers[0].label if task.ordinal else None,
            score=answers[0].score,
            scores={} if task.ordinal else scores,
            truncated=truncated,
            windows=count,
        )
    decided = decided_of(task, logits_C)
    given = tuple(task.labels[i] for i in decided.given)
    several = task.is_multi_label
    return TextPrediction(
        label=None if several or decided.abstained else given[0],
        score=scores[task.labels[decided.best]],
        scores=scores,
        truncated=truncated,
        labels=given if several else None,
        abstained=decided.abstained if task.may_abstain else None,
        windows=count,
    )
