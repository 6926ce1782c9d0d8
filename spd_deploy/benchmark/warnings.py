"""Caveats: the reasons in a report's own data not to trust a number.

Pure functions of a report. A report without caveats is one in which none of these was found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.benchmark.formatting import percent
from spd_deploy.benchmark.machine_warnings import card_caveats, load_caveats
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import LatencyRow
from spd_deploy.benchmark.steadiness import sample_caveats

# With fewer ratios than this the next run may well leave the interval.
FEW_ROUNDS = 3
# Above this share of the GPU's time the host is what is measured.
LAUNCH_BOUND = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Caveat:
    """One reason not to trust a number.

    Attributes:
        about: an arm, ``machine`` or ``the GPU``.
        what: the reason, in words that are the same wherever it holds.
        shape: where it holds, if at one shape only.
        amount: how bad it is there, where that is a number.
    """

    about: str
    what: str
    shape: str | None = None
    amount: str | None = None


def caveats_of(report: Report, device_rows: Sequence[LatencyRow] = ()) -> tuple[Caveat, ...]:
    """All caveats: about the machine, the comparison, each arm at each shape, and the GPU."""
    found = [Caveat(about="machine", what=what) for what in machine_caveats(report)]
    for arm in report.arms:
        found += [Caveat(about=arm.name, what=what) for what in comparison_caveats(report, arm)]
        for shape in report.settings.shapes:
            found += [
                Caveat(about=arm.name, what=what, shape=str(shape), amount=amount)
                for what, amount in sample_caveats(report.rounds(arm.name, shape))
            ]
    return (*found, *device_caveats(report, device_rows))


def grouped(caveats: Sequence[Caveat]) -> dict[str, list[str]]:
    """Each reason once, with all that it is about, as ``block at 1x16 (12 %), 8x16 (20 %)``."""
    found: dict[str, dict[str, list[str]]] = {}
    for caveat in caveats:
        places = found.setdefault(caveat.what, {}).setdefault(caveat.about, [])
        if caveat.shape is not None:
            amount = "" if caveat.amount is None else f" ({caveat.amount})"
            places.append(f"{caveat.shape}{amount}")
    return {
        what: [f"{about} at {', '.join(at)}" if at else about for about, at in abouts.items()]
        for what, abouts in found.items()
    }


def machine_caveats(report: Report) -> Iterator[str]:
    """Other work, too many threads or an unknown number of them, a clock that may change."""
    settings = report.settings
    yield from load_caveats(report.machine, report.conditions, settings.threads)
    if settings.device == "cpu" and settings.threads is None:
        yield "the number of threads was left to the runtime and is unknown"


def comparison_caveats(report: Report, arm: ArmFacts) -> Iterator[str]:
    """Other explanations than sparsity for a difference between an arm and the baseline."""
    if report.baseline is None:
        return
    base, several = report.arm(report.baseline), len(report.baselines) > 1
    if arm.name in report.baselines:
        if not several and base.sparsity is not None:
            yield "the baseline is sparse itself: the gain over a dense model is not measured"
        return
    rounds = report.settings.rounds
    if rounds < FEW_ROUNDS:
        yield f"only {rounds} rounds: the interval rests on {rounds} ratios"
    if arm.task != base.task:
        yield f"it answers task {arm.task}, and {base.name} task {base.task}"
    if arm.sizes != base.sizes:
        yield f"it is another model than {base.name}: their sizes differ"
    if several and arm.precision in {report.arm(name).precision for name in report.baselines}:
        return
    if arm.precision != base.precision:
        yield (
            f"it runs in {arm.precision} and {base.name} in {base.precision}: the ratio holds the "
            "gain of both sparsity and precision"
        )
    if not several and arm.runtime.runtime != base.runtime.runtime:
        yield f"it runs in {arm.runtime.runtime} and {base.name} in {base.runtime.runtime}"


def device_caveats(report: Report, rows: Sequence[LatencyRow]) -> Iterator[Caveat]:
    """Caveats of the GPU: its state, arms that its clock did not time, and its rows."""
    if report.device is None:
        return
    yield from (Caveat(about="the GPU", what=what) for what in card_caveats(report.device))
    timed = {row.arm for row in rows}
    for arm in report.arms:
        if arm.name not in timed:
            what = "the GPU's own clock did not time it: its session keeps no batch on the GPU"
            yield Caveat(about=arm.name, what=what)
    for row in rows:
        for what, amount in row_caveats(row):
            yield Caveat(about=row.arm, what=what, shape=str(row.shape), amount=amount)


def row_caveats(row: LatencyRow) -> Iterator[tuple[str, str]]:
    """Runs that the host holds up, and times below the limit; each with its amount."""
    if row.enqueue_share > LAUNCH_BOUND:
        yield (
            "it is launch-bound: the host's enqueueing takes more than "
            f"{percent(LAUNCH_BOUND)} of the GPU's time",
            percent(row.enqueue_share),
        )
    if row.reached is not None and row.reached > 1:
        yield "it ran below its least time: a rate or a count is wrong", percent(row.reached)
