"""GPUs as ``nvidia-smi`` lists them, told by a stand-in program on the path."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spd_deploy.machine import nvidia
from spd_deploy.machine.gpu_state import looks_in
from spd_deploy.machine.nvidia import (
    Gpu,
    checks_of,
    gpus,
    gpus_in,
    state_check,
    why_no_gpu,
)
from spd_deploy.sessions.cuda.library import cuda_in, driver_cuda
from tests.machine.test_gpu_state import CONSUMER, H100

H200 = Gpu(
    name="NVIDIA H200", driver="570.86.15", compute_capability="9.0", memory_bytes=143771 << 20
)
V100 = Gpu(name="Tesla V100", driver="535.1", compute_capability="7.0", memory_bytes=16 << 30)
LISTING = "NVIDIA H200, 570.86.15, 9.0, 143771\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the one program on the path may be put."""
    monkeypatch.setenv("PATH", str(tmp_path))
    nvidia._asked.cache_clear()
    yield tmp_path / "nvidia-smi"
    nvidia._asked.cache_clear()


def put(program: Path, script: str) -> None:
    """Make it a program."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_listing_is_read() -> None:
    """Name, driver, compute capability and bytes are taken from each line."""
    assert gpus_in(LISTING * 2) == (H200, H200)


@pytest.mark.parametrize(
    "line", ["", "No devices were found", "a, b, [N/A], 1", "a, b, 9.0, [N/A]"]
)
def test_a_line_that_cannot_be_filled_in_is_left_out(line: str) -> None:
    """Words instead of fields, and fields without numbers, are no GPU."""
    assert gpus_in(line) == ()


def test_a_gpu_that_is_listed_is_found(smi: Path) -> None:
    """The program's lines become GPUs."""
    put(smi, f"echo '{LISTING.strip()}'")

    assert gpus() == (H200,)
    assert why_no_gpu() is None


def test_a_missing_program_is_the_reason(smi: Path) -> None:
    """Without ``nvidia-smi`` there is no GPU, and that is said."""
    assert gpus() == ()
    assert why_no_gpu() == "nvidia-smi, which would list GPUs, is not installed"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'driver mismatch' >&2; exit 18", "nvidia-smi failed: driver mismatch"),
        ("exit 9", "nvidia-smi failed: code 9"),
        ("echo 'No devices were found'", "nvidia-smi lists none"),
    ],
)
def test_a_program_that_fails_is_the_reason(script: str, reason: str, smi: Path) -> None:
    """Its own words are passed on."""
    put(smi, script)

    assert gpus() == ()
    assert why_no_gpu() == reason


def test_a_machine_with_a_gpu_says_yes() -> None:
    """Driver, GPU and 2:4 tensor cores are there."""
    checks = {check.name: check for check in checks_of([H200], None, None)}

    assert all(check.ok for check in checks.values())
    assert checks["driver"].found == "570.86.15"
    assert checks["GPU"].found == "NVIDIA H200, 140 GiB"


def test_an_old_gpu_has_no_sparse_cores() -> None:
    """Below Ampere 2:4 is a no with another pattern as its remedy."""
    (found,) = [check for check in checks_of([V100], None, None) if not check.ok]

    assert found.name == "2:4 tensor cores"
    assert "8.0" in str(found.reason)
    assert "block" in str(found.remedy)


@pytest.mark.parametrize(
    ("capability", "has"), [("7.5", False), ("8.0", True), ("8.9", True), ("10.0", True)]
)
def test_sparse_cores_begin_with_ampere(capability: str, has: bool) -> None:
    """From compute capability 8.0 on, compared as numbers."""
    gpu = Gpu(name="g", driver="1", compute_capability=capability, memory_bytes=1)

    assert gpu.has_sparse_cores == has


def test_a_machine_without_a_gpu_says_why_thrice() -> None:
    """Driver, GPU and tensor cores are each a no with reason and remedy."""
    checks = list(
        checks_of([], "a library that does not load: libcuda.so.1", "nvidia-smi lists none")
    )

    assert [check.ok for check in checks] == [False] * 3
    assert checks[1].reason == "nvidia-smi lists none"
    assert all(check.reason and check.remedy for check in checks)


def test_a_driver_without_the_lister_is_a_driver() -> None:
    """A driver that starts is a yes even where its version is not told."""
    driver, gpu, _ = checks_of([], None, "nvidia-smi, which would list GPUs, is not installed")

    assert driver.ok
    assert not gpu.ok


def test_a_broken_driver_beside_a_gpu_is_to_be_mended() -> None:
    """Where the GPU is listed, the remedy is the driver."""
    driver, *_ = checks_of([H200], "a library that starts with error 999", None)

    assert (driver.ok, driver.remedy) == (False, "install or restart NVIDIA's driver")


@pytest.mark.parametrize(("number", "version"), [(12080, "12.8"), (13000, "13.0"), (11040, "11.4")])
def test_cudas_version_is_a_number(number: int, version: str) -> None:
    """The driver's number is thousands and tens."""
    assert cuda_in(number) == version


def test_a_drivers_cuda_is_a_version_or_nothing() -> None:
    """Asking does no harm where there is no driver."""
    found = driver_cuda()
    assert found is None or float(found) >= 9


@pytest.mark.parametrize(
    ("listing", "found"),
    [(H100, "SM at 1980 MHz of 1980, 700 W at most"), (CONSUMER, "SM at 1837 MHz of 2100")],
)
def test_a_card_that_tells_of_its_clocks_is_a_yes(listing: str, found: str) -> None:
    """With what it tells, and without what it does not."""
    (seen,) = looks_in(listing, at_s=0.0)
    check = state_check(seen, count=1)

    assert (check.ok, check.found) == (True, found)


def test_a_card_that_does_not_tell_is_a_no() -> None:
    """One GPU that is not told of cannot be watched; of several each is asked by its id."""
    assert not state_check(None, count=1).ok
    assert state_check(None, count=2).ok
