"""The order in which things that are compared take turns."""

from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.timing.rounds import interleave


def test_the_order_is_reversed_every_other_round() -> None:
    """Over two rounds each name is as often early as late."""
    assert list(interleave("abc", 3)) == [
        *((0, name) for name in "abc"),
        *((1, name) for name in "cba"),
        *((2, name) for name in "abc"),
    ]


@given(st.lists(st.text(), unique=True), st.integers(0, 9))
def test_every_name_is_visited_once_a_round(names: list[str], rounds: int) -> None:
    """No visit is missing and none comes twice."""
    visits = list(interleave(names, rounds))

    assert sorted(visits) == [(number, name) for number in range(rounds) for name in sorted(names)]


@given(st.lists(st.text(), min_size=1, unique=True), st.integers(1, 9))
def test_names_are_equally_early_over_an_even_number_of_rounds(names: list[str], half: int) -> None:
    """A drift that is linear in time adds the same to the sum of every name."""
    when = dict.fromkeys(names, 0)
    for position, (_, name) in enumerate(interleave(names, 2 * half)):
        when[name] += position

    assert len(set(when.values())) == 1
