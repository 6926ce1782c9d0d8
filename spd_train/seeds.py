"""One training with several seeds, and what their scores say together.

    output/seed-0/ ...   a run each
    output/seeds.json    mean and 95 % interval by arm and metric, written last

The interval is Student's: with as few seeds as anybody runs, a bootstrap would be too sure.
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
class Summary:
    """Values of several seeds: their mean, and the half-width of its 95 % interval.

    Attributes:
        reach: None for a single value, which says nothing of its spread.
    """

    values: tuple[float, ...]
    mean: float
    reach: float | None

    @property
    def count(self) -> int:
        """How many seeds."""
        return len(self.values)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the interval's ends."""
        low, high = (
            (None, None) if self.reach is None else (self.mean - self.reach, self.mean + self.reach)
        )
        return {"mean": self.mean, "low": low, "high": high, "values": list(self.values)}


def summarise(values: Sequence[float | None]) -> Summary | None:
    """Mean and 95 % t-interval of what is a number; None where nothing is.

    None and what is not finite stand for a metric that is undefined for that seed.
    """
    found = tuple(v for v in values if v is not None and math.isfinite(v))
    if not found:
        return None
    return Summary(values=found, mean=statistics.fmean(found), reach=_reach(found))


def _reach(values: Sequence[float]) -> float | None:
    """Half the width of the mean's interval."""
    if len(values) < 2:
        return None
    from scipy import stats

    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Finished runs of one setting, by seed."""

    output: Path
    runs: Mapping[int, Checkpoint]

    def summaries(self) -> dict[str, dict[str, Summary | None]]:
        """What the seeds scored, by arm (``dense``, ``sparse``) and metric."""
        runs = list(self.runs.values())
        return {
            arm: {
                metric: summarise([run.scores.get(arm, {}).get(metric) for run in runs])
                for metric in scores
            }
            for arm, scores in runs[0].scores.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The content of ``seeds.json``."""
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
                arm: {name: found and found.to_json() for name, found in metrics.items()}
                for arm, metrics in self.summaries().items()
            },
        }


def run_seeds(
    train: Callable[[int, Path, bool], Checkpoint],
    *,
    first: int,
    count: int,
    output: Path,
    resume: bool,
) -> Seeds:
    """Train ``count`` times, with the seeds from ``first`` on, and write ``seeds.json``.

    ``train`` trains one seed into a folder; its last argument says whether to resume the run that
    is there, which returns at once from a finished one. ``resume`` goes on with what is in
    ``output``; without it the folder must be empty.

    Raises:
        NotWritten: ``output`` holds something.
        Interrupted: from ``train``; with ``resume`` the seeds go on.
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
    seeds = Seeds(output=output, runs=runs)
    write_json(output / SEEDS_FILE, seeds.to_json())
    return seeds


def folders_of_seeds(output: Path) -> list[Path]:
    """The folders of the seeds that were begun in ``output``, in the order of the seeds."""
    found = [p for p in output.glob(f"{_FOLDER}*") if p.name.removeprefix(_FOLDER).isdecimal()]
    return sorted(found, key=lambda p: int(p.name.removeprefix(_FOLDER)))


def _holds_something(folder: Path) -> bool:
    """Whether there is a run, or anything else."""
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
