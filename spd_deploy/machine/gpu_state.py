"""What a GPU is doing now, as ``nvidia-smi`` tells: clocks, power, heat, and what holds it back.

``nvidia-smi`` comes with the driver, so nothing need be installed to ask it, and it runs in a
process of its own, so that no failure of it can stop a measurement. What a GPU does not tell
(``[N/A]``, as consumer cards and MIG slices often say) is None. No field names a machine.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

_PATIENCE_S = 20.0
# Field of nvidia-smi by what it is here; reasons have two names, the newer one first.
_FIELDS = {
    "uuid": "uuid",
    "name": "name",
    "driver": "driver_version",
    "persistence": "persistence_mode",
    "mig": "mig.mode.current",
    "sm_mhz": "clocks.current.sm",
    "sm_most_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.current.memory",
    "memory_most_mhz": "clocks.max.memory",
    "power_w": "power.draw",
    "power_limit_w": "enforced.power.limit",
    "temperature_c": "temperature.gpu",
    "busy_percent": "utilization.gpu",
}
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# NVML's bits of why the clock is where it is.
_BITS = {
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
LOCKED = _BITS[0x2]
HARMLESS = frozenset({_BITS[0x1], LOCKED})


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
    """A card with its state, under the id that CUDA has for it too."""

    uuid: str
    card: Card
    state: GpuState


def query(reasons: str) -> str:
    """The fields to ask for, with one of the two names of the reasons."""
    return ",".join((*_FIELDS.values(), reasons))


def looks_in(listing: str, *, at_s: float) -> tuple[Look, ...]:
    """The GPUs of a comma-separated listing without units; lines of another form are left out."""
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    names = (*_FIELDS, "reasons")
    whole = [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]
    return tuple(_look(row, at_s) for row in whole)


def look(uuid: str | None, *, at_s: float) -> Look | None:
    """The GPU of this id; None where ``nvidia-smi`` does not tell of it.

    Without an id, or under one that is not listed (a MIG slice has one of its own), it is the only
    GPU, where there is only one.
    """
    for reasons in _REASONS:  # a driver that does not know the newer name fails
        if (listing := _asked(f"--query-gpu={query(reasons)}")) is not None:
            return chosen(looks_in(listing, at_s=at_s), uuid)
    return None


def chosen(looks: tuple[Look, ...], uuid: str | None) -> Look | None:
    """The one of this id, else the only one."""
    same = [one for one in looks if uuid is not None and one.uuid == uuid]
    return (same or looks)[0] if same or len(looks) == 1 else None


def processes() -> int | None:
    """How many processes compute on the machine's GPUs; None where it is not told.

    In a container others may be hidden, so none listed does not prove that there is none.
    """
    listing = _asked("--query-compute-apps=pid")
    return None if listing is None else count_of(listing)


def count_of(listing: str) -> int:
    """The process ids in a listing."""
    return sum(line.strip().isdigit() for line in listing.splitlines())


def _asked(what: str) -> str | None:
    """What ``nvidia-smi`` answers; None where it is missing, slow or fails."""
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _look(row: Mapping[str, str], at_s: float) -> Look:
    """One line."""
    numbers = {name: number_in(row[name]) for name in _FIELDS}
    return Look(
        uuid=row["uuid"],
        card=Card(
            name=row["name"],
            driver=row["driver"],
            persistence=switch_in(row["persistence"]),
            mig=switch_in(row["mig"]),
        ),
        state=GpuState(
            at_s=at_s,
            reasons=reasons_in(row["reasons"]),
            sm_mhz=numbers["sm_mhz"],
            sm_most_mhz=numbers["sm_most_mhz"],
            memory_mhz=numbers["memory_mhz"],
            memory_most_mhz=numbers["memory_most_mhz"],
            power_w=numbers["power_w"],
            power_limit_w=numbers["power_limit_w"],
            temperature_c=numbers["temperature_c"],
            busy_percent=numbers["busy_percent"],
        ),
    )


def number_in(text: str) -> float | None:
    """A number; None for ``[N/A]``, ``[Not Supported]``, ``[Unknown Error]`` and their like."""
    try:
        return float(text)
    except ValueError:
        return None


def switch_in(text: str) -> bool | None:
    """Enabled or disabled; None for anything else."""
    return {"enabled": True, "disabled": False}.get(text.lower())


def reasons_in(text: str) -> tuple[str, ...] | None:
    """The names of the bits of a hexadecimal number; a bit without a name keeps its number."""
    try:
        bits = int(text, 16)
    except ValueError:
        return None
    ones = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(_BITS.get(one, f"reason {one:#x}") for one in ones)
