"""Buckets of shapes: each holds its batches, with little padding, and there are few."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.sessions.torch_network.buckets import bucket_for, rows_for


@given(st.integers(1, 5000), st.integers(1, 512))
def test_a_bucket_holds_its_batch(batch: int, seq: int) -> None:
    """With less than half again as many rows, and lengths in 16s."""
    found = bucket_for(batch, seq, positions=512)

    assert batch <= found.batch < 1.5 * batch or batch == found.batch
    assert seq <= found.seq < seq + 64
    assert found.seq % 16 == 0
    assert bucket_for(found.batch, found.seq, positions=512) == found


def test_there_are_few_buckets() -> None:
    """Of all batches up to 128 rows of up to 512 tokens."""
    found = {bucket_for(b, s, positions=512) for b in range(1, 129) for s in range(1, 513)}

    assert len(found) == len({rows_for(b) for b in range(1, 129)}) * 14
    assert len({rows_for(b) for b in range(1, 129)}) == 14


def test_what_is_measured_is_what_is_asked_for() -> None:
    """The usual shapes of a benchmark are buckets of their own: no padding is timed."""
    for batch in (1, 8, 32, 128):
        for seq in (32, 128, 384):
            found = bucket_for(batch, seq, positions=512)
            assert (found.batch, found.seq) == (batch, seq)


def test_no_bucket_is_longer_than_the_model() -> None:
    """The last one ends where the positions do; a batch beyond that is refused."""
    assert bucket_for(1, 499, positions=500).seq == 500

    with pytest.raises(EngineFailed, match="more tokens than the model has positions"):
        bucket_for(1, 501, positions=500)
