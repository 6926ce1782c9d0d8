"""The GPU through a driver library of C: what Python hands over arrives whole."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.sessions.cuda import library as driver_library
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.cuda.library import driver_fault, driver_version
from tests.engines.fake_cuda import FakeDriver, install

SOURCE = Path(__file__).parent / "driver.c"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    """A GPU whose driver is compiled from ``driver.c``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    file = tmp_path / "driver.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", file, SOURCE], check=True)
    monkeypatch.setattr(driver_library, "_opened", lambda name: ctypes.CDLL(str(file)))
    return CudaDevice()


def test_the_gpu_tells_what_it_is(device: CudaDevice) -> None:
    """Its name, its compute capability, and the CUDA of its driver."""
    told = (device.name, device.compute_capability, device.cuda)

    assert told == ("A GPU of paper", "8.9", "12.8")
    device.close()
    device.close()  # twice is once


def test_bytes_go_there_and_back(device: CudaDevice) -> None:
    """To an address that 32 bits do not hold, through pinned memory."""
    address = device.allocate(1 << 16)
    (there, sent), (back, got) = (device.allocate_pinned(1 << 16) for _ in range(2))
    sent[:] = np.random.default_rng(0).integers(0, 256, 1 << 16)

    device.copy_in(address, there, 1 << 16)
    device.copy_out(back, address, 1 << 16)
    device.wait()

    assert address > 1 << 32
    np.testing.assert_array_equal(got, sent)
    device.free(address)
    device.free_pinned(there)


def test_graphs_and_events_keep_their_handles(device: CudaDevice) -> None:
    """What one call made is what the next is given."""
    with device.capture() as made:
        pass
    with device.timer() as timer:
        with timer.around():
            device.launch(made[0])
        assert timer.seconds() == pytest.approx(1.5e-3)
    device.free_graph(made[0])


def test_errors_of_the_driver_are_told_in_its_words(device: CudaDevice) -> None:
    """A full memory is one error; any other comes with its number and text."""
    with pytest.raises(Unavailable, match="not enough free memory for 1099512 MB more"):
        device.allocate(1 << 40)
    with pytest.raises(EngineFailed, match="cuGraphLaunch: error 719, unspecified launch failure"):
        device.launch(1)
    with pytest.raises(EngineFailed, match="cuGraphExecDestroy: error 1, unknown"):
        device.free_graph(1)


def test_a_capture_that_fails_leaves_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the one that happened inside, and the stream records no more."""
    driver = install(monkeypatch, FakeDriver())
    device = CudaDevice()

    with pytest.raises(RuntimeError, match="inside"), device.capture():
        raise RuntimeError("inside")

    assert driver.capturing is None
    assert not driver.graphs


class Without:
    """A driver library that does not start."""

    def cuInit(self, flags: Any) -> int:
        return 100


def test_a_driver_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its error code; one that is not there by the loader's words."""
    monkeypatch.setattr(driver_library, "_opened", lambda name: Without())
    assert driver_fault() == "a library that starts with error 100"

    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(driver_library, "_opened", missing)
    assert driver_fault() == (
        "a library that does not load: libcuda.so.1: cannot open shared object file"
    )
    assert driver_version() == "unknown"
    with pytest.raises(Unavailable, match="no NVIDIA driver works here"):
        CudaDevice()
