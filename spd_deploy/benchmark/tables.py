"""The report's tables as text, for the terminal and the HTML report alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spd_deploy.benchmark.device.device_records import DeviceArm, KernelTrace
from spd_deploy.benchmark.formatting import megabytes, milliseconds, percent
from spd_deploy.benchmark.judge import Judgement
from spd_deploy.benchmark.proof import sparse_kernels, why_unproven
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import DeviceDetails, LatencyRow
from spd_deploy.benchmark.stats import Estimate
from spd_deploy.benchmark.summary import kind_of
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.shapes import Shape

NOTHING = "-"
# What stands beside a table of speed-ups.
RATIO_NOTE = (
    "A speed-up is the mean of the rounds' own ratios, so it may differ a little from the ratio of "
    "the two p50 printed here: each p50 is over all rounds together, slow and fast ones."
)
# Of the kernels that an arm launched, so many are named.
_KERNELS_NAMED = 3
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text under column names; the first column names the subject of the row.

    Attributes:
        note: a sentence that stands beside the table; empty for none.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def host_latency_table(report: Report, judgement: Judgement) -> Table:
    """Latency by the host's clock, a row for each arm and shape."""
    return _latency_table(
        "Latency",
        judgement.rows,
        ("p90 ms", "p99 ms", "tokens/s", "runs"),
        _tail_cells,
        compared=report.baseline is not None,
    )


def device_table(report: Report, judgement: Judgement) -> Table | None:
    """Latency by the GPU's clock, with its limit; None where it timed nothing."""
    if not judgement.device:
        return None
    return _latency_table(
        "Latency on the GPU",
        judgement.device,
        ("run by", "limit ms", "bound by", "reached"),
        _limit_cells,
        compared=report.baseline is not None,
    )


def device_details_table(judgement: Judgement) -> Table | None:
    """Times besides the latency on the GPU: the other mode, a cold cache, the host, copies."""
    if not judgement.device:
        return None
    columns = (
        "batch x tokens", "arm", "other mode", "L2 cold", "host", "enqueue", "ids in", "logits out",
    )  # fmt: skip
    rows = tuple(
        (str(row.shape), row.arm, *_detail_cells(row.device))
        for row in judgement.device
        if row.device is not None
    )
    return Table(title="Other times on the GPU, medians in ms", columns=columns, rows=rows)


def kernel_table(report: Report) -> Table | None:
    """The kernels of each arm at each shape, and whether any skips zeros; None on a CPU."""
    if report.device is None:
        return None
    rows = tuple(
        (
            arm.name,
            str(trace.shape),
            str(replace(arm.runtime, kernels=trace.described)),
            _kernels(trace),
            _proof(arm, trace),
            NOTHING if on_gpu.device_bytes is None else megabytes(on_gpu.device_bytes),
            _untimed(on_gpu, trace.shape),
        )
        for arm, on_gpu in zip(report.arms, report.device.arms, strict=True)
        for trace in on_gpu.traces
    )
    columns = (
        "arm", "batch x tokens", "runtime", "longest kernels", "skips zeros", "GPU MB",
        "not run by",
    )  # fmt: skip
    return Table(title="Kernels", columns=columns, rows=rows)


def skipped_table(report: Report) -> Table | None:
    """Everything that was not measured, and why; None where all was."""
    if not report.skipped:
        return None
    rows = tuple((one.name, one.reason) for one in report.skipped)
    return Table(title="Not measured", columns=("", "why"), rows=rows)


def size_table(report: Report) -> Table:
    """Size of each arm on disk and in memory, in megabytes."""
    columns = ("arm", "kind", "model", "folder", "before opening", "opened", "peak")
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


def calibration_table(report: Report) -> Table | None:
    """How well the scores of the arms fit what is true; None where no manifest says it."""
    if all(arm.calibration is None for arm in report.arms):
        return None
    rows = tuple(
        (
            arm.name,
            NOTHING if found is None else found.split,
            *_errors(None if found is None else found.after),
            NOTHING if found is None else f"{found.temperature:.3f}",
            *_errors(None if found is None else found.before),
        )
        for arm in report.arms
        for found in [arm.calibration]
    )
    columns = (
        "arm",
        "split",
        "calibration error",
        "Brier score",
        "temperature",
        "calibration error without",
        "Brier score without",
    )
    return Table(title="Calibration", columns=columns, rows=rows)


def _errors(found: CalibrationError | None) -> tuple[str, str]:
    """Calibration error and Brier score."""
    return (NOTHING, NOTHING) if found is None else (_score(found.expected), _score(found.brier))


def terminal_tables(report: Report, judgement: Judgement) -> tuple[Table, ...]:
    """The tables that the terminal and a notebook show."""
    found = (
        host_latency_table(report, judgement),
        device_table(report, judgement),
        device_details_table(judgement),
        kernel_table(report),
        skipped_table(report),
        size_table(report),
    )
    return tuple(table for table in found if table is not None)


def _latency_table(
    title: str,
    rows: Sequence[LatencyRow],
    columns: tuple[str, ...],
    cells: Callable[[LatencyRow], tuple[str, ...]],
    *,
    compared: bool,
) -> Table:
    """A row for each arm and shape: the median with its interval, the verdict, further cells."""
    verdict = ("speed-up", "verdict") if compared else ()
    return Table(
        title=title,
        columns=("batch x tokens", "arm", "p50 ms", *verdict, *columns),
        note=RATIO_NOTE if compared else "",
        rows=tuple(
            (
                str(row.shape),
                row.arm,
                _estimate(row.p50),
                *(_verdict_cells(row) if compared else ()),
                *cells(row),
            )
            for row in rows
        ),
    )


def _tail_cells(row: LatencyRow) -> tuple[str, ...]:
    """Slow runs, throughput and number of samples."""
    return (
        _estimate(row.p90), _estimate(row.p99), f"{row.tokens_per_s:,.0f}", str(row.samples),
    )  # fmt: skip


def _limit_cells(row: LatencyRow) -> tuple[str, ...]:
    """The mode, the least possible time, and how much of it was reached."""
    assert row.device is not None  # noqa: S101 - a row by the GPU's clock
    limit = row.device.limit
    least = (NOTHING, NOTHING) if limit is None else (_ms(limit.seconds), limit.bound)
    reached = NOTHING if row.reached is None else percent(row.reached)
    return (row.device.mode, *least, reached)


def _detail_cells(details: DeviceDetails) -> tuple[str, ...]:
    """The other times in milliseconds, in the order of the columns."""
    return tuple(
        map(
            _ms,
            (
                details.other_mode_s,
                details.cold_s,
                details.host_s,
                details.enqueue_s,
                details.to_device_s,
                details.to_host_s,
            ),
        )
    )


def _verdict_cells(row: LatencyRow) -> tuple[str, str]:
    """Speed-up with its interval, and the verdict; the baseline has its name instead."""
    if row.speed_up is not None:
        return row.speed_up.numbers, row.speed_up.verdict
    return NOTHING, "baseline" if row.arm == row.against else NOTHING


def _estimate(estimate: Estimate | None) -> str:
    """A time with its interval in brackets."""
    if estimate is None:
        return NOTHING
    ends = f"{milliseconds(estimate.low)}, {milliseconds(estimate.high)}"
    return f"{milliseconds(estimate.value)} [{ends}]"


def _kernels(trace: KernelTrace) -> str:
    """The longest kernels, each with its share of the time of all."""
    if trace.kernels is None:
        return "not traced"
    total = sum(kernel.seconds for kernel in trace.kernels) or 1.0
    named = sorted(trace.kernels, key=lambda kernel: -kernel.seconds)[:_KERNELS_NAMED]
    return "; ".join(f"{k.name[:_LONGEST_NAME]} {percent(k.seconds / total)}" for k in named)


def _proof(facts: ArmFacts, trace: KernelTrace) -> str:
    """Whether something that ran skips zeros, and how that is known."""
    if facts.sparsity is None:
        return "dense"
    if why := why_unproven(facts, trace):
        return f"no: {why}"
    if known := sparse_kernels(trace):
        return f"yes: {known[0][:_LONGEST_NAME]}"
    return "yes: by construction, its products are over kept weights alone"


def _untimed(arm: DeviceArm, shape: Shape) -> str:
    """The modes that it could not be run in at a shape."""
    here = (one for one in arm.untimed if one.shape == shape)
    return "; ".join(f"{one.mode}: {one.reason}" for one in here) or NOTHING


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


def _ms(seconds: float | None) -> str:
    """Milliseconds, where there are any."""
    return NOTHING if seconds is None else milliseconds(seconds)
