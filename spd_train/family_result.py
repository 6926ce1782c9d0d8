"""The result of a family of students: scores, times, and a comparison with dense models."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.compared_model import ComparedModel, beats
from spd_deploy.domain.cores import usable_cores
from spd_deploy.timing.machine_load import is_busy
from spd_deploy.timing.speed_up import SpeedUp, speed_up_of

SCHEMA = 3
DENSE = "dense"
# A student keeps its speed-up if at least this share of it is measured.
KEPT = 0.95


def speedup_name(speedup: float) -> str:
    """The name of a student in tables, such as ``3x``."""
    return f"{speedup:g}x"


def layers_name(count: int) -> str:
    """The name of a shallower dense student in tables, such as ``3 layers``."""
    return f"{count} layer" if count == 1 else f"{count} layers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A student of a family.

    Attributes:
        speedup: the speed-up that was wanted.
        checkpoint: the student.
        drop: points of 100 that it loses against its teacher on the validation rows, in the mean of
            the task's metrics; None without validation rows.
    """

    speedup: float
    checkpoint: Checkpoint
    drop: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Models as they are exported: scored, and timed in turns.

    Attributes:
        models: the dense model in the precision of the speed-ups first, then in others, then the
            students.
        where: shapes, threads and machine.
        others_cores: cores that other processes kept busy meanwhile, on average.
    """

    models: tuple[ComparedModel, ...]
    where: str
    others_cores: float

    @property
    def dense(self) -> ComparedModel:
        """The dense model, in the runtime and the precision of the speed-ups."""
        return self.models[0]

    @property
    def fastest_dense(self) -> ComparedModel:
        """The dense model in its fastest form."""
        return min((m for m in self.models if m.name == DENSE), key=lambda m: m.seconds)

    def of(self, names: Collection[str]) -> list[ComparedModel]:
        """The models with these names."""
        return [m for m in self.models if m.name in names]

    def speed_up(self, model: ComparedModel, base: ComparedModel | None = None) -> SpeedUp:
        """How many times as fast as ``base`` a model is; None is the dense one of the speed-ups."""
        base = base or self.dense
        return speed_up_of([[s] for s in base.rounds_s], [[s] for s in model.rounds_s])

    def sentence(self, speedup: float) -> str:
        """The measured speed-up of a student, beside the one that was wanted."""
        (model,) = self.of([speedup_name(speedup)])
        measured = self.speed_up(model)
        found = f"{measured.numbers} as fast as dense ({1e3 * model.seconds:.1f} of "
        found += f"{1e3 * self.dense.seconds:.1f} ms)"
        if measured.ratio < KEPT * speedup:
            found += f": {1 - measured.ratio / speedup:.0%} short of {speedup:g}"
        fastest = self.fastest_dense
        if fastest != self.dense:
            beside = self.speed_up(model, fastest).numbers
            found += f"; {beside} as fast as {fastest.title}, the fastest dense form"
        return found

    @property
    def warning(self) -> str | None:
        """The reason to doubt the times; None on a quiet machine."""
        if not is_busy(self.others_cores):
            return None
        return (
            f"other processes kept {self.others_cores:.1f} of {usable_cores():g} cores busy "
            "meanwhile, so these times are too long and their ratios uncertain: time the exported "
            "models again with spd bench when the machine is quiet"
        )

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "where": self.where,
            "others_cores": self.others_cores,
            "models": [model.to_json() for model in self.models],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The students of one teacher, the slowest first.

    Attributes:
        output: folder of the family.
        members: the students.
        shallow: shallower dense students to compare with, by number of layers.
        comparison: what was measured; None if this machine does not count.
        max_drop: points that a student may lose on the validation rows; None for no bound.
    """

    output: Path
    members: tuple[Member, ...]
    shallow: Mapping[int, Checkpoint] = field(default_factory=dict)
    comparison: Comparison | None = None
    max_drop: float | None = None

    @property
    def chosen(self) -> Member | None:
        """The fastest student within ``max_drop``; None if each loses more."""
        fine = [m for m in self.members if not loses_more(m, self.max_drop)]
        return fine[-1] if fine else None

    def beside_shallow(self) -> Iterator[str]:
        """A sentence for each shallower dense student: whether a sparse one is better."""
        if self.comparison is None:
            return
        metric = self.members[0].checkpoint.task.metrics[0]
        students = self.comparison.of([speedup_name(m.speedup) for m in self.members])
        for model in self.comparison.of([layers_name(count) for count in self.shallow]):
            ahead = [s for s in students if beats(s, model, metric)]
            message = f"{metric} {_spelled(model, metric)}, {1e3 * model.seconds:.1f} ms"
            if ahead:
                best = max(ahead, key=lambda s: s.scores.get(metric) or 0.0)
                yield (
                    f"a dense student of {model.name} ({message}) is beaten by {best.name}: "
                    f"{_spelled(best, metric)}, {1e3 * best.seconds:.1f} ms"
                )
            else:
                yield (
                    f"no student is both as fast and as good as a dense one of {model.name} "
                    f"({message}): near that speed sparsity does not pay here"
                )

    def to_json(self) -> dict[str, Any]:
        """The content of ``family.json``."""
        return {
            "schema": SCHEMA,
            "max_drop": self.max_drop,
            "chosen": None if self.chosen is None else self.chosen.checkpoint.folder.name,
            "members": [self._member_json(member) for member in self.members],
            "shallow": [
                {"layers": count, "folder": found.folder.name, "scores": _scores(found)}
                for count, found in self.shallow.items()
            ],
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }

    def _member_json(self, member: Member) -> dict[str, Any]:
        """A student as JSON values."""
        measured = None
        if self.comparison is not None:
            (model,) = self.comparison.of([speedup_name(member.speedup)])
            measured = self.comparison.speed_up(model)
        return {
            "speedup": member.speedup,
            "folder": member.checkpoint.folder.name,
            "measured_speedup": None if measured is None else measured.ratio,
            "measured_interval": None if measured is None else [measured.low, measured.high],
            "validation_drop": member.drop,
            "scores": _scores(member.checkpoint),
        }


def loses_more(member: Member, max_drop: float | None) -> bool:
    """Whether a student loses more than it may."""
    return max_drop is not None and member.drop is not None and member.drop > max_drop


def _scores(checkpoint: Checkpoint) -> dict[str, dict[str, float | None]]:
    """The scores of a checkpoint by model: dense and sparse."""
    return {model: dict(scores) for model, scores in checkpoint.scores.items()}


def _spelled(model: ComparedModel, metric: str) -> str:
    """The score of a model with four decimals."""
    score = model.scores.get(metric)
    return "-" if score is None else f"{score:.4f}"
