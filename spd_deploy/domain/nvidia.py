"""NVIDIA's driver, asked through its management library (NVML): the GPUs and what they do now.

Nothing else in the project asks for clocks, power, memory or versions of the driver. The package
``nvidia-ml-py`` binds the library, which comes with the driver; neither PyTorch nor CUDA is loaded.
What a GPU does not tell, as consumer cards and MIG slices often do not, is None. No field names a
machine or a person.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import Unavailable

_SPARSE_SINCE = (8, 0)
# NVML's bits of why the clock is where it is.
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
    """One GPU; ``compute_capability`` is NVIDIA's version of its instruction set, as ``9.0``."""

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
    """One look at a GPU.

    Attributes:
        at_s: seconds since the looking began.
        reasons: what keeps the clock from being higher; None where the GPU does not tell.
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
        """The reasons that slow work down."""
        return tuple(reason for reason in self.reasons or () if reason not in HARMLESS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What does not change while a GPU works; None where it does not tell."""

    name: str
    driver: str
    persistence: bool | None
    mig: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A card with its state."""

    card: Card
    state: GpuState


def driver_fault() -> Unavailable | None:
    """Why NVIDIA's driver cannot be asked, and what to do about it; None if it can."""
    try:
        _library()
    except Unavailable as err:
        return err
    return None


def driver_version() -> str | None:
    """NVIDIA's version of the driver, such as ``580.95.05``; None where it cannot be asked."""
    return None if driver_fault() else _asked("nvmlSystemGetDriverVersion")


def driver_cuda() -> str | None:
    """The newest CUDA that the driver runs, such as ``13.0``; None where it cannot be asked."""
    number = None if driver_fault() else _asked("nvmlSystemGetCudaDriverVersion")
    return None if number is None else cuda_in(number)


def cuda_in(number: int) -> str:
    """CUDA's version as its driver spells it in a number: 12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def gpus() -> tuple[Gpu, ...]:
    """The machine's GPUs; none where the driver cannot be asked (:func:`driver_fault`)."""
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


def look(uuid: str | None, *, at_s: float) -> Look | None:
    """The GPU of this id (``GPU-...``); None where the driver does not tell of it.

    Without an id, or under one that is not listed (a MIG slice has one of its own), it is the only
    GPU, where there is only one.
    """
    handles = _handles()
    same = [one for one in handles if uuid and _get(one, "UUID") == uuid]
    found = same or handles
    return _look(found[0], at_s) if len(found) == 1 else None


def processes() -> int | None:
    """How many processes compute on the machine's GPUs; None where it is not told.

    In a container others may be hidden, so none listed does not prove that there is none.
    """
    running = [_get(handle, "ComputeRunningProcesses") for handle in _handles()]
    return None if not running or None in running else sum(map(len, running))


def free_bytes(which: str) -> int:
    """Free memory of a GPU, which is given by its number or its id, as CUDA_VISIBLE_DEVICES does.

    Raises:
        Unavailable: the driver does not tell.
    """
    nvml = _library()
    by, key = ("Index", int(which)) if which.isdigit() else ("UUID", which)
    try:
        handle = getattr(nvml, f"nvmlDeviceGetHandleBy{by}")(key)
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
    except nvml.NVMLError as err:
        raise Unavailable(
            f"the driver does not tell how much memory GPU {which} has free",
            got=err,
            fix="set CUDA_VISIBLE_DEVICES to a GPU that `nvidia-smi -L` lists",
        ) from err


def _look(handle: Any, at_s: float) -> Look:
    """What the driver tells of one GPU."""
    nvml = _library()
    get = functools.partial(_get, handle)
    return Look(
        card=Card(
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
    """The bits of why the clock is where it is; drivers before 535 know them by the older name."""
    newer = get("CurrentClocksEventReasons")
    return get("CurrentClocksThrottleReasons") if newer is None else newer


def reasons_in(bits: int | None) -> tuple[str, ...] | None:
    """The names of the bits; a bit without a name keeps its number."""
    if bits is None:
        return None
    ones = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(_REASONS.get(one, f"reason {one:#x}") for one in ones)


def _handles() -> list[Any]:
    """NVML's handles of the GPUs; none where the driver cannot be asked."""
    if driver_fault() is not None:
        return []
    count = _asked("nvmlDeviceGetCount") or 0
    found = [_asked("nvmlDeviceGetHandleByIndex", number) for number in range(count)]
    return [handle for handle in found if handle is not None]


def _get(handle: Any, what: str, *rest: Any) -> Any:
    """A property of a GPU; None where it does not tell."""
    return _asked(f"nvmlDeviceGet{what}", handle, *rest)


def _asked(function: str, *arguments: Any) -> Any:
    """What a function of NVML answers; None where the GPU, the driver or the user may not."""
    nvml = _library()
    try:
        return getattr(nvml, function)(*arguments)
    except nvml.NVMLError:
        return None


def _number(value: float | None, unit: float = 1.0) -> float | None:
    """In the unit that is asked for."""
    return None if value is None else value * unit


def _switch(value: int | None) -> bool | None:
    """On or off."""
    return None if value is None else bool(value)


@functools.cache
def _library() -> Any:
    """NVML, started once and for good.

    Raises:
        Unavailable: no package, no driver, or one that does not start.
    """
    try:
        import pynvml
    except ImportError as err:
        raise Unavailable(
            "NVIDIA's driver cannot be asked",
            got="the package nvidia-ml-py is not installed",
            fix="pip install nvidia-ml-py; GPUs work without it, but nothing is known of them",
        ) from err
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as err:
        raise Unavailable(
            "no NVIDIA driver works here",
            got=f"its management library does not start: {err}",
            fix="install or restart NVIDIA's driver, or use --device cpu",
        ) from err
    return pynvml
