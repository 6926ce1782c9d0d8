"""A model beside others: what it scores as it is exported, and how long it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from spd_deploy.domain.runtime_choice import CpuRuntime

# Times that differ by less than this factor count as the same.
_SAME_TIME = 1.05


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedModel:
    """The scores of an exported model and its time for a batch, in turns with the others.

    Attributes:
        name: name of the model, such as ``dense`` or ``3x``.
        runtime: runtime that it ran in.
        precision: precision that it ran in.
        rounds_s: seconds of a batch in each round; of several shapes the geometric mean.
        scores: the task's metrics of the exported model; None marks an undefined one.
    """

    name: str
    runtime: CpuRuntime
    precision: str
    rounds_s: tuple[float, ...]
    scores: Mapping[str, float | None]

    @property
    def seconds(self) -> float:
        """Time of a batch: the median of the rounds."""
        return median(self.rounds_s)

    @property
    def title(self) -> str:
        """Name and precision, such as ``dense int8``."""
        return f"{self.name} {self.precision}"

    def to_json(self) -> dict[str, Any]:
        """The model as JSON values."""
        return {
            "name": self.name,
            "runtime": self.runtime,
            "precision": self.precision,
            "seconds": self.seconds,
            "rounds_s": list(self.rounds_s),
            "scores": dict(self.scores),
        }


def beats(one: ComparedModel, other: ComparedModel, metric: str) -> bool:
    """Whether ``one`` is at least as fast as ``other`` within 5 %, and scores at least as well.

    A model whose score is undefined beats none, and is beaten by none.
    """
    score, others = one.scores.get(metric), other.scores.get(metric)
    if score is None or others is None:
        return False
    return one.seconds <= _SAME_TIME * other.seconds and score >= others
