"""How results look: aligned text in a Python shell, tables with escaped HTML in a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spd_deploy.domain.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultTable:
    """Text under column names; the first column is aligned to the left, the others to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultView:
    """What a result shows: a title, facts by name, tables, and lines of text below them."""

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[ResultTable] = ()
    lines: Sequence[str] = ()

    def text(self) -> str:
        """Plain text, without a trailing newline."""
        width = max(map(len, self.facts), default=0)
        facts = [f"  {name:<{width}}  {value}" for name, value in self.facts.items()]
        tables = chain.from_iterable(("", *_text_of(table)) for table in self.tables)
        below = ["", *self.lines] if self.lines else []
        return "\n".join((self.title, *facts, *tables, *below))

    def html(self) -> str:
        """One ``div``; all text is escaped."""
        facts = ResultTable(columns=(), rows=list(self.facts.items()))
        parts = [
            f"<p><strong>{escape(self.title)}</strong></p>",
            *([_html_of(facts)] if self.facts else []),
            *map(_html_of, self.tables),
            *(f"<p>{escape(line)}</p>" for line in self.lines),
        ]
        return f"<div>{''.join(parts)}</div>"


class Displayed(ABC):
    """A result with a readable ``repr``, and with tables in a notebook."""

    __slots__ = ()

    @abstractmethod
    def view(self) -> ResultView:
        """The title, facts and tables that stand for it in a shell and in a notebook."""

    def __repr__(self) -> str:
        """The view as text."""
        return self.view().text()

    def _repr_html_(self) -> str:
        """The view in a notebook."""
        return self.view().html()


class SavedResult(Displayed):
    """A result that is saved in a folder, and can be handed on as the path of it."""

    __slots__ = ()

    @property
    @abstractmethod
    def path(self) -> Path:
        """The folder, for ``open`` and the functions of this package."""

    def __fspath__(self) -> str:
        """The path as a string, which makes the result an ``os.PathLike``."""
        return str(self.path)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class CheckpointResult(SavedResult):
    """A result that is a checkpoint.

    Attributes:
        checkpoint: the model with its scores.
        notes: messages of the run.
    """

    checkpoint: "Checkpoint"
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The checkpoint's folder, a Hugging Face folder with an ``spd.json``."""
        return self.checkpoint.folder


def facts_of(checkpoint: "Checkpoint") -> dict[str, str]:
    """Pattern, density and folder of a checkpoint."""
    pattern = checkpoint.pattern
    if pattern is None:
        return {"pattern": "dense: no weight is zero", "saved": str(checkpoint.folder)}
    return {
        "pattern": f"{pattern} at {pattern.sparsity:.0%}",
        "density": f"{checkpoint.density:.3f} of the encoder's weights",
        "saved": str(checkpoint.folder),
    }


def scores_table(checkpoint: "Checkpoint") -> ResultTable:
    """The metrics of the dense and the sparse model on the same rows."""
    metrics = list(dict.fromkeys(name for found in checkpoint.scores.values() for name in found))
    rows = [
        (owner, *(score(found.get(name)) for name in metrics))
        for owner, found in checkpoint.scores.items()
    ]
    return ResultTable(
        title=f"scores on {checkpoint.split}" if rows else "no scores",
        columns=("model", *metrics),
        rows=rows,
    )


def score(value: float | None) -> str:
    """A metric in four digits; ``-`` where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def _text_of(table: ResultTable) -> list[str]:
    """The lines of a table."""
    rows = [list(table.columns), *map(list, table.rows)] if table.columns else list(table.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*([table.title] if table.title else []), *lines]


def _html_of(table: ResultTable) -> str:
    """The table as an HTML ``table`` with escaped cells."""
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    thead = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<table>{caption}{thead}<tbody>{body}</tbody></table>"
