"""The columns of the output: a row's own fields, and behind them the fields of its answer.

What the fields are called is decided once, by the first chunk. A later row that would need other
columns, or that has a field called like one of the answer's, is refused by its place: a file whose
columns change in the middle has no table, and a renamed answer would be mistaken for the row's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from spd_deploy.domain.errors import BadData

if TYPE_CHECKING:
    from spd_deploy.api.predictions import TextPrediction
    from spd_train.data.rows import DataRow

# Of a score; more are not alike from one batch, machine or runtime to another.
_DIGITS = 6
_PREFIX = "predicted_"


def answer_fields(answer: "TextPrediction") -> dict[str, Any]:
    """The fields of one answer, its scores rounded; a regression has no label."""
    fields = answer.to_json()
    if "scores" in fields:
        fields["scores"] = {label: rounded(score) for label, score in answer.scores.items()}
    return {**fields, "score": rounded(answer.score)} if "score" in fields else fields


def flat_fields(
    answer: Mapping[str, Any], labels: Sequence[str], separator: str = "|"
) -> dict[str, Any]:
    """The answer with a column for the score of each label, in the model's order.

    Several labels are one text, with the separator between them.
    """
    scores = answer.get("scores", {})
    plain = {name: value for name, value in answer.items() if name != "scores"}
    if "labels" in plain:
        plain["labels"] = separator.join(plain["labels"])
    return {**plain, **{f"score_{label}": scores[label] for label in labels if label in scores}}


def rounded(score: float) -> float:
    """To the digits that mean something."""
    return float(f"{score:.{_DIGITS}g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerColumns:
    """The names of the fields of rows and answers in the output.

    Attributes:
        of_rows: the fields of the rows in the first chunk, in order.
        names: what each field of an answer is called.
        tabular: whether every row has the same columns; rows of JSON Lines need not.
    """

    of_rows: tuple[str, ...]
    names: Mapping[str, str]
    tabular: bool

    @classmethod
    def of(cls, rows: Iterable["DataRow"], answer: Mapping[str, Any], *, tabular: bool) -> Self:
        """The names of the first chunk: an answer's field that some row has gets a prefix.

        Raises:
            BadData: two columns of the file have one name, so that one of them would be lost.
        """
        rows = list(rows)
        _refuse_repeated(rows)
        first = tuple(dict.fromkeys(str(name) for row in rows for name in row.names))
        names = {}
        for name in answer:
            free = name
            while free in first:
                free = _PREFIX + free
            names[name] = free
        return cls(of_rows=first, names=names, tabular=tabular)

    @property
    def renamed(self) -> Mapping[str, str]:
        """The answer's fields that rows have too, with what they are called instead."""
        return {name: ours for name, ours in self.names.items() if ours != name}

    def refuse_other(self, rows: Iterable["DataRow"]) -> None:
        """Refuse rows of a later chunk with fields that the first chunk does not foresee.

        Raises:
            BadData: with the first such row.
        """
        known, answers = set(self.of_rows), set(self.names.values())
        for row in rows:
            if row.header is not None:  # the file's one header was there before
                return
            names = {str(name) for name in row.fields}
            if clash := names & answers:
                raise BadData(
                    f"{row.place}: the field {min(clash)!r} begins in this row",
                    got="the name of a field of the answer, which the rows before leave free",
                    fix="rename the field in the file",
                )
            if self.tabular and (more := names - known):
                raise BadData(
                    f"{row.place}: the field {min(more)!r} begins in this row, and a table has the "
                    "columns of its first rows",
                    got=f"columns {', '.join(self.of_rows)}",
                    fix="write the answers as .jsonl, or give every row the field",
                )

    def joined(self, row: "DataRow", answer: Mapping[str, Any]) -> dict[str, Any]:
        """The row's fields with the answer's behind them."""
        own = {str(name): value for name, value in row.fields.items()}
        return {**own, **{self.names[name]: value for name, value in answer.items()}}


def _refuse_repeated(rows: "Sequence[DataRow]") -> None:
    """Refuse a header with a name that occurs twice.

    Raises:
        BadData: with the name.
    """
    header = rows[0].header if rows else None
    if header is not None and len(set(header)) < len(header):
        name = next(name for name in header if header.count(name) > 1)
        raise BadData(f"{rows[0].file}: column {name!r} occurs twice", fix="rename one of them")
