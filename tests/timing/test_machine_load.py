"""What else the machine did."""

from spd_deploy.timing.machine_load import CpuTimes, cpu_times, load_average, others_cores


def test_others_are_what_is_left_of_the_machine() -> None:
    """Busy seconds less our own, over the seconds that passed."""
    before = CpuTimes(clock_s=10.0, machine_s=100.0, own_s=5.0)
    after = CpuTimes(clock_s=14.0, machine_s=110.0, own_s=9.0)

    assert others_cores(before, after) == 1.5


def test_others_are_never_fewer_than_none() -> None:
    """Clocks that disagree a little do not make others negative."""
    before = CpuTimes(clock_s=0.0, machine_s=0.0, own_s=0.0)

    assert others_cores(before, CpuTimes(clock_s=1.0, machine_s=0.9, own_s=1.0)) == 0.0
    assert others_cores(before, before) == 0.0


def test_processor_seconds_go_forward() -> None:
    """No count steps back."""
    first, second = cpu_times(), cpu_times()

    assert first.clock_s <= second.clock_s
    assert first.own_s <= second.own_s
    assert load_average() is None or load_average() >= 0  # type: ignore[operator]
