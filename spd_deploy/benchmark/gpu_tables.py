"""The tables of a run on a GPU, as text."""

from collections.abc import Sequence
from dataclasses import replace

from spd_deploy.benchmark.device.device_records import DeviceArm, DevicePart, KernelTrace
from spd_deploy.benchmark.formatting import megabytes, milliseconds, percent
from spd_deploy.benchmark.gpu_judge import DeviceRow, sparse_kernels, why_unproven
from spd_deploy.benchmark.judge import Judgement
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.tables import NOTHING, Table
from spd_deploy.domain.nvidia import GpuState
from spd_deploy.domain.shapes import Shape

# Of the kernels that an arm launched, so many are named.
_NAMED = 3
_LONGEST_NAME = 60


def device_table(judgement: Judgement) -> Table | None:
    """One row an arm and shape by the GPU's clock, with its limit; None where there is none."""
    if not judgement.device:
        return None
    columns = (
        "batch x tokens", "arm", "run by", "GPU ms", "limit ms", "by", "reached", "speed-up",
        "verdict",
    )  # fmt: skip
    rows = tuple(_device_row(row) for row in judgement.device)
    return Table(title="On the GPU, medians", columns=columns, rows=rows)


def device_details_table(judgement: Judgement) -> Table | None:
    """What is not in the GPU's time, or is otherwise there: the other way, a cold cache, copies."""
    if not judgement.device:
        return None
    columns = (
        "batch x tokens", "arm", "other way", "L2 cold", "host", "enqueue", "ids in", "logits out",
    )  # fmt: skip
    rows = tuple(
        (
            str(row.shape),
            row.arm,
            *map(_ms, (row.other_s, row.cold_s, row.host_s, row.enqueue_s)),
            *map(_ms, (row.to_device_s, row.to_host_s)),
        )
        for row in judgement.device
    )
    return Table(title="Other times on the GPU, medians in ms", columns=columns, rows=rows)


def kernel_table(report: Report) -> Table | None:
    """Which arm ran what at which shape: kernels, and whether any of them skips zeros."""
    if report.gpu is None:
        return None
    rows = tuple(
        (
            arm.name,
            str(ran.shape),
            str(replace(arm.runtime, kernels=ran.said)),
            _kernels(ran),
            _proof(arm, ran),
            NOTHING if on_gpu.device_bytes is None else megabytes(on_gpu.device_bytes),
            _untimed(on_gpu, ran.shape),
        )
        for arm, on_gpu in zip(report.arms, report.gpu.arms, strict=True)
        for ran in on_gpu.ran
    )
    columns = (
        "arm", "batch x tokens", "in", "longest kernels", "skips zeros", "GPU MB", "not run so",
    )  # fmt: skip
    return Table(title="What ran", columns=columns, rows=rows)


def skipped_table(report: Report) -> Table | None:
    """What could not be measured here, and why; None where all was."""
    if report.gpu is None or not report.gpu.absent:
        return None
    rows = tuple((one.name, one.reason) for one in report.gpu.absent)
    return Table(title="Not measured here", columns=("", "why"), rows=rows)


def gpu_table(report: Report) -> Table | None:
    """The card, what it did, and its measured limits."""
    run = report.gpu
    if run is None:
        return None
    rows = (
        *_card_rows(run),
        ("SM clock", _moved([look.sm_mhz for look in run.during], "MHz")),
        ("memory clock", _moved([look.memory_mhz for look in run.during], "MHz")),
        ("power", _moved([look.power_w for look in run.during], "W")),
        ("temperature", _moved([look.temperature_c for look in run.during], "C")),
        ("before the run", _state(run.before)),
        ("after the run", _state(run.after)),
        ("looks at it during the run", str(len(run.during))),
        *(
            (
                f"peak in {peak.precision}",
                f"{peak.flops_per_s / 1e12:.1f} TFLOP/s, {peak.size} wide",
            )
            for peak in run.peaks
        ),
        ("memory's bandwidth", f"{run.copied.bytes_per_s / 1e9:.0f} GB/s"),
        ("L2 cache", f"{megabytes(run.l2_bytes)} MB"),
        ("libraries", ", ".join(f"{name} {v}" for name, v in run.versions.items()) or NOTHING),
    )
    return Table(title="The GPU", columns=("", ""), rows=rows)


def _device_row(row: DeviceRow) -> tuple[str, ...]:
    """The cells of one arm at one shape."""
    limit = (NOTHING,) * 2 if row.limit is None else (_ms(row.limit.seconds), row.limit.bound)
    if row.speed_up is None:
        verdict = (NOTHING, "baseline" if row.arm == row.against else NOTHING)
    else:
        verdict = (row.speed_up.numbers, row.speed_up.verdict)
    return (
        str(row.shape),
        row.arm,
        row.mode,
        _ms(row.gpu_s),
        *limit,
        NOTHING if row.share is None else percent(row.share),
        *verdict,
    )


def _kernels(ran: KernelTrace) -> str:
    """The longest kernels, with their share of the time of all."""
    if ran.kernels is None:
        return "not traced"
    total = sum(kernel.seconds for kernel in ran.kernels) or 1.0
    named = sorted(ran.kernels, key=lambda kernel: -kernel.seconds)[:_NAMED]
    return "; ".join(f"{k.name[:_LONGEST_NAME]} {percent(k.seconds / total)}" for k in named)


def _proof(facts: ArmFacts, ran: KernelTrace) -> str:
    """Whether something that ran skips zeros, and how that is known."""
    if facts.sparsity is None:
        return "dense"
    if why := why_unproven(facts, ran):
        return f"no: {why}"
    if known := sparse_kernels(ran):
        return f"yes: {known[0][:_LONGEST_NAME]}"
    return "yes: by construction, its products are over kept weights alone"


def _untimed(arm: DeviceArm, shape: Shape) -> str:
    """The ways it could not be run at a shape."""
    here = (one for one in arm.untimed if one.name.endswith(f" at {shape}"))
    return "; ".join(f"{one.name}: {one.reason}" for one in here) or NOTHING


def _card_rows(run: DevicePart) -> tuple[tuple[str, str], ...]:
    """What does not change."""
    if run.card is None:
        return (("card", "the driver does not tell of it"),)
    on = {True: "on", False: "off", None: NOTHING}
    return (
        ("card", f"{run.card.name}, driver {run.card.driver}"),
        ("persistence mode", on[run.card.persistence]),
        ("MIG", on[run.card.mig]),
    )


def _moved(values: Sequence[float | None], unit: str) -> str:
    """From the least to the most that was seen."""
    seen = [value for value in values if value is not None]
    if not seen:
        return NOTHING
    ends = dict.fromkeys(f"{value:.0f}" for value in (min(seen), max(seen)))
    return f"{' to '.join(ends)} {unit}"


def _state(state: GpuState | None) -> str:
    """One look, in a line."""
    if state is None:
        return NOTHING
    told = {
        "MHz": state.sm_mhz,
        f"W of {state.power_limit_w or 0:.0f}": state.power_w,
        "C": state.temperature_c,
        "% busy": state.busy_percent,
    }
    parts = [f"{value:.0f} {unit}" for unit, value in told.items() if value is not None]
    return ", ".join([*parts, *(state.reasons or ())]) or NOTHING


def _ms(seconds: float | None) -> str:
    """Milliseconds, where there are any."""
    return NOTHING if seconds is None else milliseconds(seconds)
