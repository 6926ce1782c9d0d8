"""The texts that ``Model.predict`` takes: one, many, pairs, columns, rows or a whole table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Columns, Task

if TYPE_CHECKING:
    from spd_train.data.examples import Example

# The fields of a row, as ``spd predict --input`` and the server name them.
_TEXT, _PAIR = "text", "text_pair"
_FORMS = (
    "give a text, a list or column of texts, a list of (text, pair) tuples or of "
    '{"text": ..., "text_pair": ...} rows, two columns, or a table'
)


class TextTable(Protocol):
    """Columns by name, as a pandas, Polars or Arrow table and a dict of lists have them."""

    def __getitem__(self, name: Any, /) -> Any: ...


def examples_from(
    task: Task, texts: object, pairs: object = None, *, columns: Columns | None = None
) -> "list[Example]":
    """The texts as the rows of one task, each checked.

    Args:
        task: says whether a row is one text or two; an unknown task takes either.
        texts: a text, an iterable of texts, pairs or rows, or a table.
        pairs: the second text of each row, where ``texts`` are the first ones.
        columns: where a table keeps its texts, where it names no column ``text``.

    Raises:
        BadData: what is no text, a text without its pair, a pair where one text is read, an empty
            text, or a table without the column.
    """
    from spd_train.data.examples import Example

    rows = list(_rows(texts, pairs, columns or task.columns, task))
    for number, (text, pair) in enumerate(rows, start=1):
        _refuse_unfit(task, text, pair, f"text {number} of {len(rows)}")
    return [Example(text=text, pair=pair) for text, pair in rows]


def _rows(texts: object, pairs: object, columns: Columns, task: Task) -> Iterable[tuple[Any, Any]]:
    """Each row's text and pair, unchecked."""
    if isinstance(texts, str):
        return [(texts, pairs)]
    if _is_table(texts):
        if pairs is not None:
            raise BadData("a table holds the pairs itself", fix="leave the second argument out")
        return _rows_of_table(texts, columns, task)
    firsts = _listed(texts)
    if pairs is None:
        return [_row(first, columns) for first in firsts]
    seconds = _listed(pairs)
    if len(firsts) != len(seconds):
        raise BadData(
            "texts and pairs must be equally many",
            got=f"{len(firsts)} texts and {len(seconds)} pairs",
            fix="give one second text for each first one",
        )
    return list(zip(firsts, seconds, strict=True))


def _row(value: object, columns: Columns) -> tuple[Any, Any]:
    """One item: a text, a row by column names, or a pair."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, Mapping):
        if _TEXT in value:
            return value[_TEXT], value.get(_PAIR)
        return value.get(columns.text), value.get(columns.pair)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        parts = list(value)
        if len(parts) == 2:
            return parts[0], parts[1]
    return value, None


def _rows_of_table(table: TextTable, columns: Columns, task: Task) -> Iterable[tuple[Any, Any]]:
    """The rows of the columns ``text`` and ``text_pair``, else of those the model was trained on.

    A column of a second text is read only for a task of pairs, as ``spd predict --input`` does.
    """
    names = _names_of(table)
    ours = _TEXT in names
    text: str | int = _TEXT if ours else columns.text
    pair: str | int | None = _PAIR if ours else columns.pair
    paired = task.has_pair or (task.name == "unknown" and pair in names)
    wanted = [text, *([pair] if paired else [])]
    if missing := [name for name in wanted if name not in names]:
        raise BadData(
            f"the table has no column {missing[0]!r}",
            got=", ".join(map(str, names)) or "no columns",
            fix="give the columns themselves: predict(table[TEXT])"
            + (" or predict(table[TEXT], table[PAIR])" if task.has_pair else ""),
        )
    firsts = _listed(table[text])
    return zip(firsts, _listed(table[pair]) if paired else [None] * len(firsts), strict=True)


def _is_table(value: object) -> TypeGuard[TextTable]:
    """Whether the value has named columns."""
    if isinstance(value, Mapping):
        return True
    return hasattr(value, "columns") and hasattr(value, "__getitem__")


def _names_of(table: TextTable) -> list[Any]:
    """The names of a table's columns; Arrow keeps the columns themselves in ``columns``."""
    if isinstance(table, Mapping):
        return list(table)
    return list(getattr(table, "column_names", None) or cast("Any", table).columns)


def _listed(values: object) -> list[Any]:
    """A list, column, array or generator as a list; Arrow's cells become strings.

    Raises:
        BadData: it is none of these.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise BadData("these are not texts", got=_shown(values), fix=_FORMS)
    to_pylist = getattr(values, "to_pylist", None)
    return list(to_pylist() if to_pylist is not None else values)


def _refuse_unfit(task: Task, text: object, pair: object, which: str) -> None:
    """Refuse one row that the task cannot answer.

    Raises:
        BadData: with the row's number.
    """
    either = task.name == "unknown"
    for value in (text, *([pair] if pair is not None else [])):
        if not isinstance(value, str):
            raise BadData(f"{which} is not a string", got=_shown(value), fix=_FORMS)
        if not value.strip():
            raise BadData(f"{which} is empty", fix="give some text, or leave it out")
    if task.has_pair and pair is None and not either:
        raise BadData(
            f"{task.name} compares two texts, and {which} has no second one",
            got=_shown(text),
            fix="give (text, pair) tuples, or two columns: predict(texts, pairs)",
        )
    if not task.has_pair and pair is not None and not either:
        raise BadData(
            f"{task.name} reads one text, and {which} is a pair",
            got=_shown(pair),
            fix="give each text alone",
        )


def _shown(value: object) -> str:
    """A value for an error, cut, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


Texts = (
    Iterable[str]
    | Iterable[Sequence[str]]
    | Iterable[Mapping[str, str]]
    | Mapping[str, Iterable[str]]
    | TextTable
)
