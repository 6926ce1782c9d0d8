"""The processor, its memory and the disk: what is there, and what each feature is good for."""

import platform
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.cores import physical_cores, usable_cores
from spd_deploy.machine.check import Check, no, yes

GROUP = "Processor"
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_GB = 10**9
_LITTLE_MEMORY_BYTES = 4 * _GB
_LITTLE_DISK_BYTES = 5 * _GB


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """An instruction set that matters here, and the names it goes by in the processor's flags."""

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
    """The processor's marketing name, or its architecture where the system does not tell it."""
    return named_in(_told()) or platform.processor() or platform.machine() or "unknown"


def cpu_features() -> tuple[str, ...] | None:
    """The names of those :data:`FEATURES` that the processor has; None where it is not told."""
    flags = flags_in(_told())
    return None if flags is None else features_in(flags)


def named_in(cpuinfo: str) -> str | None:
    """The first processor's name in Linux's ``/proc/cpuinfo``; None where it has none."""
    return _field(cpuinfo, "model name")


def flags_in(cpuinfo: str) -> tuple[str, ...] | None:
    """The first processor's flags in there; ARM calls them ``Features``."""
    told = _field(cpuinfo, "flags") or _field(cpuinfo, "Features")
    return None if told is None else tuple(told.split())


def features_in(flags: Collection[str]) -> tuple[str, ...]:
    """The names of those :data:`FEATURES` that ``flags`` spells."""
    return tuple(feature.name for feature in FEATURES if set(feature.flags) & set(flags))


def governor() -> str | None:
    """How the kernel sets the clock, such as ``performance``; None where it does not say."""
    return _text_of(_GOVERNOR)


def memory_bytes() -> int:
    """Memory of the machine."""
    import psutil

    return int(psutil.virtual_memory().total)


def processor_checks() -> Iterator[Check]:
    """The processor and its instruction sets, memory and disk."""
    import psutil

    yield yes(
        GROUP, "CPU", f"{cpu_name()}, {physical_cores()} cores, {usable_cores():g} usable here"
    )
    yield from feature_checks(cpu_features())
    memory = psutil.virtual_memory()
    yield room_check("memory", memory.available, memory.total, _LITTLE_MEMORY_BYTES)
    disk = shutil.disk_usage(".")
    yield room_check("disk", disk.free, disk.total, _LITTLE_DISK_BYTES)


def feature_checks(present: Collection[str] | None) -> Iterator[Check]:
    """A line for each instruction set that matters here; one where the system tells none."""
    if present is None:
        yield no(
            GROUP,
            "instruction sets",
            reason=f"{platform.system()} has no {_CPUINFO}, which would list them",
            remedy="everything runs all the same; measure with: spd bench",
        )
        return
    for feature in FEATURES:
        if feature.name in present:
            yield yes(GROUP, feature.name, feature.use)
        else:
            yield no(
                GROUP,
                feature.name,
                reason=f"the processor does not offer {feature.name}: {feature.use}",
                remedy="everything runs without it, only slower; measure with: spd bench",
            )


def room_check(name: str, free_bytes: int, total_bytes: int, enough_bytes: int) -> Check:
    """Whether enough memory or disk is free to train and export a BERT-base."""
    found = f"{free_bytes / _GB:.1f} of {total_bytes / _GB:.1f} GB free"
    if free_bytes >= enough_bytes:
        return yes(GROUP, name, found)
    return no(
        GROUP,
        name,
        found=found,
        reason=f"less than the {enough_bytes / _GB:g} GB that a BERT-base needs is free",
        remedy="free some, or work with a smaller model",
    )


def _told() -> str:
    """What Linux tells of the processors; nothing elsewhere."""
    return _text_of(_CPUINFO) or ""


def _field(cpuinfo: str, name: str) -> str | None:
    """The value in the first line of this name, ``name : value``."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip() or None
    return None


def _text_of(file: Path) -> str | None:
    """The content of a kernel's file, None where it has none."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
