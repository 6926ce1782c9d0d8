"""What doctor says of GPUs and of the driver."""

import pytest

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import Gpu, read_gpu
from spd_deploy.machine.nvidia_checks import checks_of, state_check
from tests.nvml import CONSUMER, H100, Answers, put

H200 = Gpu(
    name="NVIDIA H200", driver="570.86.15", compute_capability="9.0", memory_bytes=143771 << 20
)
V100 = Gpu(name="Tesla V100", driver="535.1", compute_capability="7.0", memory_bytes=16 << 30)


def test_a_machine_with_a_gpu_says_yes() -> None:
    """Driver, GPU and 2:4 tensor cores are there."""
    checks = {check.name: check for check in checks_of([H200], None)}

    assert all(check.ok for check in checks.values())
    assert checks["driver"].found == "570.86.15"
    assert checks["GPU"].found == "NVIDIA H200, 140 GiB"


def test_an_old_gpu_has_no_sparse_cores() -> None:
    """Below Ampere 2:4 is a no with another pattern as its remedy."""
    (found,) = [check for check in checks_of([V100], None) if not check.ok]

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


def test_a_machine_without_a_driver_says_why_thrice() -> None:
    """Driver, GPU and tensor cores are each a no with reason and remedy."""
    checks = list(checks_of([], Unavailable("no", got="no library", fix="install it")))

    assert [check.name for check in checks] == ["driver", "GPU", "2:4 tensor cores"]
    assert not any(check.ok for check in checks)
    assert {check.reason for check in checks} == {"no library"}
    assert {check.remedy for check in checks} == {"install it"}


def test_a_driver_without_a_gpu_is_a_driver() -> None:
    """It passes, and the GPU fails."""
    driver, gpu, _ = checks_of([], None)

    assert driver.ok
    assert (gpu.ok, gpu.reason) == (False, "the driver lists no GPU")


@pytest.mark.parametrize(
    ("card", "found"),
    [(H100, "SM at 1980 MHz of 1980, 700 W at most"), (CONSUMER, "SM at 1837 MHz of 2100")],
)
def test_a_card_that_tells_of_its_clocks_is_a_yes(
    card: Answers, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it tells, and without what it does not."""
    put(monkeypatch, card)

    check = state_check(read_gpu(None, at_s=0.0), count=1)

    assert (check.ok, check.found) == (True, found)


def test_a_card_that_does_not_tell_is_a_no() -> None:
    """One GPU that is not told of cannot be watched; of several each is asked by its id."""
    assert not state_check(None, count=1).ok
    assert state_check(None, count=2).ok
