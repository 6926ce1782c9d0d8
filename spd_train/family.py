"""A family of students: one speed-up after another, each pruned further from the one before.

output/
  teacher/      the dense teacher, unless one is named
  2x/ ...       a checkpoint for each speed-up
  family.json   what each scores and how fast it is measured to be, written last
  family.png    score against measured latency
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import write_json
from spd_train.train_config import TrainConfig

FAMILY_FILE = "family.json"
SCHEMA = 1
# A student keeps its promise if at least this share of the speed-up is measured.
KEPT = 0.95

Train = Callable[[TrainConfig], Checkpoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSpeed:
    """How long a student and the dense model take, in seconds, measured in turns."""

    dense_s: float
    sparse_s: float

    @property
    def ratio(self) -> float:
        """How many times as fast the student is."""
        return self.dense_s / self.sparse_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A student of a family.

    Attributes:
        speedup: the speed-up that was wanted.
        checkpoint: the student.
        speed: what was measured.
    """

    speedup: float
    checkpoint: Checkpoint
    speed: MeasuredSpeed

    @property
    def kept(self) -> bool:
        """Whether the speed-up is kept."""
        return self.speed.ratio >= KEPT * self.speedup

    @property
    def sentence(self) -> str:
        """What was wanted and what came out."""
        ratio = f"{self.speed.ratio:.2f} times as fast as dense, measured"
        if self.kept:
            return ratio
        return f"{ratio}: {1 - self.speed.ratio / self.speedup:.0%} short of {self.speedup:g}"

    def drop(self, metric: str) -> float:
        """Points of 100 of a metric that the student has less than the dense model."""
        dense, sparse = (self.checkpoint.scores[arm][metric] for arm in ("dense", "sparse"))
        return 100 * ((dense or 0.0) - (sparse or 0.0))

    def to_json(self) -> dict[str, Any]:
        """The member as JSON values."""
        return {
            "speedup": self.speedup,
            "folder": self.checkpoint.folder.name,
            "measured": {**asdict(self.speed), "ratio": self.speed.ratio},
            "scores": {arm: dict(scores) for arm, scores in self.checkpoint.scores.items()},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The students of one teacher, the slowest first.

    Attributes:
        where: machine, runtime, precision and shapes of the speeds.
    """

    members: tuple[Member, ...]
    where: str

    def fastest_within(self, max_drop: float, metric: str) -> Member | None:
        """The fastest member that loses no more than ``max_drop`` points; None if all lose more."""
        fine = [m for m in self.members if m.drop(metric) <= max_drop]
        return max(fine, key=lambda m: m.speed.ratio, default=None)

    def to_json(self) -> dict[str, Any]:
        """The content of ``family.json``."""
        return {
            "schema": SCHEMA,
            "where": self.where,
            "members": [member.to_json() for member in self.members],
        }


def refuse_unordered(speedups: Sequence[float]) -> None:
    """Refuse speed-ups that do not rise.

    Raises:
        BadSetting: they do not, or there is none.
    """
    if not speedups or any(b <= a for a, b in pairwise(speedups)):
        raise BadSetting(
            "the speed-ups of a family must rise",
            got=", ".join(f"{s:g}" for s in speedups),
            fix="for example --speedup 2,3,5",
        )


def train_family(
    config: TrainConfig,
    speedups: Sequence[float],
    *,
    train: Train,
    measure: Callable[[Path], MeasuredSpeed],
    where: str,
) -> Family:
    """Train a student for each speed-up, each from the one before, and write ``family.json``.

    Args:
        config: the run of every member, with the family's folder as output.
        speedups: rising speed-ups.
        train: trains one member, or opens it if it is finished.
        measure: measures a student against the dense model.
        where: machine, runtime, precision and shapes of the speeds.
    """
    refuse_unordered(speedups)
    members = tuple(_members(config, speedups, train, measure))
    family = Family(members=members, where=where)
    write_json(config.output / FAMILY_FILE, family.to_json())
    return family


def _members(
    config: TrainConfig,
    speedups: Sequence[float],
    train: Train,
    measure: Callable[[Path], MeasuredSpeed],
) -> Iterable[Member]:
    """Train and measure the members in turn."""
    start: Path | None = None
    for speedup in speedups:
        folder = config.output / f"{speedup:g}x"
        checkpoint = train(
            replace(
                config,
                recipe=replace(config.recipe, speedup=speedup),
                output=folder,
                start=start,
                resume=folder.exists(),
            )
        )
        yield Member(speedup=speedup, checkpoint=checkpoint, speed=measure(folder))
        start = folder
