"""NVIDIA's GPUs and driver, as ``nvidia-smi`` and ``libcuda`` tell of them."""

import functools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.machine.check import Check, no, yes
from spd_deploy.machine.gpu_state import Look, look
from spd_deploy.sessions.cuda.library import driver_fault

GROUP = "NVIDIA"
_FIELDS = "name,driver_version,compute_cap,memory.total"
_PATIENCE_S = 20.0
_MIB = 1 << 20
_SPARSE_SINCE = (8, 0)
_WITHOUT = "use --device cpu here, or a machine with an NVIDIA GPU"


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


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that ``nvidia-smi`` lists; none where it is missing or fails."""
    return _asked()[0]


def why_no_gpu() -> str | None:
    """Why :func:`gpus` has none, as far as ``nvidia-smi`` tells; None if it has some."""
    return _asked()[1]


@functools.cache
def _asked() -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs, or why there are none; asked once, since it can take seconds."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except FileNotFoundError:
        return (), "nvidia-smi, which would list GPUs, is not installed"
    except (OSError, subprocess.TimeoutExpired) as err:
        return (), f"nvidia-smi does not answer: {err}"
    if done.returncode != 0:
        words = (done.stdout + done.stderr).split()
        return (), f"nvidia-smi failed: {' '.join(words) or f'code {done.returncode}'}"
    found = gpus_in(done.stdout)
    return found, None if found else "nvidia-smi lists none"


def gpus_in(listing: str) -> tuple[Gpu, ...]:
    """The GPUs of ``nvidia-smi``'s comma-separated lines; lines it cannot fill in are left out."""
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    return tuple(
        Gpu(name=row[0], driver=row[1], compute_capability=row[2], memory_bytes=int(row[3]) * _MIB)
        for row in rows
        if len(row) == 4 and row[3].isdigit() and row[2].replace(".", "", 1).isdigit()
    )


def nvidia_checks() -> Iterator[Check]:
    """GPU, driver and 2:4 tensor cores, and whether the GPU tells what its clocks do."""
    yield from checks_of(gpus(), driver_fault(), why_no_gpu())
    if gpus():
        yield state_check(look(None, at_s=0.0), count=len(gpus()))


def state_check(seen: Look | None, *, count: int) -> Check:
    """Whether a benchmark can record clocks and throttling; with several GPUs it asks by id."""
    if seen is None and count > 1:
        return yes(GROUP, "clocks and throttling", f"told of each of {count} GPUs")
    if seen is None or seen.state.sm_mhz is None:
        return no(
            GROUP,
            "clocks and throttling",
            reason="nvidia-smi does not tell of them",
            remedy="spd bench runs without, and says that they are not known",
        )
    state = seen.state
    parts = [f"SM at {state.sm_mhz:.0f} MHz"]
    parts += [f"of {state.sm_most_mhz:.0f}"] if state.sm_most_mhz is not None else []
    limit = [f", {state.power_limit_w:.0f} W at most"] if state.power_limit_w is not None else []
    return yes(GROUP, "clocks and throttling", " ".join(parts) + "".join(limit))


def checks_of(found: Sequence[Gpu], fault: str | None, why_none: str | None) -> Iterator[Check]:
    """The same for GPUs and a driver's fault that are known, or why there are no GPUs."""
    if fault is None:
        version = found[0].driver if found else "its version is unknown without nvidia-smi"
        yield yes(GROUP, "driver", version)
    else:
        remedy = "install or restart NVIDIA's driver" if found else _WITHOUT
        yield no(GROUP, "driver", reason=f"NVIDIA's driver: {fault}", remedy=remedy)
    if not found:
        yield no(GROUP, "GPU", reason=why_none or "none is listed", remedy=_WITHOUT)
        yield no(GROUP, "2:4 tensor cores", reason="there is no GPU to have them", remedy=_WITHOUT)
    for gpu in found:
        yield yes(GROUP, "GPU", f"{gpu.name}, {gpu.memory_bytes / _MIB / 1024:.0f} GiB")
        yield _sparse_check(gpu)


def _sparse_check(gpu: Gpu) -> Check:
    """Whether 2:4 sparsity can be multiplied at all."""
    found = f"{gpu.name}, compute capability {gpu.compute_capability}"
    if gpu.has_sparse_cores:
        return yes(GROUP, "2:4 tensor cores", found)
    return no(
        GROUP,
        "2:4 tensor cores",
        found=found,
        reason="tensor cores multiply 2:4 matrices from compute capability 8.0 (Ampere) on",
        remedy="use a block or structured pattern, which is smaller dense products anywhere",
    )
