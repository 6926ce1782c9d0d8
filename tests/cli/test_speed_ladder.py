"""The speed-ups of a family: what no structures reach is known before anything is trained."""

import pytest

from spd_deploy.cli.options.speed_options import LADDER, reachable_speedups
from spd_deploy.domain.errors import BadSetting
from tests.train.latency import latency_table


def test_the_ladder_of_max_drop_ends_at_what_can_be_reached() -> None:
    """Steps beyond the fastest model of the table are left out, and the user is told which."""
    table, notes = latency_table(base_s=4e-3), list[str]()
    fastest = table.fastest_speedup
    assert LADDER[0] < fastest < LADDER[-1]

    found = reachable_speedups({"speedups": None, "max_drop": 1.0}, table, notes.append)

    assert found == tuple(step for step in LADDER if step < fastest)
    (note,) = notes
    assert all(f"{step:g}" in note for step in LADDER if step >= fastest)


def test_a_speed_up_that_was_named_is_not_left_out() -> None:
    """The last of a list is refused before the first is trained."""
    table = latency_table()
    named = (1.5, table.fastest_speedup + 1)

    with pytest.raises(BadSetting, match="no structured model of this size is so much faster"):
        reachable_speedups({"speedups": named, "max_drop": None}, table, lambda _: None)
    assert reachable_speedups({"speedups": (1.5,), "max_drop": None}, table, print) == (1.5,)
