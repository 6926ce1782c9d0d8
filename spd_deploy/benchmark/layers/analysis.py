"""From node times to the gain of each matrix, and the losses on the gain that its density promises.

A matrix of density d promises to take d times as long as a dense one. The time beyond that is lost,
and the losses add up to all of it:

    zeros       more is multiplied than the non-zeros, as in a matrix that runs dense
    rate        what is multiplied takes longer than it would at the dense matrix's rate
    copies      the kept inputs are copied together
    passes      bias and residual are added in passes over the result, which zeros do not shorten

A loss below zero is a gain. For the whole model the promise is Amdahl's: every matrix as fast as
its density says, all else as in the dense baseline.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spd_deploy.benchmark.layers.attribution import OF_MATRIX, PARTS, Part, attribution_of
from spd_deploy.benchmark.layers.layer_records import LayerProfile, MatrixFacts, Timeline
from spd_deploy.domain.models.architecture import Role
from spd_deploy.sessions.row_parallel import chunks_of
from spd_deploy.timing.speed_up import SpeedUp, speed_up_of

Loss = Literal["zeros", "rate", "copies", "passes"]
RUNTIME = "runtime"
# Operators that add up to more than a run, by this share of it, were not timed on a steady machine.
_SLACK = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixTime:
    """The time of a matrix, or of several, by what is done."""

    products_s: float = 0.0
    copies_s: float = 0.0
    passes_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of products, copies and passes together."""
        return self.products_s + self.copies_s + self.passes_s

    def __add__(self, other: "MatrixTime") -> "MatrixTime":
        """The times of both, added part by part."""
        return MatrixTime(
            products_s=self.products_s + other.products_s,
            copies_s=self.copies_s + other.copies_s,
            passes_s=self.passes_s + other.passes_s,
        )

    def times(self, share: float) -> "MatrixTime":
        """Every part multiplied by ``share``."""
        return MatrixTime(
            products_s=share * self.products_s,
            copies_s=share * self.copies_s,
            passes_s=share * self.passes_s,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerGain:
    """Times of a matrix, or of several together, dense and sparse.

    Attributes:
        promised: the time that the density promises: the dense one times it.
        kept_s: what the multiplications left would take at the dense products' rate.
    """

    dense: MatrixTime
    sparse: MatrixTime
    promised: MatrixTime
    kept_s: float

    @property
    def speed_up(self) -> float | None:
        """How many times faster than dense; None where nothing is left to run."""
        return _ratio(self.dense.total_s, self.sparse.total_s)

    @property
    def promise(self) -> float | None:
        """How many times faster the density promises to be; None where it is zero."""
        return _ratio(self.dense.total_s, self.promised.total_s)

    @property
    def rate(self) -> float | None:
        """Multiplications a second, as a share of the dense products'; None where none is left."""
        return _ratio(self.kept_s, self.sparse.products_s)

    @property
    def losses(self) -> Mapping[Loss, float]:
        """Seconds lost on the promise; their sum is the sparse time less the promised one."""
        return {
            "zeros": self.kept_s - self.promised.products_s,
            "rate": self.sparse.products_s - self.kept_s,
            "copies": self.sparse.copies_s - self.promised.copies_s,
            "passes": self.sparse.passes_s - self.promised.passes_s,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixGain:
    """One matrix of the model with what it gained."""

    facts: MatrixFacts
    gain: LayerGain


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTime:
    """One part of the model: its time in the dense baseline and in the sparse model."""

    name: str
    dense_s: float
    sparse_s: float

    @property
    def change_s(self) -> float:
        """Seconds that the sparse model takes more; below zero is a gain."""
        return self.sparse_s - self.dense_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """Everything that follows from a profile.

    Attributes:
        steps: the parts of the model; dense and sparse times add up to the totals.
        speed_up: of whole runs, with its interval over the rounds.
        shared_out: whether a served batch of this shape is run by the row, a thread for some rows.
        profiler: how much longer runs took while operators were timed, as a share of the others,
            in the dense baseline and the model.
        where: the runtime and precision of both, such as ``onnxruntime 1.32.0, fp32``.
        served: what the artefact is served with, where that is another; else None.
    """

    arm: str
    shape: str
    threads: int | None
    matrices: tuple[MatrixGain, ...]
    steps: tuple[PartTime, ...]
    dense_s: float
    sparse_s: float
    speed_up: SpeedUp
    shared_out: bool
    profiler: tuple[float, float]
    others_cores: float
    where: str
    served: str | None

    @property
    def steady(self) -> bool:
        """Whether the operators' times, from other runs than the totals, fit into the totals."""
        rest = self.steps[-1]
        return rest.dense_s > -_SLACK * self.dense_s and rest.sparse_s > -_SLACK * self.sparse_s

    @property
    def all_matrices(self) -> LayerGain:
        """The gain of all matrices together."""
        return total_of(m.gain for m in self.matrices)

    @property
    def promised_s(self) -> float:
        """The time of a run if every matrix kept its promise and all else stayed as it is."""
        return self.dense_s - self.all_matrices.dense.total_s + self.all_matrices.promised.total_s

    @property
    def promise(self) -> float | None:
        """How many times faster the model would be then."""
        return _ratio(self.dense_s, self.promised_s)

    @property
    def losses(self) -> Mapping[str, float]:
        """Seconds lost on the promise, within matrices and in the other parts of the model.

        Their sum is the sparse time less the promised one.
        """
        others = {step.name: step.change_s for step in self.steps if step.name not in OF_MATRIX}
        within = {str(name): lost_s for name, lost_s in self.all_matrices.losses.items()}
        return within | others


def analyse(profile: LayerProfile) -> Analysis:
    """The gains, losses and parts that follow from the node times of a profile."""
    dense, sparse = _sums(profile.dense), _sums(profile.sparse)
    return Analysis(
        arm=profile.arm,
        shape=str(profile.shape),
        threads=profile.threads,
        matrices=tuple(
            MatrixGain(facts=facts, gain=_gain(facts, dense, sparse)) for facts in profile.matrices
        ),
        steps=_steps(profile, dense, sparse),
        dense_s=profile.dense.total_s,
        sparse_s=profile.sparse.total_s,
        speed_up=speed_up_of(profile.dense.runs, profile.sparse.runs),
        shared_out=_shared_out(profile),
        profiler=(_added(profile.dense), _added(profile.sparse)),
        others_cores=profile.others_cores,
        where=f"{profile.runtime}, {profile.precision}",
        served=profile.served,
    )


def total_of(gains: Iterable[LayerGain]) -> LayerGain:
    """The gain of several matrices together: all their times are added."""
    found = tuple(gains)
    return LayerGain(
        dense=sum((g.dense for g in found), MatrixTime()),
        sparse=sum((g.sparse for g in found), MatrixTime()),
        promised=sum((g.promised for g in found), MatrixTime()),
        kept_s=sum(g.kept_s for g in found),
    )


def grouped(
    matrices: Sequence[MatrixGain], key: Callable[[MatrixFacts], object]
) -> tuple[tuple[MatrixGain, ...], ...]:
    """The matrices of each key together, in the order of the first of each."""
    found: dict[object, list[MatrixGain]] = defaultdict(list)
    for matrix in matrices:
        found[key(matrix.facts)].append(matrix)
    return tuple(map(tuple, found.values()))


_Sums = Mapping[tuple[Part, tuple[int, Role] | None], float]


def _sums(timeline: Timeline) -> _Sums:
    """Seconds by part and matrix; every node counts once, without what timing it costs."""
    timer_s = timeline.timer_s
    found: dict[tuple[Part, tuple[int, Role] | None], float] = defaultdict(float)
    for node in timeline.nodes:
        place = attribution_of(node.name, node.op)
        found[place.part, place.matrix] += node.typical_s - timer_s
    return dict(found)


def _split(sums: _Sums, facts: MatrixFacts) -> MatrixTime:
    """The time of one matrix."""
    products, copies, passes = (
        sums.get((part, (facts.layer, facts.role)), 0.0) for part in OF_MATRIX
    )
    return MatrixTime(products_s=products, copies_s=copies, passes_s=passes)


def _gain(facts: MatrixFacts, dense: _Sums, sparse: _Sums) -> LayerGain:
    """One matrix's times, and its promise."""
    base = _split(dense, facts)
    return LayerGain(
        dense=base,
        sparse=_split(sparse, facts),
        promised=base.times(facts.density),
        kept_s=facts.flops_share * base.products_s,
    )


def _steps(profile: LayerProfile, dense: _Sums, sparse: _Sums) -> tuple[PartTime, ...]:
    """Every part of the model, and last the time between operators that no node accounts for."""
    steps = [
        PartTime(name=part, dense_s=_of_part(dense, part), sparse_s=_of_part(sparse, part))
        for part in PARTS
    ]
    rest = PartTime(
        name=RUNTIME,
        dense_s=profile.dense.total_s - sum(dense.values()),
        sparse_s=profile.sparse.total_s - sum(sparse.values()),
    )
    return (*steps, rest)


def _of_part(sums: _Sums, part: Part) -> float:
    """The time of a part, over all matrices where it is theirs."""
    return float(np.sum([s for (found, _), s in sums.items() if found == part]))


def _added(timeline: Timeline) -> float:
    """How much longer a run took while operators were timed, as a share."""
    return timeline.profiled_s / timeline.total_s - 1


def _shared_out(profile: LayerProfile) -> bool:
    """Whether a session that is not profiled would share this batch out among its threads.

    Where the runtime chose their number, there is more than one on any machine worth measuring.
    """
    mask_BS = np.ones((profile.shape.batch, profile.shape.seq), np.int64)
    return len(chunks_of(mask_BS, profile.threads or 2)) > 1


def _ratio(over: float, under: float) -> float | None:
    """None where there is nothing to divide by."""
    return over / under if under > 0 else None
