"""One training with several seeds, and the mean of their scores with its interval.

    output/seed-0/ ...   a run each
    output/seeds.json    mean and 95 % interval by owner and metric, written last

The interval is Student's t. With a few seeds a bootstrap interval would be too narrow.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting, NotWritten
from spd_deploy.domain.files import write_json

SEEDS_FILE = "seeds.json"
SCHEMA = 1
LEVEL = 0.95
_FOLDER = "seed-"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSummary:
    """The mean of a metric over several seeds, with its 95 % interval.

    Attributes:
        values: the value of each seed that has one.
        mean: their mean.
        half_width: half the width of the interval; None for a single value.
    """

    values: tuple[float, ...]
    mean: float
    half_width: float | None

    @property
    def count(self) -> int:
        """Number of seeds that have a value."""
        return len(self.values)

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values, with both ends of the interval."""
        low, high = (
            (None, None)
            if self.half_width is None
            else (self.mean - self.half_width, self.mean + self.half_width)
        )
        return {"mean": self.mean, "low": low, "high": high, "values": list(self.values)}


def summarise(values: Sequence[float | None]) -> SeedSummary | None:
    """Mean and 95 % t-interval of the finite values; None if there are none.

    A metric that is undefined for a seed is None or not finite.
    """
    finite = tuple(v for v in values if v is not None and math.isfinite(v))
    if not finite:
        return None
    return SeedSummary(values=finite, mean=statistics.fmean(finite), half_width=_half_width(finite))


def _half_width(values: Sequence[float]) -> float | None:
    """Half the width of the mean's 95 % t-interval; None for one value."""
    if len(values) < 2:
        return None
    from scipy import stats

    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResults:
    """The finished runs of one setting, by seed."""

    output: Path
    runs: Mapping[int, Checkpoint]

    def summaries(self) -> dict[str, dict[str, SeedSummary | None]]:
        """The summary of each metric, by owner (``dense``, ``sparse``) and metric."""
        runs = list(self.runs.values())
        return {
            owner: {
                metric: summarise([run.scores.get(owner, {}).get(metric) for run in runs])
                for metric in scores
            }
            for owner, scores in runs[0].scores.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The content of ``seeds.json`` as JSON values."""
        first = next(iter(self.runs.values()))
        return {
            "schema": SCHEMA,
            "task": first.task.name,
            "pattern": None if first.pattern is None else str(first.pattern),
            "sparsity": None if first.pattern is None else first.pattern.sparsity,
            "split": first.split,
            "level": LEVEL,
            "runs": {str(seed): run.folder.name for seed, run in self.runs.items()},
            "scores": {
                owner: {name: summary and summary.to_json() for name, summary in metrics.items()}
                for owner, metrics in self.summaries().items()
            },
        }


def run_seeds(
    train: Callable[[int, Path, bool], Checkpoint],
    *,
    first: int,
    count: int,
    output: Path,
    resume: bool,
) -> SeedResults:
    """Train with ``count`` seeds, and write ``seeds.json``.

    Args:
        train: trains one seed into a folder; the last argument says whether to resume the run that
            is in it. A finished run returns at once.
        first: the first seed.
        count: number of seeds.
        output: folder of all seeds.
        resume: continue the seeds that are in ``output``; otherwise the folder must be empty.

    Raises:
        NotWritten: ``output`` is not empty.
        BadSetting: ``count`` is below 1, or there is nothing to resume.
        Interrupted: ``train`` was stopped; with ``resume`` the seeds continue.
    """
    if count < 1:
        raise BadSetting("--seeds must be at least 1", got=count, fix="use --seeds 3")
    if not resume and _holds_something(output):
        raise NotWritten(
            f"{output} already exists",
            fix="choose another --output, or continue the runs there with --resume",
        )
    if resume and not _holds_something(output):
        raise BadSetting(f"{output} holds no run to resume", fix="leave --resume out")
    runs = {}
    for seed in range(first, first + count):
        folder = output / f"{_FOLDER}{seed}"
        runs[seed] = train(seed, folder, _holds_something(folder))
    seeds = SeedResults(output=output, runs=runs)
    write_json(output / SEEDS_FILE, seeds.to_json())
    return seeds


def folders_of_seeds(output: Path) -> list[Path]:
    """The folders of the seeds that were started in ``output``, in order."""
    folders = [p for p in output.glob(f"{_FOLDER}*") if p.name.removeprefix(_FOLDER).isdecimal()]
    return sorted(folders, key=lambda p: int(p.name.removeprefix(_FOLDER)))


def _holds_something(folder: Path) -> bool:
    """Whether the path is a file or a folder that is not empty."""
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
