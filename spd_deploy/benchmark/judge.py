"""From samples to statements: percentiles, speed-ups with a verdict, and caveats.

Rows by the host's clock and rows by the GPU's are made by the same functions. Pure: the same report
gives the same judgement, to the last digit.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from spd_deploy.benchmark.proof import unproven
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import LatencyRow
from spd_deploy.benchmark.samples import ClockSamples, device_samples, host_samples
from spd_deploy.benchmark.stats import estimates
from spd_deploy.benchmark.warnings import Caveat, caveats_of
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.shapes import Shape
from spd_deploy.machine.facts import Machine
from spd_deploy.sessions.protocol import Description
from spd_deploy.timing.speed_up import Rounds, SpeedUp, speed_up_of

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The sentences and warnings of a report.

    Attributes:
        rows: by the host's clock, one for each arm and shape.
        device: by the GPU's clock, one for each arm and shape that it timed.
    """

    rows: tuple[LatencyRow, ...]
    caveats: tuple[Caveat, ...]
    device: tuple[LatencyRow, ...] = ()

    def row(self, arm: str, shape: Shape) -> LatencyRow:
        """The row of one arm at one shape, by the host's clock."""
        return next(row for row in self.rows if (row.arm, row.shape) == (arm, shape))

    def of(self, arm: str) -> tuple[LatencyRow, ...]:
        """The rows of one arm, by shape, by the host's clock."""
        return tuple(row for row in self.rows if row.arm == arm)

    def to_json(self) -> dict[str, Any]:
        """For programs: the rows with their verdicts, and the caveats."""
        value = {
            "rows": [row.to_json() for row in self.rows],
            "caveats": [asdict(caveat) for caveat in self.caveats],
        }
        device = [row.to_json() for row in self.device]
        return {**value, "device": device} if device else value


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundSamples:
    """The samples of one arm at one shape, with what must be alike for a comparison."""

    machine: Machine
    runtime: Description
    rounds: Rounds


def judge(report: Report) -> Judgement:
    """Everything that the report's samples support saying."""
    host, device = (
        tuple(_rows(report, samples)) for samples in (host_samples(report), device_samples(report))
    )
    return Judgement(rows=host, caveats=caveats_of(report, device), device=device)


def round_samples_of(report: Report, arm: str, rounds: Rounds) -> RoundSamples:
    """The samples of an arm with its machine and runtime, to be compared with another arm's."""
    return RoundSamples(machine=report.machine, runtime=report.arm(arm).runtime, rounds=rounds)


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


def unlike_machines(old: Machine, new: Machine) -> Iterator[tuple[str, object, object]]:
    """The differences between two machines that forbid a comparison, each with both values."""
    for name in ("cpu", "cores", "usable_cores", "system", "gpus"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield name, before, after


def _unlike(base: RoundSamples, other: RoundSamples) -> Iterator[str]:
    """The names of what differs and must not."""
    for name, _, _ in unlike_machines(base.machine, other.machine):
        yield f"machine ({name})"
    if base.runtime.device != other.runtime.device:
        yield "device"
    if base.runtime.threads != other.runtime.threads:
        yield "number of threads"
    if len(base.rounds) != len(other.rounds):
        yield "number of rounds"


def _rows(report: Report, samples: ClockSamples) -> Iterator[LatencyRow]:
    """A row for each arm and shape that the clock timed."""
    for (arm, shape), rounds in samples.rounds.items():
        p50, p90, p99 = estimates(rounds, QUANTILES, seed=report.settings.seed)
        assert p50 is not None  # noqa: S101 - two rounds, so two samples
        yield LatencyRow(
            arm=arm,
            shape=shape,
            clock=samples.clock,
            samples=sum(map(len, rounds)),
            p50=p50,
            p90=p90,
            p99=p99,
            tokens_per_s=shape.tokens / p50.value,
            speed_up=_speed_up(report, samples, arm, shape),
            against=samples.baseline_at(shape),
            device=samples.details.get((arm, shape)),
        )


def _speed_up(report: Report, samples: ClockSamples, arm: str, shape: Shape) -> SpeedUp | None:
    """Over the baseline of the shape; None for the baseline itself, or without one."""
    baseline = samples.baseline_at(shape)
    if baseline is None or arm == baseline:
        return None
    base, other = (
        round_samples_of(report, name, samples.rounds[name, shape]) for name in (baseline, arm)
    )
    return replace(compare(base, other), unproven=unproven(report, arm, shape))
