"""The labels that a file of the user's own holds, and whether a row has one of them or several."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from spd_deploy.domain.errors import BadData
from spd_train.data.examples import Note
from spd_train.data.labels import Cell, split_labels
from spd_train.data.rows import DataRow, Fault

# What may stand between the labels of a cell, if --label-separator does not say.
SEPARATORS = ("|", ";", ",")


@dataclass(kw_only=True, slots=True)
class FoundLabels:
    """The label cells of a file, counted by what they hold.

    Attributes:
        column: the column they stand in.
        texts: by text, the rows with it; of several labels the text holds them all.
        listed: by label, the rows with it in a list.
        likely: by label, the rows that give it a probability.
        lists: number of rows with a list.
        soft: number of rows with probabilities.
    """

    column: str
    texts: Counter[str] = field(default_factory=Counter)
    listed: Counter[str] = field(default_factory=Counter)
    likely: Counter[str] = field(default_factory=Counter)
    lists: int = 0
    soft: int = 0

    def add(self, row: DataRow, cell: Cell) -> None:
        """Count the cell of a row.

        Raises:
            BadData: some rows have a list, and others a text.
        """
        match cell:
            case str():
                self.texts[cell] += 1
            case tuple():
                self.listed.update(cell)
                self.lists += 1
            case _:
                self.likely.update(cell.keys())
                self.soft += 1
        if self.lists and self.texts:
            fault = Fault(
                kind=f"column {self.column!r} holds lists of labels in some rows, texts in others",
                got=repr(cell)[:80],
                fix='write a list in every row, such as ["a"], or [] for no label',
            )
            raise row.error(fault, skippable=False)

    @property
    def rows(self) -> int:
        """Number of rows that were counted."""
        return self.texts.total() + self.lists + self.soft

    def counts(self, separator: str | None) -> Counter[str]:
        """The rows of each label; with a separator the texts are parted there."""
        found = self.listed + self.likely
        for text, rows in self.texts.items():
            names = (text,) if separator is None else set(split_labels(text, separator))
            found.update(dict.fromkeys(names, rows))
        return found

    def separator(self, wanted: str | None, note: Note) -> str:
        """The separator of the labels in a text, where a row has several.

        Of lists it is what no label holds, for answers that are written as text.

        Args:
            wanted: what the user says.
            note: is told what was found.

        Raises:
            BadData: nothing tells the separator, or two things do.
        """
        if wanted is not None:
            return wanted
        held = [s for s in SEPARATORS if any(s in text for text in (*self.texts, *self.listed))]
        if not self.texts:
            return next((s for s in SEPARATORS if s not in held), SEPARATORS[0])
        if len(held) == 1:
            note(f"labels of a row in column {self.column!r} are separated by {held[0]!r}")
            return held[0]
        if not held:
            raise BadData(
                f"no row has several labels in column {self.column!r}",
                got=f"one in each row, such as {next(iter(self.texts))[:40]!r}",
                fix="leave --multi-label out, or name what stands between two labels with "
                "--label-separator",
            )
        raise BadData(
            f"labels in column {self.column!r} may be separated by {' or '.join(map(repr, held))}",
            got=repr(next(text for text in self.texts if held[0] in text)[:80]),
            fix="name what stands between two labels with --label-separator",
        )


def parted_labels(counts: Mapping[str, int]) -> str | None:
    """A label that looks like several, such as ``a|b`` beside ``a`` and ``b``; None without one."""
    for separator in SEPARATORS[:2]:
        parts = Counter(part for label in counts for part in set(split_labels(label, separator)))
        for label in counts:
            own = split_labels(label, separator)
            if len(own) > 1 and all(parts[part] > 1 for part in own):
                return label
    return None
