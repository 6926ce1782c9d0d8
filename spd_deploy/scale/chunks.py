"""A long file as chunks: rows that are held in memory together, and sorted by length into batches.

A chunk ends where rows, tokens or characters reach a limit. It therefore depends on the rows from
its first one on, and on nothing else: a run that is resumed at the end of a chunk makes the same
chunks, the same batches and the same answers as one that was never stopped. A chunk of a pipe,
which cannot be resumed, also ends where no row comes for a while.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spd_deploy.domain.text import Tokens
from spd_deploy.scale.arriving_rows import arriving_groups, groups_of

if TYPE_CHECKING:
    from spd_train.data.broken_rows import BrokenRows
    from spd_train.data.rows import DataRow, Fault

# Long texts are many tokens, so that few are held beyond a chunk's limit.
_ENCODED_TOGETHER = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkLimits:
    """The largest chunk; its last row may exceed the limits of tokens and characters.

    Attributes:
        rows: enough for batches of alike lengths.
        tokens: after texts were cut, without padding.
        characters: of all text fields, so that long rows of few tokens are bounded too.
    """

    rows: int = 8192
    tokens: int = 1 << 18
    characters: int = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows that are answered together, in the order of the file.

    Attributes:
        rows: as the file has them, without broken ones.
        tokens: the token ids of each row.
        read: how many rows of the file came up to the end of this chunk, broken ones included.
        broken: the broken rows among those.
        last: whether the file has no row after them.
    """

    rows: Sequence["DataRow"]
    tokens: Sequence["Tokens"]
    read: int
    broken: "BrokenRows"
    last: bool = False


def chunks_of(
    rows: Iterable["DataRow"],
    encode: "Callable[[Sequence[DataRow]], Sequence[Tokens | Fault]]",
    *,
    skip_broken: bool,
    read: int,
    broken: "BrokenRows",
    limits: ChunkLimits,
    arriving: bool = False,
) -> Iterator[Chunk]:
    """Chunks of the rows, each made when it is asked for.

    Args:
        rows: those that were not read by an earlier run.
        encode: the token ids of each of some rows, or why it has none.
        skip_broken: leave broken rows out, instead of stopping at the first.
        read: rows that an earlier run has read.
        broken: the broken ones among those; the later ones are added.
        limits: what a chunk holds at most.
        arriving: whether the rows come through a pipe.

    Raises:
        BadData: a row is broken, and broken rows are not left out.
    """
    taken: list[tuple[DataRow, Tokens]] = []
    tokens = characters = 0
    full: Chunk | None = None
    for one in _encoded(rows, encode, arriving=arriving):
        if one is None:
            if full is not None:
                yield full
            if taken:
                yield _chunk(taken, read, broken)
            full, taken, tokens, characters = None, [], 0, 0
            continue
        row, found = one
        read += 1
        if not isinstance(found, Tokens) and skip_broken:
            broken.add(row, found)
            continue
        if full is not None:
            yield full
            full = None
        if not isinstance(found, Tokens):
            raise row.error(found, skippable=True)
        taken.append((row, found))
        tokens += found.n_read
        characters += sum(len(v) for v in row.fields.values() if isinstance(v, str))
        if len(taken) >= limits.rows or tokens >= limits.tokens or characters >= limits.characters:
            full = _chunk(taken, read, broken)
            taken, tokens, characters = [], 0, 0
    if full is not None:
        yield replace(full, read=read, broken=broken.copy(), last=True)
    elif taken:
        yield replace(_chunk(taken, read, broken), last=True)


def _encoded(
    rows: Iterable["DataRow"],
    encode: "Callable[[Sequence[DataRow]], Sequence[Tokens | Fault]]",
    *,
    arriving: bool,
) -> "Iterator[tuple[DataRow, Tokens | Fault] | None]":
    """Each row with its token ids, made for a few rows at once; None where a pipe pauses."""
    groups = arriving_groups if arriving else groups_of
    for some in groups(rows, _ENCODED_TOGETHER):
        if some:
            yield from zip(some, encode(some), strict=True)
        else:
            yield None


def _chunk(taken: "Sequence[tuple[DataRow, Tokens]]", read: int, broken: "BrokenRows") -> Chunk:
    """The chunk of some rows with their tokens."""
    return Chunk(
        rows=[row for row, _ in taken],
        tokens=[tokens for _, tokens in taken],
        read=read,
        broken=broken.copy(),
    )
