"""Whether the samples of an arm were steady: their scatter, their rounds, their drift."""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from spd_deploy.benchmark.formatting import percent
from spd_deploy.benchmark.machine_warnings import BUSY_SHARE
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import samples_for
from spd_deploy.timing.speed_up import Rounds

NOISY = 0.10
ROUNDS_APART = 0.10
DRIFT = 0.05
DRIFT_ROUNDS = 5
# With more scatter than this the next run may give another ratio, whatever the interval says.
UNSTEADY = 0.25


def sample_caveats(rounds: Rounds) -> Iterator[tuple[str, str]]:
    """Too few samples, scatter, rounds that disagree or drift; each with its amount."""
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
    """Why the times of these arms are not reliable; None where they were steady.

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


def _scatter(samples: Sequence[float]) -> float:
    """Standard deviation over mean; 0 of a single run."""
    return statistics.stdev(samples) / statistics.fmean(samples) if len(samples) > 1 else 0.0


def _apart(medians: Sequence[float]) -> float:
    """Distance between the slowest and the fastest round, as a share of the median round."""
    return (max(medians) - min(medians)) / statistics.median(medians)
