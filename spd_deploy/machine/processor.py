"""The checks of the processor, its instruction sets, the memory and the disk."""

import platform
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.cores import physical_cores, usable_cores
from spd_deploy.machine.check import Check, failed, passed

GROUP = "Processor"
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_GB = 10**9
_LITTLE_MEMORY_BYTES = 4 * _GB
_LITTLE_DISK_BYTES = 5 * _GB


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """An instruction set that speeds products up, and its names in the processor's flags."""

    name: str
    flags: tuple[str, ...]
    use: str


FEATURES = (
    Feature(name="AVX2", flags=("avx2",), use="fp32 products"),
    Feature(name="AVX-512", flags=("avx512f",), use="fp32 products twice as wide as AVX2"),
    Feature(
        name="VNNI",
        flags=("avx512_vnni", "avx_vnni"),
        use="int8 products in one instruction",
    ),
    Feature(name="BF16", flags=("avx512_bf16",), use="bf16 products"),
    Feature(name="AMX", flags=("amx_tile", "amx_int8", "amx_bf16"), use="int8 and bf16 tiles"),
)


def cpu_name() -> str:
    """The processor's model name, or its architecture where the name is unknown."""
    return named_in(_cpuinfo()) or platform.processor() or platform.machine() or "unknown"


def cpu_features() -> tuple[str, ...] | None:
    """The :data:`FEATURES` of the processor by name; None where they are unknown."""
    flags = flags_in(_cpuinfo())
    return None if flags is None else features_in(flags)


def named_in(cpuinfo: str) -> str | None:
    """The model name of the first processor in ``/proc/cpuinfo``; None where it is missing."""
    return _field(cpuinfo, "model name")


def flags_in(cpuinfo: str) -> tuple[str, ...] | None:
    """The flags of the first processor in ``/proc/cpuinfo``; ARM calls them ``Features``."""
    flags = _field(cpuinfo, "flags") or _field(cpuinfo, "Features")
    return None if flags is None else tuple(flags.split())


def features_in(flags: Collection[str]) -> tuple[str, ...]:
    """The names of the :data:`FEATURES` that ``flags`` contains."""
    return tuple(feature.name for feature in FEATURES if set(feature.flags) & set(flags))


def governor() -> str | None:
    """The CPU frequency governor, such as ``performance``; None where it is unknown."""
    return _text_of(_GOVERNOR)


def memory_bytes() -> int:
    """Memory of the machine in bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def processor_checks() -> Iterator[Check]:
    """Checks of the processor, its instruction sets, memory and disk."""
    import psutil

    yield passed(
        GROUP, "CPU", f"{cpu_name()}, {physical_cores()} cores, {usable_cores():g} usable here"
    )
    yield from feature_checks(cpu_features())
    memory = psutil.virtual_memory()
    yield room_check("memory", memory.available, memory.total, _LITTLE_MEMORY_BYTES)
    disk = shutil.disk_usage(".")
    yield room_check("disk", disk.free, disk.total, _LITTLE_DISK_BYTES)


def feature_checks(present: Collection[str] | None) -> Iterator[Check]:
    """A check for each instruction set, or one failed check where they are unknown."""
    if present is None:
        yield failed(
            GROUP,
            "instruction sets",
            reason=f"{platform.system()} has no {_CPUINFO}, which would list them",
            remedy="everything runs anyway; measure its speed with: spd bench",
        )
        return
    for feature in FEATURES:
        if feature.name in present:
            yield passed(GROUP, feature.name, feature.use)
        else:
            yield failed(
                GROUP,
                feature.name,
                reason=f"the processor does not offer {feature.name}: {feature.use}",
                remedy="everything runs without it, but slower; measure with: spd bench",
            )


def room_check(name: str, free_bytes: int, total_bytes: int, enough_bytes: int) -> Check:
    """Whether enough memory or disk space is free to train and export a BERT-base."""
    found = f"{free_bytes / _GB:.1f} of {total_bytes / _GB:.1f} GB free"
    if free_bytes >= enough_bytes:
        return passed(GROUP, name, found)
    return failed(
        GROUP,
        name,
        found=found,
        reason=f"less than the {enough_bytes / _GB:g} GB that a BERT-base needs is free",
        remedy=f"free some {name} space, or use a smaller model",
    )


def _cpuinfo() -> str:
    """The content of ``/proc/cpuinfo``; empty on other systems than Linux."""
    return _text_of(_CPUINFO) or ""


def _field(cpuinfo: str, name: str) -> str | None:
    """The value in the first line of this name, ``name : value``."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip() or None
    return None


def _text_of(file: Path) -> str | None:
    """The content of a file of the kernel; None where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
