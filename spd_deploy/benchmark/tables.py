"""The report's tables, as text: for the terminal and for the page alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spd_deploy.benchmark.formatting import megabytes, milliseconds, percent
from spd_deploy.benchmark.judge import Judgement, LatencyRow
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import Estimate
from spd_deploy.benchmark.summary import kind_of
from spd_deploy.machine.facts import Machine

NOTHING = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text under column names; the first column is what a row is about."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def latency_table(report: Report, judgement: Judgement) -> Table:
    """One row an arm and shape; an interval stands in brackets."""
    compared = report.baseline is not None
    columns = (
        *("batch x tokens", "arm", "p50 ms"),
        *(("speed-up", "verdict") if compared else ()),
        *("p90 ms", "p99 ms", "tokens/s", "runs"),
    )
    rows = tuple(_latency_row(row, compared=compared) for row in judgement.rows)
    return Table(title="Latency", columns=columns, rows=rows)


def size_table(report: Report) -> Table:
    """What each arm takes on disk and in memory, in megabytes."""
    columns = ("arm", "what", "model", "folder", "before opening", "opened", "peak")
    rows = tuple((arm.name, kind_of(arm), *_sizes(arm)) for arm in report.arms)
    return Table(title="Size and memory, MB", columns=columns, rows=rows)


def lowering_table(report: Report) -> Table:
    """How the matrices of each arm are run, and why."""
    rows = tuple(
        (
            arm.name,
            group.lowering,
            str(group.matrices),
            percent(group.density, 1),
            percent(group.flops_share, 1),
            group.reason,
        )
        for arm in report.arms
        for group in arm.lowered
    )
    columns = ("arm", "run", "matrices", "non-zero", "products left", "reason")
    return Table(title="How the matrices are run", columns=columns, rows=rows)


def accuracy_table(report: Report) -> Table | None:
    """The scores of the arms' checkpoints; None where no manifest has any."""
    metrics = sorted({name for arm in report.arms for name in arm.score})
    if not metrics:
        return None
    rows = tuple(
        (
            arm.name,
            arm.task,
            arm.split or NOTHING,
            *(_score(arm.score.get(name)) for name in metrics),
            f"{arm.parity:.1g}",
        )
        for arm in report.arms
    )
    columns = ("arm", "task", "split", *metrics, "logits differ by")
    return Table(title="Accuracy", columns=columns, rows=rows)


def machine_table(report: Report) -> Table:
    """Where and how it was measured."""
    machine, settings, seen = report.machine, report.settings, report.conditions
    rows = (
        ("processor", f"{machine.cpu}; {machine.cores} cores, {machine.usable_cores:g} usable"),
        ("instruction sets", ", ".join(machine.features) or NOTHING),
        ("clock governor", machine.governor or "not told by the system"),
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


def files_table(report: Report) -> Table:
    """Which models were measured, by their hashes."""
    rows = tuple(
        (arm.name, name, sha256) for arm in report.arms for name, sha256 in arm.models.items()
    )
    return Table(title="Model files", columns=("arm", "file", "SHA-256"), rows=rows)


def _latency_row(row: LatencyRow, *, compared: bool) -> tuple[str, ...]:
    """The cells of an arm at a shape; what one reads for stands before the details."""
    return (
        str(row.shape),
        row.arm,
        _estimate(row.p50),
        *(_verdict_cells(row) if compared else ()),
        _estimate(row.p90),
        _estimate(row.p99),
        f"{row.tokens_per_s:,.0f}",
        str(row.samples),
    )


def _verdict_cells(row: LatencyRow) -> tuple[str, str]:
    """Speed-up and verdict."""
    found = row.speed_up
    if found is None:
        return NOTHING, "baseline"
    return found.numbers, found.verdict


def _estimate(estimate: Estimate | None) -> str:
    """A time with its interval."""
    if estimate is None:
        return NOTHING
    ends = f"{milliseconds(estimate.low)}, {milliseconds(estimate.high)}"
    return f"{milliseconds(estimate.value)} [{ends}]"


def _sizes(arm: ArmFacts) -> Sequence[str]:
    """Sizes on disk, then in memory."""
    disk = (arm.model_bytes, arm.folder_bytes)
    if arm.memory is None:
        return [*map(megabytes, disk), NOTHING, NOTHING, NOTHING]
    memory = (arm.memory.before_bytes, arm.memory.opened_bytes, arm.memory.peak_bytes)
    return [megabytes(size) for size in (*disk, *memory)]


def _score(value: float | None) -> str:
    """A metric in four digits."""
    return NOTHING if value is None else f"{value:.4f}"


def _gpus(machine: Machine) -> str:
    """The GPUs with their drivers."""
    named = ", ".join(f"{g.name}, driver {g.driver}" for g in machine.gpus) or "none"
    return named if machine.driver_cuda is None else f"{named}, CUDA {machine.driver_cuda}"


def _runtime(arm: ArmFacts) -> str:
    """An arm's runtime as its session described it."""
    threads = (
        "threads not told" if arm.runtime.threads is None else f"{arm.runtime.threads} threads"
    )
    return f"{arm.runtime}, {threads}"


def _unique(texts: Iterable[str]) -> str:
    """Each text once."""
    return "; ".join(dict.fromkeys(texts))
