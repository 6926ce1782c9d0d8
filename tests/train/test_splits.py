"""Rows set apart from train: the same ones every time, and never trained on."""

from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.tasks import TASKS
from spd_train.data.examples import Example
from spd_train.data.splits import read_data, set_apart


@given(count=st.integers(3, 300), share=st.floats(0, 0.99))
def test_rows_are_parted(count: int, share: float) -> None:
    """Every row is on one side, in its order; at least one is kept, and one is held if asked."""
    rows = [Example(text=str(i), label=0) for i in range(count)]

    kept, held = set_apart(rows, share)

    assert sorted([*kept, *held], key=lambda e: int(e.text)) == rows
    assert not {e.text for e in kept} & {e.text for e in held}
    assert [int(e.text) for e in kept] == sorted(int(e.text) for e in kept)
    assert len(kept) >= 1
    assert len(held) == (0 if share == 0 else min(count - 1, max(1, round(count * share))))
    assert set_apart(rows, share) == (kept, held)


def test_no_more_rows_are_held_than_tell_apart() -> None:
    """A large training set loses 2000 rows at most."""
    rows = [Example(text=str(i), label=0) for i in range(30_000)]

    assert len(set_apart(rows, 0.5)[1]) == 2000


def test_holding_out_changes_the_hash() -> None:
    """A run with other rows to choose on is another run; dev stays what it was."""
    task = TASKS["opinions"]

    whole, parted = read_data(task, None), read_data(task, None, holdout=0.1)

    assert whole.sha256 != parted.sha256
    assert whole.dev == parted.dev and not whole.holdout
    assert len(parted.train) + len(parted.holdout) == len(whole.train)
