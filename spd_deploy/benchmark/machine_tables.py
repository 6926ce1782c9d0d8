"""Tables of where and how a report was measured: machine, settings, GPU, model files."""

from collections.abc import Iterable, Sequence

from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.formatting import megabytes
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.tables import NOTHING, Table
from spd_deploy.domain.nvidia import GpuState
from spd_deploy.machine.facts import Machine


def machine_table(report: Report) -> Table:
    """The machine, its load, and the settings of the run."""
    machine, settings, seen = report.machine, report.settings, report.conditions
    rows = (
        ("processor", f"{machine.cpu}; {machine.cores} cores, {machine.usable_cores:g} usable"),
        ("instruction sets", ", ".join(machine.features) or NOTHING),
        ("clock governor", machine.governor or "unknown"),
        ("memory", f"{machine.memory_bytes / 1e9:.1f} GB"),
        ("GPU", _gpus(machine)),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("packages", ", ".join(f"{name} {number}" for name, number in machine.versions.items())),
        ("device", settings.device),
        ("threads", str(settings.threads or "left to the runtime")),
        ("runtime", _unique(_runtime(arm) for arm in report.arms)),
        ("rounds", f"{settings.rounds}, each {settings.series.seconds:.3g} s an arm and shape"),
        ("load before", NOTHING if seen.load_before is None else f"{seen.load_before:.2f}"),
        ("other processes", f"{seen.others_cores:.2f} cores busy during the run"),
        ("token ids", f"drawn evenly with seed {settings.seed}; all real, none padding"),
        ("measured", report.created),
    )
    return Table(title="Machine and settings", columns=("", ""), rows=rows)


def gpu_table(report: Report) -> Table | None:
    """The card, its state during the run, and its measured limits; None on a CPU."""
    part = report.device
    if part is None:
        return None
    rows = (
        *_card_rows(part),
        ("SM clock", _range([state.sm_mhz for state in part.during], "MHz")),
        ("memory clock", _range([state.memory_mhz for state in part.during], "MHz")),
        ("power", _range([state.power_w for state in part.during], "W")),
        ("temperature", _range([state.temperature_c for state in part.during], "C")),
        ("before the run", _state(part.before)),
        ("after the run", _state(part.after)),
        ("readings during the run", str(len(part.during))),
        *_limit_rows(part),
        ("L2 cache", f"{megabytes(part.l2_bytes)} MB"),
        ("libraries", ", ".join(f"{name} {v}" for name, v in part.versions.items()) or NOTHING),
    )
    return Table(title="The GPU", columns=("", ""), rows=rows)


def files_table(report: Report) -> Table:
    """The model files that were measured, with their hashes."""
    rows = tuple(
        (arm.name, name, sha256) for arm in report.arms for name, sha256 in arm.models.items()
    )
    return Table(title="Model files", columns=("arm", "file", "SHA-256"), rows=rows)


def _limit_rows(part: DevicePart) -> tuple[tuple[str, str], ...]:
    """The measured rates of products and of copies."""
    peaks = tuple(
        (f"peak in {peak.precision}", f"{peak.flops_per_s / 1e12:.1f} TFLOP/s, {peak.size} wide")
        for peak in part.peaks
    )
    return (*peaks, ("memory bandwidth", f"{part.memory_copy.bytes_per_s / 1e9:.0f} GB/s"))


def _card_rows(part: DevicePart) -> tuple[tuple[str, str], ...]:
    """The card's name and modes."""
    if part.card is None:
        return (("card", "unknown: the driver does not tell"),)
    on = {True: "on", False: "off", None: NOTHING}
    return (
        ("card", f"{part.card.name}, driver {part.card.driver}"),
        ("persistence mode", on[part.card.persistence]),
        ("MIG", on[part.card.mig]),
    )


def _range(values: Sequence[float | None], unit: str) -> str:
    """From the least to the greatest value that was read."""
    seen = [value for value in values if value is not None]
    if not seen:
        return NOTHING
    ends = dict.fromkeys(f"{value:.0f}" for value in (min(seen), max(seen)))
    return f"{' to '.join(ends)} {unit}"


def _state(state: GpuState | None) -> str:
    """One reading of the card's state, in a line."""
    if state is None:
        return NOTHING
    readings = {
        "MHz": state.sm_mhz,
        f"W of {state.power_limit_w or 0:.0f}": state.power_w,
        "C": state.temperature_c,
        "% busy": state.busy_percent,
    }
    parts = [f"{value:.0f} {unit}" for unit, value in readings.items() if value is not None]
    return ", ".join([*parts, *(state.reasons or ())]) or NOTHING


def _gpus(machine: Machine) -> str:
    """The GPUs with their drivers."""
    named = ", ".join(f"{g.name}, driver {g.driver}" for g in machine.gpus) or "none"
    return named if machine.driver_cuda is None else f"{named}, CUDA {machine.driver_cuda}"


def _runtime(arm: ArmFacts) -> str:
    """An arm's runtime as its session described it."""
    count = arm.runtime.threads
    return f"{arm.runtime}, {'unknown threads' if count is None else f'{count} threads'}"


def _unique(texts: Iterable[str]) -> str:
    """The texts without repetitions, joined by semicolons."""
    return "; ".join(dict.fromkeys(texts))
