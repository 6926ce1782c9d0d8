"""How many cores a process may use: affinity, hyper-threads, and quotas of both control groups."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from spd_deploy.domain.cores import (
    allowed_cpus,
    cores_of,
    default_threads,
    physical_cores,
    quota_cores,
    usable_cores,
)

_V2 = "30 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
_V1 = "31 24 0:28 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
_MEMORY = "32 24 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
_HOST = "sys/fs/cgroup/cpu,cpuacct/docker/abc"


def system(folder: Path, files: Mapping[str, str]) -> Path:
    """A file system with these files of the kernel's."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    return folder


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ("max 100000", None),
        ("200000 100000", 2.0),
        ("50000 100000", 0.5),
        ("", None),
        ("max", None),
        ("0 100000", None),
    ],
)
def test_a_quota_of_version_2_is_read(tmp_path: Path, told: str, cores: float | None) -> None:
    """Microseconds over their period are cores, and ``max`` is no limit."""
    files = {
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": _V2,
        "sys/fs/cgroup/cpu.max": told,
    }
    assert quota_cores(system(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000", 1.5), ("-1", None), ("", None), ("400000", 4.0)]
)
@pytest.mark.parametrize(
    ("group", "top", "folder"),
    [
        ("/", "/", "sys/fs/cgroup/cpu,cpuacct"),
        ("/docker/abc", "/docker/abc", "sys/fs/cgroup/cpu,cpuacct"),
        ("/docker/abc", "/", _HOST),
        ("/kubepods/pod1/abc", "/other", "sys/fs/cgroup/cpu,cpuacct"),
    ],
)
def test_a_quota_of_version_1_is_read(
    tmp_path: Path, quota: str, cores: float | None, group: str, top: str, folder: str
) -> None:
    """Wherever the group's folder is seen from the process, and -1 is no limit."""
    files = {
        "proc/self/cgroup": f"4:memory:/elsewhere\n2:cpu,cpuacct:{group}\n0::/",
        "proc/self/mountinfo": "\n".join((_MEMORY, _V1.format(top=top))),
        f"{folder}/cpu.cfs_quota_us": quota,
        f"{folder}/cpu.cfs_period_us": "100000",
    }
    assert quota_cores(system(tmp_path, files)) == cores


def test_the_narrowest_group_around_a_process_holds(tmp_path: Path) -> None:
    """A limit on any group above the process's own limits it too."""
    files = {
        "proc/self/cgroup": "0::/kubepods/pod1/abc",
        "proc/self/mountinfo": _V2,
        "sys/fs/cgroup/kubepods/cpu.max": "800000 100000",
        "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000",
        "sys/fs/cgroup/kubepods/pod1/abc/cpu.max": "max 100000",
    }
    assert quota_cores(system(tmp_path, files)) == 1.5
    assert default_threads(tmp_path) == 1


@pytest.mark.parametrize(
    "files", [{}, {"proc/self/cgroup": "nonsense", "proc/self/mountinfo": "-"}]
)
def test_without_control_groups_there_is_no_quota(tmp_path: Path, files: dict[str, str]) -> None:
    """A system that has none, or whose files say nothing, limits nothing."""
    assert quota_cores(system(tmp_path, files)) is None


def test_hyper_threads_of_a_core_count_once(tmp_path: Path) -> None:
    """Of CPUs that share cores as many are counted as there are cores."""
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = system(tmp_path, {topology.format(n): f"{n % 4},{n % 4 + 4}" for n in range(8)})

    assert cores_of(frozenset(range(8)), root) == 4
    assert cores_of(frozenset({0, 4}), root) == 1
    assert cores_of(frozenset({0, 1, 5}), root) == 2


def test_threads_fit_the_cores() -> None:
    """By default no more threads run than there are cores to run them."""
    assert 1 <= default_threads() <= max(1, usable_cores())
    assert default_threads() <= physical_cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_threads_follow_the_affinity() -> None:
    """A process that may run on one CPU takes one thread."""
    script = f"""
import os
os.sched_setaffinity(0, {{{min(allowed_cpus())}}})
from spd_deploy.domain.cores import default_threads
print(default_threads())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("named", "bounds"), [("1", True), ("100000", False), ("", False), ("0", False), ("x", False)]
)
def test_omp_num_threads_bounds_the_number(
    monkeypatch: pytest.MonkeyPatch, named: str, bounds: bool
) -> None:
    """A launcher that shares the cores out is obeyed, and nonsense is passed over."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = default_threads()

    monkeypatch.setenv("OMP_NUM_THREADS", named)

    assert default_threads() == (1 if bounds else free)
