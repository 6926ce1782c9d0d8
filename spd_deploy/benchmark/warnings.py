"""Why a reader should not trust a number: every doubt that the data themselves raise.

Pure functions of a report. No doubt means only that none of these was found.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spd_deploy.benchmark.formatting import percent
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import Rounds, samples_for
from spd_deploy.machine.facts import Machine
from spd_deploy.timing.machine_load import Conditions

NOISY = 0.10
ROUNDS_APART = 0.10
DRIFT = 0.05
DRIFT_ROUNDS = 5
BUSY_SHARE = 0.10
LOAD_SHARE = 0.25
# From this scatter on a ratio may be another one in the next run, whatever its interval says.
UNSTEADY = 0.25
# Fewer ratios than this make an interval that the next run may well leave.
FEW_ROUNDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Caveat:
    """One reason not to trust a number.

    Attributes:
        about: an arm, or ``machine``.
        what: the reason, in words that are the same wherever it holds.
        shape: where it holds, if at one shape only.
        amount: how bad it is there, where that is a number.
    """

    about: str
    what: str
    shape: str | None = None
    amount: str | None = None


def caveats_of(report: Report) -> tuple[Caveat, ...]:
    """All doubts: about the machine, the comparison, and each arm at each shape."""
    found = [Caveat(about="machine", what=what) for what in machine_caveats(report)]
    for arm in report.arms:
        found += [Caveat(about=arm.name, what=what) for what in comparison_caveats(report, arm)]
        for shape in report.settings.shapes:
            found += [
                Caveat(about=arm.name, what=what, shape=str(shape), amount=amount)
                for what, amount in sample_caveats(report.rounds(arm.name, shape))
            ]
    return tuple(found)


def grouped(doubts: Sequence[Caveat]) -> dict[str, list[str]]:
    """Each reason once, with all that it is about, as ``block at 1x16 (12 %), 8x16 (20 %)``."""
    found: dict[str, dict[str, list[str]]] = {}
    for doubt in doubts:
        places = found.setdefault(doubt.what, {}).setdefault(doubt.about, [])
        if doubt.shape is not None:
            places.append(
                doubt.shape if doubt.amount is None else f"{doubt.shape} ({doubt.amount})"
            )
    return {
        what: [f"{about} at {', '.join(at)}" if at else about for about, at in abouts.items()]
        for what, abouts in found.items()
    }


def machine_caveats(report: Report) -> Iterator[str]:
    """Other work, too many threads, a clock that may change."""
    settings = report.settings
    yield from load_caveats(report.machine, report.conditions, settings.threads)
    if settings.device == "cpu" and settings.threads is None:
        yield "the number of threads was left to the runtime and is unknown"


def load_caveats(machine: Machine, seen: Conditions, threads: int | None) -> Iterator[str]:
    """What the machine did meanwhile, and whether it could give what was asked of it."""
    if seen.others_cores > BUSY_SHARE * machine.usable_cores:
        yield (
            f"other processes kept {seen.others_cores:.1f} of {machine.usable_cores:g} cores busy "
            "during the run"
        )
    if seen.load_before is not None and seen.load_before > LOAD_SHARE * machine.usable_cores:
        yield f"the machine was not idle before the run: load {seen.load_before:.2f}"
    if threads is not None and threads > machine.usable_cores:
        yield f"{threads} threads share {machine.usable_cores:g} usable cores"
    if machine.governor not in (None, "performance"):
        yield f"the processor's clock may change: its governor is {machine.governor!r}"


def comparison_caveats(report: Report, arm: ArmFacts) -> Iterator[str]:
    """What else but sparsity may explain a difference between an arm and the baseline."""
    if report.baseline is None:
        return
    base = report.arm(report.baseline)
    if arm.name == base.name:
        if base.sparsity is not None:
            yield "the baseline is sparse itself: what is gained over a dense model is not told"
        return
    if arm.name in report.dense:  # it is there to be compared with, whatever it runs in
        return
    rounds = report.settings.rounds
    if rounds < FEW_ROUNDS:
        yield f"only {rounds} rounds: the interval rests on {rounds} ratios"
    if arm.task != base.task:
        yield f"it answers task {arm.task}, and {base.name} task {base.task}"
    if arm.sizes != base.sizes:
        yield f"it is another model than {base.name}: their sizes differ"
    several = len(report.dense) > 1  # which cover runtimes and precisions between them
    if several and arm.precision in {report.arm(name).precision for name in report.dense}:
        return
    if arm.precision != base.precision:
        yield (
            f"it runs in {arm.precision} and {base.name} in {base.precision}: the ratio holds the "
            "gain of both sparsity and precision"
        )
    if not several and arm.runtime.runtime != base.runtime.runtime:
        yield f"it runs in {arm.runtime.runtime} and {base.name} in {base.runtime.runtime}"


def sample_caveats(rounds: Rounds) -> Iterator[tuple[str, str]]:
    """Too few samples, too much spread, rounds that disagree or drift; each with its amount."""
    samples = [s for r in rounds for s in r]
    for quantile in (0.9, 0.99):
        if len(samples) < samples_for(quantile):
            few = f"fewer than {samples_for(quantile)} runs, so no p{100 * quantile:.0f}"
            yield few, f"{len(samples)} runs"
    if (spread := _scatter(samples)) > NOISY:
        wide = f"runs scatter: their standard deviation is above {percent(NOISY)} of their mean"
        yield wide, percent(spread)
    medians = [statistics.median(r) for r in rounds]
    if (apart := _apart(medians)) > ROUNDS_APART:
        yield (
            f"rounds disagree: their medians lie more than {percent(ROUNDS_APART)} apart",
            percent(apart),
        )
    drift = drift_of(medians)
    if abs(drift) > DRIFT:
        way = "slower" if drift > 0 else "faster"
        yield f"it drifts: nearly every round was {way} than the last", percent(abs(drift))


def unsteady(report: Report, names: Sequence[str]) -> str | None:
    """Why the times of these arms are not to be relied on; None where they were steady.

    Runs scatter or rounds disagree by more than :data:`UNSTEADY`, or other work kept cores busy.
    """
    rounds = [report.rounds(name, shape) for name in names for shape in report.settings.shapes]
    scatter = max(_scatter([s for r in each for s in r]) for each in rounds)
    apart = max(_apart([statistics.median(r) for r in each]) for each in rounds)
    busy, cores = report.conditions.others_cores, report.machine.usable_cores
    found = []
    if scatter > UNSTEADY:
        found.append(f"runs scatter by up to {percent(scatter)} of their mean")
    if apart > UNSTEADY:
        found.append(f"rounds lie up to {percent(apart)} apart")
    if busy > BUSY_SHARE * cores:
        found.append(f"other processes kept {busy:.1f} of {cores:g} cores busy")
    return ", ".join(found) or None


def _scatter(samples: Sequence[float]) -> float:
    """Standard deviation over mean; 0 of a single run."""
    return statistics.stdev(samples) / statistics.fmean(samples) if len(samples) > 1 else 0.0


def _apart(medians: Sequence[float]) -> float:
    """How far the rounds' medians lie apart, as a share of the one in the middle."""
    return (max(medians) - min(medians)) / statistics.median(medians)


def drift_of(medians: Sequence[float]) -> float:
    """Change from the first round to the last, as a share, if nearly every round went that way.

    Nearly: the rank correlation with the round is 0.9 or more. Fewer than
    :data:`DRIFT_ROUNDS` rounds line up by chance too often to say; they give 0.
    """
    if len(medians) < DRIFT_ROUNDS:
        return 0.0
    order = np.argsort(np.argsort(medians, kind="stable"), kind="stable")
    agreement = float(np.corrcoef(order, np.arange(len(medians)))[0, 1])
    return medians[-1] / medians[0] - 1 if abs(agreement) >= 0.9 else 0.0
