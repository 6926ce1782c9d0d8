"""How many cores this process may use, and so how many threads it takes where none are named.

Three things bound that number: the CPUs that the process is allowed to run on (its affinity, which
follows cpusets), how many of those are hyper-threads of one core, and the processor time that its
control group is granted. Containers set the last two, for versions 1 and 2 of control groups alike.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
# Where a container sees its own group, for systems that do not say what is mounted where.
_USUAL = ("sys/fs/cgroup", "sys/fs/cgroup/cpu")
_V1_QUOTA, _V1_PERIOD, _V2_QUOTA = "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max"


def physical_cores() -> int:
    """Cores of the machine, without hyper-threads; 1 where that is unknown."""
    import psutil

    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def usable_cores(root: Path = _ROOT) -> float:
    """Cores that this process may use: its affinity, less if a container's quota says so."""
    cores = float(len(allowed_cpus()))
    quota = quota_cores(root)
    return cores if quota is None else min(cores, quota)


def default_threads(root: Path = _ROOT) -> int:
    """As many threads as there are cores that this process may use, hyper-threads left out.

    Part of a core, as a quota may grant, counts for nothing beside whole ones: a thread more would
    spend the quota early and then all of them would wait. ``OMP_NUM_THREADS`` bounds the number, as
    it does in other tools: launchers set it where several processes share the cores.
    """
    named = os.environ.get("OMP_NUM_THREADS", "")
    most = int(named) if named.isdecimal() and int(named) else None
    found = max(1, min(cores_of(allowed_cpus(), root), int(usable_cores(root))))
    return found if most is None else min(found, most)


def allowed_cpus() -> frozenset[int]:
    """The numbers of the CPUs that this process may run on; all where the system does not say."""
    affinity = getattr(os, "sched_getaffinity", None)
    return frozenset(affinity(0) if affinity else range(os.cpu_count() or 1))


def cores_of(cpus: frozenset[int], root: Path = _ROOT) -> int:
    """On how many cores these CPUs lie; hyper-threads of one core count once."""
    siblings = [
        _text(root / f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in cpus
    ]
    if siblings and None not in siblings:
        return len(set(siblings))
    return min(len(cpus), physical_cores())


def quota_cores(root: Path = _ROOT) -> float | None:
    """Cores whose time this process's control groups grant; None for no limit.

    The narrowest limit of the group and of the groups around it holds.
    """
    folders = (*_groups(root), *(root / folder for folder in _USUAL))
    limits = [limit for folder in folders if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _limit(folder: Path) -> float | None:
    """Microseconds of processor time a period, as a group's files say them; None for no limit."""
    if (quota_line := _text(folder / _V2_QUOTA)) is not None:
        quota, period = (*quota_line.split(), "", "")[:2]
    else:
        quota, period = (_text(folder / name) or "" for name in (_V1_QUOTA, _V1_PERIOD))
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None  # "max" or -1, or no group that limits time
    return int(quota) / int(period)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that may limit this process's time, and those around them."""
    mounts = list(_mounts(root))
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        for top, version, mounted, options in mounts:
            unified = number == "0" and not controllers and version == "cgroup2"
            if unified or (
                version == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options
            ):
                yield from _upwards(root / mounted.lstrip("/"), _below(path, top))


def _mounts(root: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Each mounted hierarchy: the group at its top, its version, where it is, and its options."""
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            yield fields[3], kind[0], fields[4], kind[2].split(",")


def _below(path: str, top: str) -> PurePosixPath:
    """A group's path as seen from the top that is mounted; the top itself where it is not below.

    A container that shares its host's names of groups sees its own at the top.
    """
    group = PurePosixPath("/", path)
    return group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()


def _upwards(mounted: Path, below: PurePosixPath) -> Iterator[Path]:
    """The folder of a group and of each around it."""
    for part in (below, *below.parents):
        yield mounted / part


def _text(file: Path) -> str | None:
    """The content of a file of the kernel; None where there is none."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
