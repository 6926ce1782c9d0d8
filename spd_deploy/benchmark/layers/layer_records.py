"""Values of a layer-by-layer measurement: the operators' times of a model and its dense baseline.

A report holds these raw samples; ``layers.analysis`` computes the rest. Times are seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spd_deploy.benchmark.records import Shape
from spd_deploy.benchmark.stats import median
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.models.architecture import Role

_AGAIN = "measure again"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeTime:
    """One operator of the graph as the runtime ran it: its typical time in each round."""

    name: str
    op: str
    seconds: tuple[float, ...]

    @property
    def typical_s(self) -> float:
        """The median of the rounds."""
        return float(np.median(self.seconds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """The times of one model: of whole runs, with and without a profiler, and of each operator.

    Attributes:
        runs: seconds of each run without a profiler, a tuple a round.
        profiled: the same with a profiler, which itself takes time at each operator.
        nodes: in no order; operators that the runtime folded away when it loaded are not there.
    """

    runs: tuple[tuple[float, ...], ...]
    profiled: tuple[tuple[float, ...], ...]
    nodes: tuple[NodeTime, ...]

    def __post_init__(self) -> None:
        """Refuse fewer than two rounds, rounds without runs, and nodes that lack a round."""
        rounds = len(self.runs)
        whole = rounds >= 2 and len(self.profiled) == rounds and self.nodes
        fits = all(len(node.seconds) == rounds for node in self.nodes)
        wall = [s for part in (*self.runs, *self.profiled) for s in part or (math.nan,)]
        inner = [s for node in self.nodes for s in node.seconds]
        sane = all(0 < s < math.inf for s in wall) and all(0 <= s < math.inf for s in inner)
        if not (whole and fits and sane):
            raise BadReport("a profile's rounds are missing or no durations", fix=_AGAIN)

    @property
    def total_s(self) -> float:
        """The median of the runs without a profiler."""
        return median(self.runs)

    @property
    def timer_s(self) -> float:
        """The time that the profiler adds to each operator: the least time of any of them.

        Every graph has a reshape, which does nothing at run time. A profile still gives it 2 us.
        """
        return min(node.typical_s for node in self.nodes)

    @property
    def profiled_s(self) -> float:
        """The median of the runs with a profiler."""
        return median(self.profiled)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixFacts:
    """A matrix as the manifest describes it: layer, role, pattern and lowering.

    Attributes:
        weights: how many numbers it holds, zeros included.
    """

    name: str
    layer: int
    role: Role
    weights: int
    pattern: str
    density: float
    flops_share: float
    lowering: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerProfile:
    """A sparse model and its dense baseline, measured in turns at one shape.

    Attributes:
        others_cores: cores that other processes kept busy meanwhile, on average.
        runtime: what ran both, with its version where a report knows it.
        precision: in which both ran.
        served: what the artefact is served with, where that is another runtime or precision.
    """

    arm: str
    shape: Shape
    threads: int | None
    matrices: tuple[MatrixFacts, ...]
    dense: Timeline
    sparse: Timeline
    others_cores: float
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    served: str | None = None

    def __post_init__(self) -> None:
        """Refuse models of unequal rounds, and two matrices of one layer and role."""
        places = {(m.layer, m.role) for m in self.matrices}
        if len(self.dense.runs) != len(self.sparse.runs) or not (
            0 < len(places) == len(self.matrices)
        ):
            raise BadReport(f"the profile of {self.arm} does not fit together", fix=_AGAIN)


def timeline_of(
    runs: Sequence[tuple[float, ...]],
    profiled: Sequence[tuple[float, ...]],
    nodes: Sequence[Sequence[NodeTime]],
) -> Timeline:
    """The times of one model from all rounds; ``nodes`` are those of each round.

    A node that the runtime did not have in some round has a time of 0 there.
    """
    times: dict[tuple[str, str], list[float]] = {}
    for number, of_round in enumerate(nodes):
        for node in of_round:
            seconds = times.setdefault((node.name, node.op), [0.0] * len(nodes))
            seconds[number] += node.typical_s
    return Timeline(
        runs=tuple(runs),
        profiled=tuple(profiled),
        nodes=tuple(
            NodeTime(name=name, op=op, seconds=tuple(seconds))
            for (name, op), seconds in times.items()
        ),
    )
