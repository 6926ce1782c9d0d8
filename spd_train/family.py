"""A family of students: one speed-up after another, each pruned further from the one before.

A family of one speed-up is a run in the output folder itself. Otherwise:

output/
  2x/ ...       a checkpoint for each speed-up; the first has the teacher too, unless one is named
  family.json   what each scores and how fast it is measured to be, written last
  family.png    score against measured latency
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import write_json
from spd_deploy.domain.measured_speedup import MeasuredSpeedup
from spd_deploy.domain.plot_style import save_png
from spd_train.family_folders import member_folder
from spd_train.plots.family import FamilyPoint, family_figure
from spd_train.run import TEACHER_FOLDER
from spd_train.train_config import TrainConfig
from spd_train.training.metrics_log import METRICS_FILE, final_record

FAMILY_FILE = "family.json"
FAMILY_PICTURE = "family.png"
SCHEMA = 1

Train = Callable[[TrainConfig], Checkpoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A student of a family.

    Attributes:
        speedup: the speed-up that was wanted.
        checkpoint: the student.
        speed: what was measured; None if it was not.
        drop: points of 100 that it loses against its teacher on the held-out rows, in the mean of
            the task's metrics; None where no rows are held out.
    """

    speedup: float
    checkpoint: Checkpoint
    speed: MeasuredSpeedup | None
    drop: float | None

    def to_json(self) -> dict[str, Any]:
        """The member as JSON values."""
        speed = self.speed
        return {
            "speedup": self.speedup,
            "folder": self.checkpoint.folder.name,
            "measured": None
            if speed is None
            else {
                "dense_s": speed.dense_s,
                "sparse_s": speed.sparse_s,
                "ratio": speed.ratio,
                "where": speed.where,
            },
            "held_out_drop": self.drop,
            "scores": {arm: dict(scores) for arm, scores in self.checkpoint.scores.items()},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The students of one teacher, the slowest first.

    Attributes:
        output: folder of the family.
        max_drop: points that a student may lose on the held-out rows; None for no bound.
    """

    output: Path
    members: tuple[Member, ...]
    max_drop: float | None = None

    @property
    def chosen(self) -> Member | None:
        """The fastest student within ``max_drop``; None if each loses more."""
        fine = [m for m in self.members if not loses_more(m, self.max_drop)]
        return fine[-1] if fine else None

    def to_json(self) -> dict[str, Any]:
        """The content of ``family.json``."""
        return {
            "schema": SCHEMA,
            "max_drop": self.max_drop,
            "chosen": None if self.chosen is None else self.chosen.checkpoint.folder.name,
            "members": [member.to_json() for member in self.members],
        }


def refuse_family(config: TrainConfig, speedups: Sequence[float], max_drop: float | None) -> None:
    """Refuse speed-ups that do not rise, and a bound that cannot be measured.

    Raises:
        BadSetting: they do not, there is none, or no rows are held out to measure a drop on.
    """
    if not speedups or any(b <= a for a, b in pairwise(speedups)):
        raise BadSetting(
            "the speed-ups of a family must rise",
            got=", ".join(f"{s:g}" for s in speedups),
            fix="for example --speedup 2,3,5",
        )
    if max_drop is not None and not config.data.holdout:
        raise BadSetting(
            "--max-drop is measured on held-out rows, and none are held out",
            got=f"--holdout {config.recipe.holdout:g}",
            fix="use a --holdout above 0",
        )


def train_family(
    config: TrainConfig,
    speedups: Sequence[float],
    *,
    train: Train,
    measure: Callable[[Path], MeasuredSpeedup] | None,
    max_drop: float | None = None,
) -> Family:
    """Train a student for each speed-up, each from the one before, and write ``family.json``.

    Args:
        config: the run of every member, with the family's folder as output.
        speedups: rising speed-ups.
        train: trains one member, or opens it if it is finished.
        measure: measures a student against the dense model; None if this machine does not count.
        max_drop: points of 100 that a student may lose on the held-out rows. The family ends with
            the first that loses more.
    """
    refuse_family(config, speedups, max_drop)
    members: list[Member] = []
    for member in _members(config, speedups, train, measure):
        members.append(member)
        if loses_more(member, max_drop):
            break
    family = Family(output=config.output, members=tuple(members), max_drop=max_drop)
    _draw(family, config.task.metrics[0])
    write_json(config.output / FAMILY_FILE, family.to_json())
    return family


def _draw(family: Family, metric: str) -> None:
    """Draw the students that were measured, if several are."""
    measured = [(m, m.speed) for m in family.members if m.speed is not None]
    if len(measured) < 2:
        return
    scores = [(m, s, m.checkpoint.scores["sparse"].get(metric)) for m, s in measured]
    first, speed = measured[0]
    dense = first.checkpoint.scores["dense"].get(metric)
    figure = family_figure(
        FamilyPoint(name="dense", seconds=speed.dense_s, score=dense or 0.0),
        [
            FamilyPoint(name=f"{m.speedup:g}x", seconds=s.sparse_s, score=score or 0.0)
            for m, s, score in scores
        ],
        title=f"{first.checkpoint.task.name}: students by their speed",
        metric=f"{metric} on {first.checkpoint.split}",
        where=speed.where,
    )
    save_png(figure, family.output / FAMILY_PICTURE)


def loses_more(member: Member, max_drop: float | None) -> bool:
    """Whether a student loses more than it may."""
    return max_drop is not None and member.drop is not None and member.drop > max_drop


def held_out_drop(folder: Path, metrics: Sequence[str]) -> float | None:
    """Points of 100 that a student loses against its teacher on the held-out rows.

    It is the mean over ``metrics``; None where no rows are held out, or a metric is undefined.
    """
    final = final_record(folder / METRICS_FILE)
    sparse, dense = final.get("holdout"), final.get("teacher_holdout")
    if not sparse or not dense or any(s[m] is None for s in (sparse, dense) for m in metrics):
        return None
    return fmean(100 * float(dense[m] - sparse[m]) for m in metrics)


def _members(
    config: TrainConfig,
    speedups: Sequence[float],
    train: Train,
    measure: Callable[[Path], MeasuredSpeedup] | None,
) -> Iterator[Member]:
    """Train and measure the members in turn."""
    model, teacher, start = config.model, config.teacher, config.start
    alone = len(speedups) == 1
    for speedup in speedups:
        folder = config.output if alone else member_folder(config.output, speedup)
        checkpoint = train(
            replace(
                config,
                recipe=replace(config.recipe, speedup=speedup),
                model=model,
                teacher=teacher,
                output=folder,
                start=start,
                resume=config.resume if alone else folder.exists(),
            )
        )
        yield Member(
            speedup=speedup,
            checkpoint=checkpoint,
            speed=None if measure is None else measure(folder),
            drop=held_out_drop(folder, config.task.metrics),
        )
        model, teacher, start = None, teacher or str(folder / TEACHER_FOLDER), folder
