"""What NVML tells of GPUs, and what is made of a machine where it tells nothing."""

import sys

import pynvml
import pytest

from spd_deploy.domain import nvidia
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import (
    LOCKED,
    Gpu,
    cuda_in,
    driver_cuda,
    driver_fault,
    driver_version,
    free_bytes,
    gpus,
    processes,
    read_gpu,
    reasons_in,
)
from tests.nvml import CONSUMER, H100, h100_reading, put


def test_each_gpu_has_a_name_a_capability_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of NVML, with the driver's version and its CUDA."""
    put(monkeypatch, H100, CONSUMER)

    first, second = gpus()

    assert first == Gpu(
        name="NVIDIA H100 80GB HBM3",
        driver="580.95.05",
        compute_capability="9.0",
        memory_bytes=80 << 30,
    )
    assert second.compute_capability == "8.6"
    assert (driver_version(), driver_cuda(), driver_fault()) == ("580.95.05", "13.0", None)


def test_a_data_centre_card_tells_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks, power in watts, heat, load and the reason of its clock, with its fixed facts."""
    put(monkeypatch, H100)

    found = read_gpu(H100["UUID"], at_s=1.5)

    assert found == h100_reading(1.5)
    assert found is not None and found.state.throttled_by == ("power cap",)


def test_what_a_card_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is read all the same; an older driver is asked by the older name of the reasons."""
    put(monkeypatch, CONSUMER)

    found = read_gpu(None, at_s=0.0)

    assert found is not None
    assert (found.properties.persistence, found.properties.mig) == (False, None)
    state = found.state
    assert (state.sm_mhz, state.sm_most_mhz, state.memory_mhz) == (1837, 2100, 7300)
    assert (state.power_w, state.power_limit_w, state.busy_percent) == (None, None, None)
    assert (state.reasons, state.throttled_by) == (("idle",), ())


def test_mig_is_seen_to_be_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the mode that is current, not by the pending one."""
    put(monkeypatch, {**H100, "MigMode": [1, 0]})

    found = read_gpu(None, at_s=0.0)

    assert found is not None and found.properties.mig is True


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, ()),
        (0x2, (LOCKED,)),
        (0x68, ("hardware slowdown", "heat, by software", "heat, by hardware")),
        (0x10000, ("reason 0x10000",)),
        (None, None),
    ],
)
def test_reasons_are_bits(bits: int | None, reasons: tuple[str, ...] | None) -> None:
    """Each bit has its name, one without a name its number, and no number is None."""
    assert reasons_in(bits) == reasons


def test_the_gpu_is_found_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among several the id decides; a single one is taken under any id; else it is unknown."""
    put(monkeypatch, H100, CONSUMER)
    found = read_gpu(CONSUMER["UUID"], at_s=0.0)
    assert found is not None and found.properties.name == CONSUMER["Name"]
    assert read_gpu("MIG-1", at_s=0.0) is None
    assert read_gpu(None, at_s=0.0) is None

    put(monkeypatch, H100)
    assert read_gpu("MIG-1", at_s=0.0) == h100_reading(0.0)


def test_processes_are_counted_over_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU that does not tell makes the number unknown."""
    put(monkeypatch, H100, CONSUMER)
    assert processes() == 2

    silent = {key: value for key, value in H100.items() if key != "ComputeRunningProcesses"}
    put(monkeypatch, silent, CONSUMER)
    assert processes() is None


def test_free_memory_is_asked_by_number_or_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA_VISIBLE_DEVICES names a GPU; one that is not there is refused."""
    put(monkeypatch, H100, CONSUMER)

    assert free_bytes("1") == 11 << 30
    assert free_bytes(H100["UUID"]) == 60 << 30
    for missing in ("2", "GPU-none"):
        with pytest.raises(Unavailable, match=f"free memory of GPU {missing}"):
            free_bytes(missing)


@pytest.fixture
def unstarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML is started anew, by whoever asks first."""
    monkeypatch.setattr(nvidia, "_nvml", nvidia._nvml.__wrapped__)


def tells_nothing() -> bool:
    """Whether every question is answered by nothing, and none by an error."""
    told = (driver_version(), driver_cuda(), gpus(), read_gpu(None, at_s=0.0), processes())
    return told == (None, None, (), None, None)


@pytest.mark.usefixtures("unstarted")
def test_without_a_driver_there_is_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own words; nothing else is told, and nothing raises."""

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)

    assert str(driver_fault()) == (
        "NVIDIA's driver does not work here; got its management library does not start: NVML "
        "Shared Library Not Found; install or restart NVIDIA's driver, or use --device cpu"
    )
    assert tells_nothing()
    with pytest.raises(Unavailable, match="driver does not work here"):
        free_bytes("0")


@pytest.mark.usefixtures("unstarted")
def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that may have a driver cannot be asked without it."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert str(driver_fault()).startswith(
        "NVML, NVIDIA's management library, cannot be used; "
        "got the package nvidia-ml-py is not installed; "
        "pip install nvidia-ml-py"
    )
    assert tells_nothing()


@pytest.mark.parametrize(("number", "version"), [(12080, "12.8"), (13000, "13.0"), (11040, "11.4")])
def test_cudas_version_is_a_number(number: int, version: str) -> None:
    """The driver's number is thousands and tens."""
    assert cuda_in(number) == version
