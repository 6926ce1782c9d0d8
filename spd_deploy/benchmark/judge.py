"""From samples to statements: percentiles, speed-ups with a verdict, and the doubts beside them.

Pure: the same report gives the same judgement, to the last digit.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from spd_deploy.benchmark.gpu_doubts import device_caveats
from spd_deploy.benchmark.gpu_judge import DeviceRow, device_rows, unproven
from spd_deploy.benchmark.records import Shape
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import Estimate, Rounds, SpeedUp, estimates, speed_up_of
from spd_deploy.benchmark.warnings import Caveat, caveats_of
from spd_deploy.domain.errors import BadReport
from spd_deploy.machine.facts import Machine
from spd_deploy.sessions.protocol import Description

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRow:
    """One arm at one shape.

    Attributes:
        p90, p99: None where there are too few samples for them.
        tokens_per_s: tokens of one run over its median time.
        speed_up: against the baseline; None for the baseline itself, or without one.
        against: the arm it is compared with.
    """

    arm: str
    shape: Shape
    samples: int
    p50: Estimate
    p90: Estimate | None
    p99: Estimate | None
    tokens_per_s: float
    speed_up: SpeedUp | None
    against: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """All that is said of a report; ``device`` is by the GPU's own clock."""

    rows: tuple[LatencyRow, ...]
    doubts: tuple[Caveat, ...]
    device: tuple[DeviceRow, ...] = ()

    def row(self, arm: str, shape: Shape) -> LatencyRow:
        """What is said of one arm at one shape."""
        return next(row for row in self.rows if (row.arm, row.shape) == (arm, shape))

    def of(self, arm: str) -> tuple[LatencyRow, ...]:
        """The rows of one arm, by shape."""
        return tuple(row for row in self.rows if row.arm == arm)

    def to_json(self) -> dict[str, Any]:
        """For programs: the rows with their verdicts, and the doubts."""
        said = {
            "rows": [_row_to_json(row) for row in self.rows],
            "doubts": [asdict(doubt) for doubt in self.doubts],
        }
        device = [_row_to_json(row) for row in self.device]
        return {**said, "device": device} if device else said


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundSamples:
    """The samples of one arm at one shape, with what must be alike for a comparison."""

    machine: Machine
    runtime: Description
    rounds: Rounds


def judge(report: Report) -> Judgement:
    """Everything that the report's samples support saying."""
    rows = tuple(
        _row(report, arm.name, shape) for shape in report.settings.shapes for arm in report.arms
    )
    device = device_rows(report)
    doubts = (*caveats_of(report), *device_caveats(report, device))
    return Judgement(rows=rows, doubts=doubts, device=device)


def measurement_of(report: Report, arm: str, shape: Shape) -> RoundSamples:
    """One side of a comparison."""
    return RoundSamples(
        machine=report.machine,
        runtime=report.arm(arm).runtime,
        rounds=report.rounds(arm, shape),
    )


def compare(base: RoundSamples, other: RoundSamples) -> SpeedUp:
    """How many times faster ``other`` is than ``base``.

    Raises:
        BadReport: they ran on unlike machines, devices or numbers of threads, or not in the same
            rounds, so that their ratio would not be a speed-up.
    """
    if unlike := ", ".join(_unlike(base, other)):
        raise BadReport(
            "no speed-up is computed between unlike measurements",
            got=f"a different {unlike}",
            fix="measure both arms in one run of: spd bench --baseline",
        )
    return speed_up_of(base.rounds, other.rounds)


def _unlike(base: RoundSamples, other: RoundSamples) -> Iterator[str]:
    """What differs that must not."""
    for name in ("cpu", "cores", "usable_cores", "system", "gpus"):
        if getattr(base.machine, name) != getattr(other.machine, name):
            yield f"machine ({name})"
    if base.runtime.device != other.runtime.device:
        yield "device"
    if base.runtime.threads != other.runtime.threads:
        yield "number of threads"
    if len(base.rounds) != len(other.rounds):
        yield "number of rounds"


def _row(report: Report, arm: str, shape: Shape) -> LatencyRow:
    """One arm at one shape."""
    rounds = report.rounds(arm, shape)
    p50, p90, p99 = estimates(rounds, QUANTILES, seed=report.settings.seed)
    assert p50 is not None  # noqa: S101 - two rounds, so two samples
    return LatencyRow(
        arm=arm,
        shape=shape,
        samples=sum(map(len, rounds)),
        p50=p50,
        p90=p90,
        p99=p99,
        tokens_per_s=shape.tokens / p50.value,
        speed_up=_speed_up(report, arm, shape),
        against=report.baseline_at(shape),
    )


def _speed_up(report: Report, arm: str, shape: Shape) -> SpeedUp | None:
    """Against the report's baseline."""
    baseline = report.baseline_at(shape)
    if baseline is None or arm == baseline:
        return None
    base = measurement_of(report, baseline, shape)
    found = compare(base, measurement_of(report, arm, shape))
    return replace(found, unproven=unproven(report, arm, shape))


def _row_to_json(row: LatencyRow | DeviceRow) -> dict[str, Any]:
    """A row with its shape spelled and its verdict beside the numbers."""
    value = {**asdict(row), "shape": str(row.shape)}
    if row.speed_up is not None:
        value["speed_up"] = {**asdict(row.speed_up), "verdict": row.speed_up.verdict}
    return value
