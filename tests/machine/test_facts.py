"""The machine as a report records it."""

import json
import platform
from dataclasses import asdict

from spd_deploy.machine.facts import Moment, load_now, moment, others_cores, this_machine


def test_the_machine_is_recorded() -> None:
    """Processor, cores, memory, system and versions are there, as JSON takes them."""
    machine = this_machine()
    value = asdict(machine)

    assert json.loads(json.dumps(value))["python"] == platform.python_version()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.usable_cores > 0
    assert machine.memory_bytes > 10**8
    assert {"spd-deploy", "onnxruntime", "torch"} <= set(machine.versions)


def test_the_machine_has_no_name() -> None:
    """Nothing recorded tells whose machine it is."""
    assert platform.node() not in json.dumps(asdict(this_machine())).split('"')


def test_others_are_what_is_left_of_the_machine() -> None:
    """Busy seconds less our own, over the seconds that passed."""
    before = Moment(clock_s=10.0, machine_s=100.0, own_s=5.0)
    after = Moment(clock_s=14.0, machine_s=110.0, own_s=9.0)

    assert others_cores(before, after) == 1.5


def test_others_are_never_fewer_than_none() -> None:
    """Clocks that disagree a little do not make others negative."""
    before = Moment(clock_s=0.0, machine_s=0.0, own_s=0.0)

    assert others_cores(before, Moment(clock_s=1.0, machine_s=0.9, own_s=1.0)) == 0.0
    assert others_cores(before, before) == 0.0


def test_moments_go_forward() -> None:
    """No count steps back."""
    first, second = moment(), moment()

    assert first.clock_s <= second.clock_s
    assert first.own_s <= second.own_s
    assert load_now() is None or load_now() >= 0  # type: ignore[operator]
