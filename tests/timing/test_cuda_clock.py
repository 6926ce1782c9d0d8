"""The clock of products on a GPU, on a simulated one whose launches take long."""

from dataclasses import dataclass, field

import pytest
import torch

from spd_deploy.timing.cuda_clock import seconds_without_launch
from tests.timing.simulated_gpu import STREAM, SimulatedGpu


@dataclass
class Event:
    """One on the simulated stream."""

    gpu: SimulatedGpu
    at_ns: list[int] = field(default_factory=list)

    def record(self) -> None:
        self.at_ns.append(self.gpu.mark(STREAM))

    def synchronize(self) -> None:
        self.gpu.wait(STREAM)

    def elapsed_time(self, later: "Event") -> float:
        return (later.at_ns[0] - self.at_ns[0]) / 1e6


def test_a_launch_is_in_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 10 us whose launch keeps the host for 50 us takes 10 us, time after time."""
    gpu = SimulatedGpu()
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(gpu))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: gpu.work(1_000, cycles // 2))

    found = [seconds_without_launch(lambda: gpu.work(50_000, 10_000)) for _ in range(3)]

    assert found == pytest.approx([10e-6] * 3)
