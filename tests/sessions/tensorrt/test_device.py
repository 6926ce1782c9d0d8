"""The GPU through NVIDIA's bindings, on a driver library of C: what Python hands over arrives."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.domain.nvidia import driver_fault
from spd_deploy.sessions.cuda import device as device_module
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.cuda.driver import load_driver, results

SOURCE = Path(__file__).parent / "driver.c"
no_driver = pytest.mark.skipif(driver_fault() is None, reason="a driver works here")


@no_driver
def test_the_bindings_take_all_that_we_hand_over(tmp_path: Path) -> None:
    """Addresses, sizes, handles, times and errors; in a process that finds the C library first."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    file = tmp_path / "driver.so"
    flags = ("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")
    subprocess.run([compiler, *flags, "-o", file, SOURCE, "-ldl"], check=True)

    done = subprocess.run(
        [sys.executable, "-m", "tests.sessions.tensorrt.use_driver", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "A GPU of paper, 8.9, CUDA 12.8",
        "65536 bytes there and back, from beyond 32 bits: True",
        "a graph took 0.0015 s",
        "Unavailable: the GPU has not enough free memory for 1099512 MB more",
        "EngineFailed: cuGraphLaunch: CUDA_ERROR_LAUNCH_FAILED",
        "EngineFailed: cuGraphExecDestroy: CUDA_ERROR_INVALID_VALUE",
        "RuntimeError: what failed in a capture is told as it is",
        "closed",
    ]


@no_driver
def test_without_a_driver_the_error_is_a_line() -> None:
    """In the words of NVIDIA's bindings."""
    with pytest.raises(Unavailable, match=r"driver does not work here.*run `spd doctor`"):
        CudaDevice()


def test_without_the_bindings_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no part of a plain installation."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)

    with pytest.raises(Unavailable, match=r"cuda-bindings.*pip install 'spd-deploy\[trt\]'"):
        load_driver()


def driver(**functions: Any) -> Any:
    """A driver with these functions, each of which gives its code first."""
    return SimpleNamespace(**{name: lambda *_, r=result: r for name, result in functions.items()})


def code(value: int, name: str) -> Any:
    return SimpleNamespace(value=value, name=name)


def test_a_driver_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where CUDA_VISIBLE_DEVICES hides them all."""
    none = driver(cuDeviceGetCount=(code(0, "CUDA_SUCCESS"), 0))
    monkeypatch.setattr(device_module, "load_driver", lambda: none)

    with pytest.raises(Unavailable, match="the driver finds no GPU; got 0 devices"):
        CudaDevice()


def test_a_driver_without_the_function_is_too_old() -> None:
    """The bindings raise what is no code of the driver's."""

    def missing(*_: object) -> None:
        raise RuntimeError("function cuGraphInstantiateWithFlags is not found")

    with pytest.raises(Unavailable, match="cuGraphInstantiateWithFlags is not found"):
        results(SimpleNamespace(cuGraphInstantiate=missing), "cuGraphInstantiate", 1, 0)


def test_values_come_without_their_code() -> None:
    """None where a function gives nothing else; another code is an error with the function."""
    fine = code(0, "CUDA_SUCCESS")
    assert results(driver(cuMemAlloc=(fine, 5)), "cuMemAlloc", 1) == [5]
    assert results(driver(cuMemFree=(fine,)), "cuMemFree", 5) == []
    with pytest.raises(EngineFailed, match="cuMemFree: CUDA_ERROR_INVALID_VALUE"):
        results(driver(cuMemFree=(code(1, "CUDA_ERROR_INVALID_VALUE"),)), "cuMemFree", 5)
