"""Which buckets an engine has, and which of them a batch goes through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.tensorrt.shape_buckets import SubBatch, buckets_for, sub_batches_of

sizes = st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple)


def shape(batch: int, seq: int) -> Shape:
    return Shape(batch=batch, seq=seq)


BUCKETS = (shape(1, 32), shape(1, 128), shape(8, 32), shape(8, 128))


@given(batches=sizes, seqs=sizes, longest=st.integers(1, 80))
def test_the_longest_text_always_has_a_bucket(
    batches: tuple[int, ...], seqs: tuple[int, ...], longest: int
) -> None:
    """None is longer than the model reads, each comes once, and each batch has the longest."""
    buckets = buckets_for(batches, seqs, longest=longest)

    assert len(set(buckets)) == len(buckets)
    assert max(bucket.seq for bucket in buckets) == longest
    assert {b.batch for b in buckets if b.seq == longest} == set(batches)


@given(batches=sizes, seqs=sizes, rows=st.integers(0, 300), tokens=st.integers(1, 64))
def test_every_row_goes_through_once_in_a_bucket_that_holds_it(
    batches: tuple[int, ...], seqs: tuple[int, ...], rows: int, tokens: int
) -> None:
    """Turns follow on each other, none has more rows or tokens than its bucket."""
    buckets = buckets_for(batches, seqs, longest=64)

    turns = sub_batches_of(rows, tokens, buckets)

    assert [turn.start for turn in turns] == [0, *(turn.stop for turn in turns)][: len(turns)]
    assert (turns[-1].stop if turns else 0) == rows
    for turn in turns:
        assert 0 < turn.stop - turn.start <= buckets[turn.bucket].batch
        assert tokens <= buckets[turn.bucket].seq


@given(rows=st.integers(1, 8), tokens=st.integers(1, 128))
def test_the_smallest_bucket_is_taken(rows: int, tokens: int) -> None:
    """Of all that hold the batch, by brute force."""
    holding = [b for b in BUCKETS if b.batch >= rows and b.seq >= tokens]

    (turn,) = sub_batches_of(rows, tokens, BUCKETS)

    assert BUCKETS[turn.bucket].tokens == min(b.tokens for b in holding)


def test_many_rows_take_the_most_rows_at_a_time() -> None:
    """The rest goes through the smallest bucket that holds it."""
    assert sub_batches_of(17, 20, BUCKETS) == (
        SubBatch(bucket=2, start=0, stop=8),
        SubBatch(bucket=2, start=8, stop=16),
        SubBatch(bucket=0, start=16, stop=17),
    )


def test_a_text_that_no_bucket_holds_is_refused() -> None:
    """The error names what was got and what there is."""
    with pytest.raises(EngineFailed, match=r"got 129 tokens; it has 1x32, 1x128, 8x32, 8x128"):
        sub_batches_of(1, 129, BUCKETS)
