"""Lets NVML tell of GPUs where there is no driver: its answers, by the name of the question.

To any other question a GPU answers "not supported", as the real library does.
"""

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from spd_deploy.domain import nvidia
from spd_deploy.domain.nvidia import GpuProperties, GpuReading, GpuState

SM, MEMORY = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
Answers = Mapping[str, Any]

H100: Answers = {
    "UUID": "GPU-11111111-2222-3333-4444-555555555555",
    "Name": "NVIDIA H100 80GB HBM3",
    "CudaComputeCapability": (9, 0),
    "MemoryInfo": SimpleNamespace(total=80 << 30, free=60 << 30),
    "PersistenceMode": 1,
    "MigMode": [0, 0],
    "ClockInfo": {SM: 1980, MEMORY: 2619},
    "MaxClockInfo": {SM: 1980, MEMORY: 2619},
    "PowerUsage": 412350,
    "EnforcedPowerLimit": 700000,
    "Temperature": {pynvml.NVML_TEMPERATURE_GPU: 54},
    "UtilizationRates": SimpleNamespace(gpu=97, memory=40),
    "CurrentClocksEventReasons": 0x4,
    "ComputeRunningProcesses": ["one", "another"],
}
# A consumer card on a driver that knows the reasons by their older name, and tells less.
CONSUMER: Answers = {
    "UUID": "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "Name": "NVIDIA GeForce RTX 3060",
    "CudaComputeCapability": (8, 6),
    "MemoryInfo": SimpleNamespace(total=12 << 30, free=11 << 30),
    "PersistenceMode": 0,
    "ClockInfo": {SM: 1837, MEMORY: 7300},
    "MaxClockInfo": {SM: 2100, MEMORY: 7501},
    "CurrentClocksThrottleReasons": 0x1,
    "ComputeRunningProcesses": [],
}


def put(patch: pytest.MonkeyPatch, *cards: Answers) -> None:
    """Let NVML start and tell of these cards; a handle is the card's number."""

    def by_uuid(uuid: str) -> int:
        found = [number for number, card in enumerate(cards) if card["UUID"] == uuid]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found[0]

    def by_index(number: int) -> int:
        if number >= len(cards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return number

    for name in dir(pynvml):
        if name.startswith("nvmlDeviceGet"):
            patch.setattr(pynvml, name, partial(_answer, cards, name.removeprefix("nvmlDeviceGet")))
    patch.setattr(pynvml, "nvmlInit", lambda: None)
    patch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.95.05")
    patch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion", lambda: 13000)
    patch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(cards))
    patch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", by_index)
    patch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    patch.setattr(nvidia, "_nvml", lambda: pynvml)


def _answer(cards: tuple[Answers, ...], what: str, handle: int, *rest: Any) -> Any:
    """What a card tells."""
    if what not in cards[handle]:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    found = cards[handle][what]
    return found[rest[0]] if rest else found


def h100_reading(at_s: float) -> GpuReading:
    """The properties and state of the H100."""
    return GpuReading(
        properties=GpuProperties(
            name="NVIDIA H100 80GB HBM3", driver="580.95.05", persistence=True, mig=False
        ),
        state=GpuState(
            at_s=at_s,
            sm_mhz=1980,
            sm_most_mhz=1980,
            memory_mhz=2619,
            memory_most_mhz=2619,
            power_w=412.35,
            power_limit_w=700.0,
            temperature_c=54,
            busy_percent=97,
            reasons=("power cap",),
        ),
    )
