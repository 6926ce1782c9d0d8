"""Memory, weighed in a process of its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from spd_deploy.benchmark.arms import Arm
from spd_deploy.benchmark.memory import bytes_in, memory_of
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from tests.benchmark.made import source_of
from tests.portable import with_portable

pytestmark = pytest.mark.usefixtures("weighed")

SETTINGS = BenchmarkSettings(shapes=(Shape(batch=2, seq=16),), threads=1)


def test_the_kernels_kibibytes_are_read() -> None:
    """Each field is found by its whole name."""
    status = "Name:\tpython\nVmPeak:\t  9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n"

    assert bytes_in(status, "VmHWM") == 2 << 20
    assert bytes_in(status, "VmRSS") == 1 << 20


def test_an_arm_is_weighed(arms: tuple[Arm, ...]) -> None:
    """The peak is no less than what an open session holds, in a process without PyTorch."""
    found = memory_of(source_of(arms[0]), SETTINGS)

    assert found is not None
    assert 0 < found.before_bytes <= found.opened_bytes <= found.peak_bytes < 400_000_000


def test_an_arm_in_openvino_is_weighed(arms: tuple[Arm, ...], tmp_path: Path) -> None:
    """The process opens it in the runtime asked for, whose library is there before the model."""
    artefact = with_portable(source_of(arms[0]).artefact, tmp_path / "a")
    found = memory_of(
        replace(source_of(arms[0]), artefact=artefact, runtime_choice=RUNTIME_CHOICES["openvino"]),
        SETTINGS,
    )

    assert found is not None
    assert 0 < found.before_bytes <= found.opened_bytes <= found.peak_bytes < 600_000_000


def test_an_arm_that_cannot_be_weighed_is_named(arms: tuple[Arm, ...], tmp_path: Path) -> None:
    """The process's last word is passed on."""
    gone = replace(
        source_of(arms[0]), artefact=replace(source_of(arms[0]).artefact, folder=tmp_path / "gone")
    )

    with pytest.raises(EngineFailed, match=r"dense failed in the process .* no such artefact"):
        memory_of(gone, SETTINGS)
