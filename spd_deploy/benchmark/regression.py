"""Compares two reports row by row: whether what was gained over the dense arm is still gained.

Times of two runs differ by what else the machine did, so by default only ratios against the dense
arm of the same run are compared. Reports of unlike machines, settings or arms are refused.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spd_deploy.benchmark.http.judge_http import CapacityRow, http_judgement_of
from spd_deploy.benchmark.judge import judge, unlike_machines
from spd_deploy.benchmark.publish import JSON_FILE
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report, read_report
from spd_deploy.benchmark.stats import Estimate
from spd_deploy.benchmark.tables import Table
from spd_deploy.domain.artefact import MANIFEST_FILE
from spd_deploy.domain.errors import BadReport
from spd_deploy.timing.speed_up import SpeedUp

_AT_THE_BOUND = ", rate at the bound: times dense"
_ALIKE = ("name", "precision", "pattern", "sparsity", "sizes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A number of one report, where more is better, with its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def reach(self) -> float | None:
        """Half the width of the interval, in logarithms."""
        if self.low is None or self.high is None:
            return None
        return math.log(self.high / self.low) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One row of two reports.

    Attributes:
        what: of what: the arm, and what was measured.
        ratio: the new value over the old one; below 1 is worse.
        low, high: its interval, where both values have one.
    """

    what: str
    old: float
    new: float
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportComparison:
    """Two reports row by row.

    Attributes:
        fail_below: rows with a lower ratio have failed.
        notes: what else differs, such as the version of a package.
    """

    changes: tuple[Change, ...]
    fail_below: float
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Change, ...]:
        """The rows below the limit."""
        return tuple(one for one in self.changes if one.ratio < self.fail_below)

    def to_json(self) -> dict[str, Any]:
        """For programs, with the names of the failed rows beside them."""
        return {
            **asdict(self),
            "failed": [one.what for one in self.failed],
        }


def report_at(path: Path) -> Report:
    """The report in a file, or in the folder that ``spd bench`` wrote.

    Raises:
        BadReport: there is none, or it is of another kind or another schema.
    """
    return read_report(path / JSON_FILE if path.is_dir() else path)


def holds_report(path: Path) -> bool:
    """Whether a path is a report, or its folder, and no artefact."""
    if path.is_dir():
        return (path / JSON_FILE).is_file() and not (path / MANIFEST_FILE).is_file()
    return path.is_file() and path.suffix == ".json"


def compare_reports(
    old: Report, new: Report, *, fail_below: float, times: bool
) -> ReportComparison:
    """Every row of the old report beside the same row of the new one.

    Args:
        old: what to compare with.
        new: what is compared.
        fail_below: see :class:`ReportComparison`.
        times: also compare absolute times, which are those of the machine at that hour.

    Raises:
        BadReport: machines, settings or arms differ, or there is nothing to compare.
    """
    refuse_unlike(old, new)
    before = {name: value for name, value in _values(old, times=times) if value.value > 0}
    after = dict(_values(new, times=times))
    # Whether the search finds the end of a rate depends on the hour, so it may lack.
    unknown = [name for name in before if name not in after and name.endswith(_AT_THE_BOUND)]
    before = {name: value for name, value in before.items() if name not in unknown}
    if not before:
        raise BadReport(
            "the old report has no ratio against a dense arm, so nothing can be compared",
            got="a report without --baseline",
            fix="measure both with --baseline, or add --compare-times",
        )
    if missing := [name for name in before if name not in after]:
        raise BadReport(
            "the new report lacks a row of the old one",
            got=missing[0],
            fix="measure both in the same way",
        )
    return ReportComparison(
        changes=tuple(_change(name, before[name], after[name]) for name in before),
        fail_below=fail_below,
        notes=(*_notes(old, new), *(f"{name}: not known in the new report" for name in unknown)),
    )


def refuse_unlike(old: Report, new: Report) -> None:
    """Refuse reports whose rows do not mean the same.

    Raises:
        BadReport: the machine, the device, the threads, the shapes, the baseline, an arm or the
            settings of HTTP differ.
    """
    for what, before, after in _differences(old, new):
        if before != after:
            raise BadReport(
                f"the reports are not compared: they differ in {what}",
                got=f"{before} before, {after} now",
                fix="measure both alike, on one machine",
            )


def comparison_table(comparison: ReportComparison) -> Table:
    """The rows with their ratios, and whether they failed."""
    return Table(
        title=f"Against the old report; a row fails below {comparison.fail_below:g}",
        columns=("", "old", "new", "new/old", "verdict"),
        rows=tuple(
            (
                one.what,
                f"{one.old:.3g}",
                f"{one.new:.3g}",
                _ratio(one),
                _verdict(one, comparison.fail_below),
            )
            for one in comparison.changes
        ),
    )


def _differences(old: Report, new: Report) -> Iterator[tuple[str, object, object]]:
    """The facts that must be alike in both reports, with both values."""
    for what, before, after in unlike_machines(old.machine, new.machine):
        yield f"the machine ({what})", before, after
    yield "the device", old.settings.device, new.settings.device
    yield "the number of threads", old.settings.threads, new.settings.threads
    yield "the shapes", _shapes(old), _shapes(new)
    yield "the baseline", old.baselines, new.baselines
    for arm in old.arms:
        other = next((one for one in new.arms if one.name == arm.name), None)
        if other is None:
            yield f"the arms: {arm.name}", "measured", "not there"
            continue
        for name in _ALIKE:
            yield f"the {name} of {arm.name}", getattr(arm, name), getattr(other, name)
        yield f"the runtime of {arm.name}", _runtime(arm), _runtime(other)
    if old.http is not None:
        bound_s = old.http.settings.latency_bound_s
        now_s = None if new.http is None else new.http.settings.latency_bound_s
        yield "what was measured", "with --http", "with --http" if new.http else "without --http"
        yield "--latency-bound, in seconds", bound_s, now_s


def _values(report: Report, *, times: bool) -> Iterator[tuple[str, Value]]:
    """The numbers of a report that another one may have too, by name; more is better."""
    judgement = judge(report)
    for row in (*judgement.rows, *judgement.device):
        where = f"{row.arm} at {row.shape}" + (" by the GPU's clock" * (row.clock == "device"))
        yield from _row(where, row.speed_up, row.p50, times=times)
    if (over_http := http_judgement_of(report)) is None:
        return
    for single in over_http.single:
        where = f"{single.arm} at {single.shape} over HTTP"
        yield from _row(where, single.speed_up, single.p50, times=times)
    for able in over_http.capacity:
        if able.offline_speed_up is not None:
            yield f"{able.arm}, offline over HTTP: times dense", _of(able.offline_speed_up)
        if (gain := _gain_at_the_bound(able)) is not None:
            yield f"{able.arm}{_AT_THE_BOUND}", Value(value=gain)


def _gain_at_the_bound(able: CapacityRow) -> float | None:
    """The rate over the baseline's; 0 where every rate missed the bound, None where it is open."""
    missed_all = able.met is None and able.missed is not None
    return 0.0 if missed_all and able.offline_speed_up is not None else able.rate_gain


def _row(
    where: str, speed_up: SpeedUp | None, p50: Estimate, *, times: bool
) -> Iterator[tuple[str, Value]]:
    """The speed-up of a row, and its runs a second where times are compared."""
    if speed_up is not None:
        yield f"{where}: times dense", _of(speed_up)
    if times:
        rate = Value(value=1 / p50.value, low=1 / p50.high, high=1 / p50.low)
        yield f"{where}: runs a second", rate


def _of(speed_up: SpeedUp) -> Value:
    """A speed-up with its interval."""
    return Value(value=speed_up.ratio, low=speed_up.low, high=speed_up.high)


def _change(what: str, old: Value, new: Value) -> Change:
    """One row; the interval of a ratio of two independent numbers."""
    ratio = new.value / old.value
    reaches = (old.reach, new.reach)
    low = high = None
    if reaches[0] is not None and reaches[1] is not None:
        reach = math.hypot(reaches[0], reaches[1])
        low, high = ratio * math.exp(-reach), ratio * math.exp(reach)
    return Change(what=what, old=old.value, new=new.value, ratio=ratio, low=low, high=high)


def _notes(old: Report, new: Report) -> Iterator[str]:
    """The differences whose effect a user may want to see, such as another version."""
    yield from _changed("package", old.machine.versions, new.machine.versions)
    for arm in old.arms:
        other = new.arm(arm.name)
        if arm.models != other.models:
            yield f"{arm.name}: its model files are others than those of the old report"


def _changed(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """The entries that differ."""
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{what} {name}: {old.get(name, 'none')} before, {new.get(name, 'none')} now"


def _ratio(change: Change) -> str:
    """The ratio with its interval."""
    if change.low is None or change.high is None:
        return f"{change.ratio:.3f}"
    return f"{change.ratio:.3f} [{change.low:.2f}, {change.high:.2f}]"


def _verdict(change: Change, fail_below: float) -> str:
    """Whether the row failed, and whether its interval leaves that open."""
    if change.ratio >= fail_below:
        return "ok"
    open_still = change.high is not None and change.high >= 1
    return "failed, within the noise" if open_still else "failed"


def _shapes(report: Report) -> str:
    """The shapes in words."""
    return ", ".join(map(str, report.settings.shapes))


def _runtime(arm: ArmFacts) -> str:
    """The runtime of an arm without its version, whose effect may be what is looked for."""
    return f"{arm.runtime.runtime} on {arm.runtime.device} in {arm.runtime.precision}"
