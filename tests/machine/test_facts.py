"""The machine as a report records it."""

import json
import platform
from dataclasses import asdict

from spd_deploy.machine.facts import this_machine


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
