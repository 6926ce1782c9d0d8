"""ONNX Runtime's providers, and what its logs say of one that does not load."""

import pytest

from spd_deploy.machine.providers import (
    CUDA,
    TENSORRT,
    check_of,
    failure_of,
    provider_checks,
    reason_in,
)

LIBRARY = (
    "2026-01-01 [E:onnxruntime:Default, provider_bridge_ort.cc:2167 TryGetProviderInfo_CUDA] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778 Failed to load library "
    "libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open shared object "
    "file: No such file or directory\n"
    "*************** EP Error ***************\n"
    "2026-01-01 [W:onnxruntime:Default] Failed to create CUDAExecutionProvider.\n"
)


def test_the_library_that_does_not_load_is_the_reason() -> None:
    """Of a long log, the library's name tells most."""
    assert reason_in(LIBRARY) == (
        "libcublasLt.so.12: cannot open shared object file: No such file or directory"
    )


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("[E:onnxruntime:Default] no CUDA-capable device\nmore\n", "no CUDA-capable device"),
        ("one\ntwo\n", "two"),
        ("****\n\n", None),
        ("", None),
    ],
)
def test_else_the_error_or_the_last_line_is(log: str, said: str | None) -> None:
    """An error line comes before other lines, and stars are no words."""
    assert reason_in(log) == said


def test_a_provider_that_loads_is_a_yes() -> None:
    """It is listed and nothing went wrong."""
    assert check_of(CUDA, [CUDA], None, has_gpu=True).ok


@pytest.mark.parametrize("name", [CUDA, TENSORRT, "OpenVINOExecutionProvider"])
@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_provider_that_does_not_load_is_an_explained_no(name: str, has_gpu: bool) -> None:
    """Whether it is not built in or fails, reason and remedy fit the machine."""
    absent = check_of(name, [], None, has_gpu=has_gpu)
    failing = check_of(name, [name], "libx.so is missing", has_gpu=has_gpu)

    assert (absent.ok, failing.ok) == (False, False)
    assert "does not contain it" in str(absent.reason)
    assert failing.reason == "libx.so is missing"
    assert ("--device cpu" in str(failing.remedy)) == (not has_gpu and "Open" not in name)


def test_a_provider_that_is_not_there_has_a_fault() -> None:
    """A session that does not run where it was asked to is a fault with a reason."""
    assert failure_of("NoSuchExecutionProvider")


def test_the_cpu_provider_loads_here() -> None:
    """It is tried in a process of its own and runs, and no check raises."""
    checks = {check.name: check for check in provider_checks(has_gpu=False)}

    assert checks["CPUExecutionProvider"].ok
    assert checks["onnxruntime"].ok
    assert CUDA in checks
