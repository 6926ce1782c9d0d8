"""The choice of a batch: its laws, over all queues that hypothesis thinks of."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from serve.batching import next_batch, padded_tokens


@dataclass(frozen=True, eq=False)
class Row:
    """A row in the queue."""

    tokens: int
    cancelled: bool = False
    turn: float = 0.0


QUEUES = st.lists(
    st.builds(Row, st.integers(2, 40), st.booleans(), st.integers(0, 60)), max_size=20
)
ROWS = st.integers(1, 8)


@given(QUEUES, st.integers(1, 200), ROWS)
def test_no_row_is_lost_or_doubled(queue: list[Row], budget: int, most: int) -> None:
    """Chosen and left rows together are the rows whose client is there, each once and in order."""
    rows, left = next_batch(queue, max_padded_tokens=budget, max_rows=most)

    place = {id(row): i for i, row in enumerate(queue)}
    live = [row for row in queue if not row.cancelled]
    assert sorted(map(id, rows + left), key=place.__getitem__) == list(map(id, live))
    assert rows == sorted(rows, key=lambda row: place[id(row)])
    assert left == sorted(left, key=lambda row: place[id(row)])


@given(QUEUES, st.integers(40, 200), ROWS)
def test_a_batch_is_within_its_limits(queue: list[Row], budget: int, most: int) -> None:
    """No batch has more rows or more padded tokens than it may."""
    rows, _ = next_batch(queue, max_padded_tokens=budget, max_rows=most)

    assert len(rows) <= most
    assert not rows or padded_tokens(rows) <= budget


def by_turn(rows: list[Row]) -> list[Row]:
    """The rows in the order of their turns; of equal turns, the older one first."""
    return sorted(rows, key=lambda row: row.turn)


@given(QUEUES, st.integers(1, 200), ROWS)
def test_the_row_whose_turn_it_is_runs(queue: list[Row], budget: int, most: int) -> None:
    """The row with the smallest turn runs now, so that nobody waits for ever."""
    rows, _ = next_batch(queue, max_padded_tokens=budget, max_rows=most)

    live = by_turn([row for row in queue if not row.cancelled])
    assert by_turn(rows)[:1] == live[:1]


@given(QUEUES, st.integers(1, 200), ROWS)
def test_no_row_waits_longer_than_its_place(queue: list[Row], budget: int, most: int) -> None:
    """Without newcomers, the row at place n by turn runs with the n-th batch or before."""
    left = [row for row in queue if not row.cancelled]
    place = {id(row): i for i, row in enumerate(by_turn(left))}
    batch = 0
    while left:
        rows, left = next_batch(left, max_padded_tokens=budget, max_rows=most)
        assert all(batch <= place[id(row)] for row in rows)
        batch += 1


@given(st.integers(2, 40), st.integers(1, 12), st.integers(40, 200), ROWS)
def test_rows_of_one_length_fill_the_batch(tokens: int, count: int, budget: int, most: int) -> None:
    """Where nothing is padded, as many rows run as the limits allow."""
    queue = [Row(tokens) for _ in range(count)]

    rows, _ = next_batch(queue, max_padded_tokens=budget, max_rows=most)

    assert len(rows) == min(count, most, budget // tokens)


@given(QUEUES, st.integers(40, 400), st.integers(1, 20))
def test_padding_never_outweighs_the_rows(queue: list[Row], budget: int, most: int) -> None:
    """At least half of a batch is real tokens: no row brings more padding than its own tokens."""
    rows, _ = next_batch(queue, max_padded_tokens=budget, max_rows=most)

    assert not rows or padded_tokens(rows) <= 2 * sum(row.tokens for row in rows)


def test_a_short_row_does_not_wait_for_a_long_one() -> None:
    """A long row that came with short ones gets a batch of its own."""
    short, long, other = Row(4), Row(40), Row(5)

    rows, left = next_batch([short, long, other], max_padded_tokens=1000, max_rows=8)

    assert rows == [short, other]
    assert left == [long]
