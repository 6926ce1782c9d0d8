"""The lines of ``rows.jsonl`` that ``gpu_artefacts`` writes: one for each arm at each shape."""

from collections.abc import Iterator, Mapping
from typing import Any

from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import LatencyRow

Line = Mapping[str, Any]


def lines_of(report: Report) -> Iterator[Line]:
    """A line for each arm at each shape, by both clocks, and one for each that was skipped."""
    judgement = judge(report)
    device = {(row.arm, row.shape): row for row in judgement.device}
    for row in judgement.rows:
        by_gpu = device.get((row.arm, row.shape))
        line: dict[str, Any] = {
            "arm": row.arm,
            "shape": str(row.shape),
            "host_p50_s": row.p50.value,
        }
        if row.speed_up is not None:
            line |= {"against": row.against, "host": str(row.speed_up)}
        yield {**line, **(by_clock(by_gpu) if by_gpu else {})}
    for one in report.skipped:
        yield {"arm": one.name, "not_run": one.reason}


def by_clock(row: LatencyRow) -> Line:
    """The figures of an arm by the GPU's clock."""
    assert row.device is not None  # noqa: S101 - a row by the GPU's clock
    line: dict[str, Any] = {
        "run_by": row.device.mode,
        "gpu_s": row.p50.value,
        "cold_s": row.device.cold_s,
    }
    if (limit := row.device.limit) is not None:
        line |= {"limit_s": limit.seconds, "bound": limit.bound}
    return line if row.speed_up is None else {**line, "gpu": str(row.speed_up)}


def line_text(line: Line) -> str:
    """A line for who looks on."""
    about = " ".join(str(line[name]) for name in ("job", "arm") if name in line)
    if "not_run" in line:
        return f"{about}: not run: {line['not_run']}"
    if "gpu_s" not in line:
        return about
    return f"{about}: {1e3 * line['gpu_s']:.3f} ms, {line.get('gpu', 'dense')}"
