"""Packages, PyTorch and the optional engines."""

import importlib.metadata
import importlib.util
import sys

import pytest

from spd_deploy.machine.software import (
    COMMANDS,
    engine_checks,
    extra_check,
    missing_check,
    package_checks,
    required_packages,
    tensorrt_check,
    torch_checks,
    torch_cuda_check,
    two_four_check,
)


def test_required_packages_are_those_without_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every installation needs is listed by name, extras are not."""
    declared = ["click>=8.2", 'onnxruntime>=1.24; extra == "cpu"', "prometheus-client>=0.22"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: declared)

    assert required_packages() == ["click", "prometheus-client"]


def test_a_missing_package_is_named() -> None:
    """The no lists what to install."""
    found = missing_check(["onnx", "scipy"])

    assert found.reason == "not installed: onnx, scipy"
    assert missing_check([]).ok


def test_the_packages_of_this_installation_are_told() -> None:
    """Python and the versions of the packages that shape a result are there."""
    checks = {check.name: check for check in package_checks()}

    assert checks["Python"].ok
    assert f"numpy {importlib.metadata.version('numpy')}" in str(checks["required packages"].found)


def test_an_extra_is_a_yes_or_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here all are installed; without a package the extras that bring it are a no, no other."""
    assert all(extra_check(extra).ok for extra in COMMANDS)

    monkeypatch.setitem(sys.modules, "onnx", None)
    lacking = {extra: extra_check(extra) for extra in COMMANDS}

    assert {extra for extra, check in lacking.items() if not check.ok} == {
        "train",
        "export",
        "bench",
    }
    assert lacking["export"].reason == "not installed: onnx; needed by spd export"
    assert lacking["export"].remedy == "pip install 'spd-deploy[export]'"


def test_a_folder_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed is not known then; the other packages are told all the same."""

    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    python, packages, *_ = package_checks()

    assert python.ok and not packages.ok
    assert "spd-deploy runs from its source folder" in str(packages.reason)
    assert f"numpy {importlib.metadata.version('numpy')}" in str(packages.found)


def test_torch_tells_its_kernels() -> None:
    """PyTorch is there, and its CUDA, Triton and 2:4 are each a yes or an explained no."""
    torch, *others = torch_checks()

    assert torch.ok
    assert [check.name for check in others] == ["torch on CUDA", "Triton", "2:4 products"]
    assert all(check.ok or (check.reason and check.remedy) for check in others)


def test_sparse_tensor_cores_need_their_library() -> None:
    """Without it 2:4 is a no that names the patterns which need none."""
    assert two_four_check(library=True, gpu=True).ok
    assert two_four_check(library=True, gpu=False).reason == "PyTorch finds no GPU"
    assert "no cuSPARSELt" in str(two_four_check(library=False, gpu=True).reason)
    assert "block" in str(two_four_check(library=False, gpu=False).remedy)


@pytest.mark.parametrize(
    ("built_for", "works", "ok"),
    [(None, False, False), ("12.8", False, False), ("12.8", True, True)],
)
def test_torch_on_cuda_needs_a_build_and_a_gpu(
    built_for: str | None, works: bool, ok: bool
) -> None:
    """A build without CUDA and a build without a GPU are different noes."""
    assert torch_cuda_check(built_for=built_for, works=works).ok == ok


def test_a_build_and_a_gpu_are_told_apart() -> None:
    """The reasons name what is missing."""
    reasons = {torch_cuda_check(built_for=b, works=False).reason for b in (None, "12.8")}

    assert reasons == {
        "this build of PyTorch has no CUDA",
        "PyTorch finds no usable GPU or driver",
    }


def test_engines_are_a_yes_or_an_explained_no() -> None:
    """TensorRT is asked for, with a driver or without."""
    for fault in (None, "a library that does not load"):
        checks = list(engine_checks(driver_fault=fault))

        assert [check.name for check in checks] == ["TensorRT"]
        assert all(check.ok or (check.reason and check.remedy) for check in checks)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)
def test_a_missing_tensorrt_says_what_to_install_and_what_runs_without() -> None:
    """The remedy names the extra, and the runtime that needs none of it."""
    remedy = str(tensorrt_check(driver_fault=None).remedy)

    assert "spd-deploy[trt]" in remedy and "--runtime onnxruntime" in remedy
