"""Chunks of a long file: bounded, in order, and the same wherever a run begins."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.text import Tokens
from spd_deploy.scale.chunks import Chunk, ChunkLimits, chunks_of
from spd_train.data.broken_rows import BrokenRows
from spd_train.data.rows import DataRow, Fault

BROKEN = Fault(kind="empty text")
LENGTHS = st.lists(st.integers(0, 9), max_size=40)
LIMITS = st.builds(
    ChunkLimits,
    rows=st.integers(1, 8),
    tokens=st.integers(1, 30),
    characters=st.integers(1, 30),
)


def chunks(
    lengths: Sequence[int], limits: ChunkLimits, *, read: int = 0, broken: BrokenRows | None = None
) -> list[Chunk]:
    """The chunks of rows with as many tokens and characters; a row of none is broken."""
    rows = [
        DataRow(file=Path("x.jsonl"), line=i + 1, fields={"text": "x" * length})
        for i, length in enumerate(lengths)
    ]

    def encode(rows: Sequence[DataRow]) -> list[Tokens | Fault]:
        lengths = [len(row.fields["text"]) for row in rows]
        return [Tokens(ids=(1,) * n, types=(0,) * n) if n else BROKEN for n in lengths]

    return list(
        chunks_of(
            rows[read:],
            encode,
            skip_broken=True,
            read=read,
            broken=broken or BrokenRows(),
            limits=limits,
        )
    )


@given(LENGTHS, LIMITS)
def test_chunks_hold_each_sound_row_once_in_order(lengths: list[int], limits: ChunkLimits) -> None:
    """Joined they are the file without its broken rows, and the last one alone is called so."""
    found = chunks(lengths, limits)

    lines = [row.line for chunk in found for row in chunk.rows]
    assert lines == [i + 1 for i, length in enumerate(lengths) if length]
    assert [chunk.last for chunk in found] == [False] * (len(found) - 1) + [True] * bool(found)
    if found:
        assert found[-1].read == len(lengths)
        assert found[-1].broken.count == lengths.count(0)


@given(LENGTHS, LIMITS)
def test_no_chunk_exceeds_a_limit_but_by_its_last_row(
    lengths: list[int], limits: ChunkLimits
) -> None:
    """Rows, tokens and characters are bounded, whatever the rows are like."""
    for chunk in chunks(lengths, limits):
        before = chunk.tokens[:-1]
        assert len(chunk.rows) <= limits.rows
        assert sum(map(len, before)) < limits.tokens
        assert sum(len(row.fields["text"]) for row in chunk.rows[:-1]) < limits.characters


@given(LENGTHS, LIMITS, st.data())
def test_chunks_are_the_same_from_the_end_of_any(
    lengths: list[int], limits: ChunkLimits, data: st.DataObject
) -> None:
    """What follows a chunk does not depend on what came before it."""
    whole = chunks(lengths, limits)
    if not whole:
        return
    i = data.draw(st.integers(0, len(whole) - 1))

    rest = chunks(lengths, limits, read=whole[i].read, broken=whole[i].broken.copy())

    assert rest == whole[i + 1 :]
