"""A speed-up that was measured beside other work does not steer the search."""

from pathlib import Path

import pytest

from exporters.autotune import measure_latency
from spd_deploy.cli.options.speed_options import structures_measurer
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.structures import Structures
from spd_deploy.domain.tasks import TASKS
from spd_deploy.timing import machine_load
from spd_deploy.timing.machine_load import CpuTimes
from tests.tiny import tiny_model
from tests.train.latency import latency_table


class Notes(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep the text."""
        self.notes.append(text)


@pytest.mark.parametrize(("others", "used"), [(0.0, True), (100.0, False)])
def test_other_work_makes_the_table_decide(
    others: float, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the speed-up is told and dropped; on a quiet one it is returned."""
    tiny_model(tmp_path / "model", task=TASKS["sst2"])
    monkeypatch.setattr(measure_latency, "structures_speedup", lambda *_, **__: 2.5)
    clock = iter(range(10))
    monkeypatch.setattr(
        machine_load,
        "cpu_times",
        lambda: CpuTimes(clock_s=(now := next(clock)), machine_s=now * others, own_s=0.0),
    )
    options = {
        "any_machine": False,
        "shapes": None,
        "runtime_name": None,
        "export_precision": None,
        "teacher": str(tmp_path / "model"),
    }
    measure = structures_measurer(options, latency_table(), notes := Notes())
    assert measure is not None

    found = measure(Structures(heads=(1, 1), neurons=(16, 16)))

    assert found == (2.5 if used else None)
    assert any("latency table are used instead" in note for note in notes.notes) != used
