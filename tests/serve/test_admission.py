"""Who may come in: the laws of the count, and of the seconds after which to come again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.admission import Admission, Load, has_room
from serve.retry_after import retry_after_s
from spd_deploy.domain.errors import Overloaded, TextTooLong

LOADS = st.builds(Load, st.integers(0, 50), st.integers(0, 500), st.integers(0, 900))


def admission(items: int = 4, tokens: int = 100, seconds: float = 0.0) -> Admission:
    return Admission(Load(items, tokens), max_row_tokens=50, seconds_per_token=lambda: seconds)


@given(LOADS, LOADS)
def test_an_idle_server_takes_any_request(asked: Load, limit: Load) -> None:
    """A request larger than the whole limit is taken where nothing else is in the house."""
    assert has_room(Load(), asked, limit)


@given(LOADS, LOADS, LOADS)
def test_a_busy_server_stays_within_its_limit(held: Load, asked: Load, limit: Load) -> None:
    """What is taken beside others keeps items and tokens within the limit."""
    if held.items and has_room(held, asked, limit):
        both = held + asked
        assert both.items <= limit.items
        assert both.tokens <= limit.tokens
        assert both.chars <= limit.chars


@given(st.integers(0, 600), st.integers(2, 64))
def test_requests_of_many_texts_leave_room_for_a_single_one(held: int, asked: int) -> None:
    """Wherever one of several texts is taken, a single text is too, until all is full."""
    limit = Load(512, 512_000, 512_000)

    taken = has_room(Load(held), Load(asked), limit)

    assert taken == (held == 0 or held + asked <= 448)
    assert has_room(Load(held), Load(1), limit) == (held < 512)


@given(LOADS, LOADS)
def test_adding_and_taking_away_cancel(one: Load, other: Load) -> None:
    """What comes and goes leaves the load as it was."""
    assert one + other - other == one


@given(st.floats(0, 1e9))
def test_retry_after_is_between_a_second_and_a_minute(seconds: float) -> None:
    """Whatever the queue and the pace, a client is told a time that makes sense."""
    assert 1 <= retry_after_s(seconds) <= 60


@given(st.lists(st.tuples(st.integers(1, 3), st.lists(st.integers(1, 60), min_size=1)), max_size=8))
def test_every_place_is_given_back(requests: list[tuple[int, list[int]]]) -> None:
    """However requests end, answered or refused at either door, nothing stays held."""
    door = admission()
    for items, lengths in requests:
        try:
            with door.slot_for(Load(items)) as slot, door.slot_for(Load(1)):
                slot.measure(lengths)
        except (Overloaded, TextTooLong):
            pass
        assert door.held == Load()


def test_a_full_house_refuses_and_tells_when_to_come_again() -> None:
    """The time to wait is that of the tokens in the house, and the refused request holds none."""
    door = admission(items=2, seconds=0.1)
    with door.slot_for(Load(2)) as slot:
        slot.measure([30, 40])
        with pytest.raises(Overloaded) as refused, door.slot_for(Load(1)):
            pass
        assert refused.value.retry_after_s == 7
        assert door.held == Load(2, 70)


def test_tokens_alone_can_fill_the_house() -> None:
    """A few long texts are as much work as many short ones."""
    door = admission(items=10, tokens=60)
    with door.slot_for(Load(1)) as first, door.slot_for(Load(1)) as second:
        first.measure([50])
        with pytest.raises(Overloaded):
            second.measure([11])
        second.measure([10])
        assert door.held == Load(2, 60)


def test_a_row_that_no_batch_can_hold_is_refused() -> None:
    """Such a row would wait for ever."""
    door = admission()
    door.refuse_too_long(50)
    with pytest.raises(TextTooLong):
        door.refuse_too_long(51)
