"""GPUs through NVIDIA's management library (NVML): their properties and their present state.

This is the only module that reads clocks, power, memory or the version of the driver. The package
``nvidia-ml-py`` binds the library, which comes with the driver. Neither PyTorch nor CUDA is loaded.
A value that a GPU does not report is None, as on many consumer cards and MIG slices. No field
identifies a machine or a person.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import Unavailable

_SPARSE_SINCE = (8, 0)
# NVML's bits of the reasons that limit the clock.
_REASONS = {
    0x1: "idle",
    0x2: "clocks set by the user",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat, by software",
    0x40: "heat, by hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
LOCKED = _REASONS[0x2]
HARMLESS = frozenset({_REASONS[0x1], LOCKED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU; ``compute_capability`` is a string such as ``9.0``."""

    name: str
    driver: str
    compute_capability: str
    memory_bytes: int

    @property
    def has_sparse_cores(self) -> bool:
        """Whether its tensor cores multiply 2:4 matrices: Ampere and later."""
        major, _, minor = self.compute_capability.partition(".")
        return (int(major), int(minor or 0)) >= _SPARSE_SINCE


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuState:
    """The state of a GPU at one moment; None where the GPU does not report a value.

    Attributes:
        at_s: seconds since the measurement began.
        reasons: the reasons that limit the clock.
    """

    at_s: float
    sm_mhz: float | None
    sm_most_mhz: float | None
    memory_mhz: float | None
    memory_most_mhz: float | None
    power_w: float | None
    power_limit_w: float | None
    temperature_c: float | None
    busy_percent: float | None
    reasons: tuple[str, ...] | None

    @property
    def throttled_by(self) -> tuple[str, ...]:
        """The reasons that slow the GPU down: all but idle and clocks set by the user."""
        return tuple(reason for reason in self.reasons or () if reason not in HARMLESS)


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuProperties:
    """Constant properties of a GPU; None where the GPU does not report a value."""

    name: str
    driver: str
    persistence: bool | None
    mig: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReading:
    """A GPU's properties and its state at one moment."""

    properties: GpuProperties
    state: GpuState


def driver_fault() -> Unavailable | None:
    """The error that keeps NVML from working, with its remedy; None if NVML works."""
    try:
        _nvml()
    except Unavailable as err:
        return err
    return None


def driver_version() -> str | None:
    """Version of the driver, such as ``580.95.05``; None where NVML does not work."""
    return None if driver_fault() else _query("nvmlSystemGetDriverVersion")


def driver_cuda() -> str | None:
    """The newest CUDA that the driver runs, such as ``13.0``; None where NVML does not work."""
    number = None if driver_fault() else _query("nvmlSystemGetCudaDriverVersion")
    return None if number is None else cuda_in(number)


def cuda_in(number: int) -> str:
    """The CUDA version of the driver's number: 12080 is ``12.8``."""
    return f"{number // 1000}.{number % 1000 // 10}"


def gpus() -> tuple[Gpu, ...]:
    """The machine's GPUs; empty where NVML does not work (:func:`driver_fault`)."""
    found = []
    for handle in _handles():
        capability, memory = _get(handle, "CudaComputeCapability"), _get(handle, "MemoryInfo")
        if capability is not None and memory is not None:
            found.append(
                Gpu(
                    name=_get(handle, "Name") or "unknown",
                    driver=driver_version() or "unknown",
                    compute_capability=f"{capability[0]}.{capability[1]}",
                    memory_bytes=int(memory.total),
                )
            )
    return tuple(found)


def read_gpu(uuid: str | None, *, at_s: float) -> GpuReading | None:
    """The properties and state of the GPU with this UUID; None where it is not known.

    Without a UUID, or with one that NVML does not list (as of a MIG slice), it is the machine's
    only GPU, and None where there are several.
    """
    handles = _handles()
    same = [one for one in handles if uuid and _get(one, "UUID") == uuid]
    found = same or handles
    return _reading_of(found[0], at_s) if len(found) == 1 else None


def processes() -> int | None:
    """Number of processes that compute on the machine's GPUs; None where it is not reported.

    A container may hide the processes of others, so 0 does not prove that there is none.
    """
    running = [_get(handle, "ComputeRunningProcesses") for handle in _handles()]
    return None if not running or None in running else sum(map(len, running))


def free_bytes(which: str) -> int:
    """Free memory in bytes of a GPU, given by index or UUID as in CUDA_VISIBLE_DEVICES.

    Raises:
        Unavailable: NVML does not work, or does not report it.
    """
    nvml = _nvml()
    by, key = ("Index", int(which)) if which.isdigit() else ("UUID", which)
    try:
        handle = getattr(nvml, f"nvmlDeviceGetHandleBy{by}")(key)
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
    except nvml.NVMLError as err:
        raise Unavailable(
            f"the driver does not report the free memory of GPU {which}",
            got=err,
            fix="set CUDA_VISIBLE_DEVICES to a GPU that `nvidia-smi -L` lists",
        ) from err


def _reading_of(handle: Any, at_s: float) -> GpuReading:
    """The properties and state of one GPU."""
    nvml = _nvml()
    get = functools.partial(_get, handle)
    return GpuReading(
        properties=GpuProperties(
            name=get("Name") or "unknown",
            driver=driver_version() or "unknown",
            persistence=_switch(get("PersistenceMode")),
            mig=_switch((get("MigMode") or (None,))[0]),
        ),
        state=GpuState(
            at_s=at_s,
            sm_mhz=_number(get("ClockInfo", nvml.NVML_CLOCK_SM)),
            sm_most_mhz=_number(get("MaxClockInfo", nvml.NVML_CLOCK_SM)),
            memory_mhz=_number(get("ClockInfo", nvml.NVML_CLOCK_MEM)),
            memory_most_mhz=_number(get("MaxClockInfo", nvml.NVML_CLOCK_MEM)),
            power_w=_number(get("PowerUsage"), 1e-3),
            power_limit_w=_number(get("EnforcedPowerLimit"), 1e-3),
            temperature_c=_number(get("Temperature", nvml.NVML_TEMPERATURE_GPU)),
            busy_percent=_number(getattr(get("UtilizationRates"), "gpu", None)),
            reasons=reasons_in(_clock_reasons(get)),
        ),
    )


def _clock_reasons(get: Callable[[str], int | None]) -> int | None:
    """The bits of the reasons that limit the clock; drivers before 535 have an older name."""
    newer = get("CurrentClocksEventReasons")
    return get("CurrentClocksThrottleReasons") if newer is None else newer


def reasons_in(bits: int | None) -> tuple[str, ...] | None:
    """The names of the bits; an unknown bit is named by its number."""
    if bits is None:
        return None
    ones = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(_REASONS.get(one, f"reason {one:#x}") for one in ones)


def _handles() -> list[Any]:
    """NVML's handles of the GPUs; empty where NVML does not work."""
    if driver_fault() is not None:
        return []
    count = _query("nvmlDeviceGetCount") or 0
    found = [_query("nvmlDeviceGetHandleByIndex", number) for number in range(count)]
    return [handle for handle in found if handle is not None]


def _get(handle: Any, what: str, *rest: Any) -> Any:
    """A property of a GPU; None where the GPU does not report it."""
    return _query(f"nvmlDeviceGet{what}", handle, *rest)


def _query(function: str, *arguments: Any) -> Any:
    """The result of an NVML function; None where it fails, as for lack of support or rights."""
    nvml = _nvml()
    try:
        return getattr(nvml, function)(*arguments)
    except nvml.NVMLError:
        return None


def _number(value: float | None, unit: float = 1.0) -> float | None:
    """The value times ``unit``; None stays None."""
    return None if value is None else value * unit


def _switch(value: int | None) -> bool | None:
    """A flag as a bool; None stays None."""
    return None if value is None else bool(value)


@functools.cache
def _nvml() -> Any:
    """NVML, initialised once.

    Raises:
        Unavailable: the package or the driver is missing, or the library does not start.
    """
    try:
        import pynvml
    except ImportError as err:
        raise Unavailable(
            "NVML, NVIDIA's management library, cannot be used",
            got="the package nvidia-ml-py is not installed",
            fix="pip install nvidia-ml-py; GPUs work without it, but their state is unknown",
        ) from err
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as err:
        raise Unavailable(
            "NVIDIA's driver does not work here",
            got=f"its management library does not start: {err}",
            fix="install or restart NVIDIA's driver, or use --device cpu",
        ) from err
    return pynvml
