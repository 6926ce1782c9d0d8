"""Rows that cannot be used, counted by what is wrong with them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from spd_train.data.examples import Example
from spd_train.data.rows import DataRow, Fault


@dataclass(slots=True)
class BrokenRows:
    """The rows that were left out.

    Attributes:
        kinds: by what is wrong, how many rows, and where the first of them is.
    """

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, tuple[int, str]]) -> "BrokenRows":
        """The counts that were written as JSON."""
        return cls({kind: (count, place) for kind, (count, place) in value.items()})

    @property
    def count(self) -> int:
        """How many rows were left out."""
        return sum(count for count, _ in self.kinds.values())

    def add(self, row: DataRow, fault: Fault) -> None:
        """Count a row under its fault's kind, and keep its place if it is the first."""
        count, place = self.kinds.get(fault.kind, (0, row.place))
        self.kinds[fault.kind] = (count + 1, place)

    def copy(self) -> "BrokenRows":
        """The counts up to now."""
        return BrokenRows(dict(self.kinds))

    def __str__(self) -> str:
        """A sentence with each kind and its first row."""
        kinds = (f"{kind}: {count}, first {place}" for kind, (count, place) in self.kinds.items())
        return f"skipped {self.count} broken row{'s' * (self.count > 1)}: {'; '.join(kinds)}"


def each_usable_row(
    pairs: Iterable[tuple[DataRow, Example | Fault]],
    *,
    skip_broken: bool | None,
    broken: BrokenRows,
) -> Iterator[tuple[DataRow, Example]]:
    """The rows that give an example, with it, one after the other.

    Args:
        pairs: each row with its example or its fault.
        skip_broken: skip rows with a fault. None if the user has no such option.
        broken: counts the rows that are skipped.

    Raises:
        BadData: a row has a fault, and broken rows are not skipped.
    """
    for row, example in pairs:
        if isinstance(example, Example):
            yield row, example
        elif skip_broken:
            broken.add(row, example)
        else:
            raise row.error(example, skippable=skip_broken is not None)


def usable_rows(
    pairs: Iterable[tuple[DataRow, Example | Fault]],
    *,
    skip_broken: bool | None,
    note: Callable[[str], None],
) -> list[tuple[DataRow, Example]]:
    """All rows that give an example, with it; ``note`` is told how many were skipped.

    Raises:
        BadData: a row has a fault, and broken rows are not skipped.
    """
    broken = BrokenRows()
    usable = list(each_usable_row(pairs, skip_broken=skip_broken, broken=broken))
    if broken.count:
        note(str(broken))
    return usable
