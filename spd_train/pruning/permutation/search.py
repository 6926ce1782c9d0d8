"""Orders of a classifier's free axes under which its patterns keep more score.

Axes are taken one after another, each on the scores as the ones before have left them. On each,
a block pattern proposes a grouping of the rows, then an N:M pattern an order of the columns, within
the groups of rows where those were worth it. A proposal is taken only if all the matrices along the
axis together keep more by their patterns' own masks, so no axis is ever worse than it was.

Unstructured and structured patterns look at no neighbours and propose nothing.
"""

import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.layers import Role
from spd_deploy.domain.patterns import NM, Block, Pattern
from spd_train.pruning.permutation.axes import Axis, Move, spread
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.found import Kept, Permutations, arranged_by
from spd_train.pruning.permutation.grouping import Section, group_order
from spd_train.pruning.permutation.stripes import stripe_order

Goals = Mapping[str, Pattern]
Scores = Mapping[str, Tensor]
_Kind = TypeVar("_Kind", NM, Block)


def find_permutations(
    axes: Iterable[Axis],
    encoder: Encoder,
    goals: Goals,
    scores: Scores,
    *,
    budget: SearchBudget,
    skipped: Mapping[str, str] | None = None,
) -> Permutations:
    """Search all the axes; the model is not touched.

    Args:
        axes: which orders are free.
        encoder: knows the roles, for the report.
        goals: the pattern of each matrix that will be pruned, placed on it.
        scores: importance of each weight, ``[N, K]`` by matrix name, never negative.
        budget: how long to look.
        skipped: axes that the caller left out, with the reason.
    """
    start = time.perf_counter()
    local = {name: goal for name, goal in goals.items() if isinstance(goal, NM | Block)}
    generator = torch.Generator().manual_seed(budget.seed)
    present, reasons = dict(scores), dict(skipped or {})
    moves: list[Move] = []
    for axis in axes:
        if reason := misfit(axis, local):
            reasons[axis.name] = reason
        found = _order(axis, local, present, budget, generator)
        if found is not None:
            moves.append(found)
            present = arranged_by(present, [found])
    before, after = _kept_by_name(local, scores), _kept_by_name(local, present)
    total = {name: float(scores[name].sum(dtype=torch.float64)) for name in local}
    return Permutations(
        moves=tuple(moves),
        kept={
            role: _shares(names, total, before, after)
            for role, names in _by_role(encoder, local).items()
        },
        total=_shares(list(local), total, before, after),
        skipped=reasons,
        seconds=time.perf_counter() - start,
    )


def misfit(axis: Axis, goals: Goals) -> str | None:
    """Why no N:M pattern is helped along the axis, where a head is no whole number of stripes."""
    wrong = [g for g in _goals(goals, axis.columns, NM) if axis.segment % g.m]
    return f"{wrong[0].m} does not divide the {axis.segment} inputs of a head" if wrong else None


def groups_fit(height: int, axis: Axis) -> bool:
    """Whether groups of ``height`` rows hold several units, and a segment several groups."""
    return axis.unit < height < axis.segment and not (height % axis.unit or axis.segment % height)


def kept_score(score_NK: Tensor, pattern: Pattern) -> float:
    """Total score that the pattern's best mask keeps."""
    mask_NK = pattern.mask(score_NK, pattern.sparsity)
    return float(score_NK[mask_NK].sum(dtype=torch.float64))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Arrangement:
    """An order of an axis with what the matrices along it then look like and keep."""

    axis: Axis
    goals: Goals
    scores: Scores
    order_X: Tensor
    kept: float

    @classmethod
    def of(cls, axis: Axis, goals: Goals, scores: Scores) -> Self:
        """The present order."""
        along = {name: goals[name] for name in axis.matrices if name in goals}
        return cls(
            axis=axis,
            goals=along,
            scores={name: scores[name] for name in along},
            order_X=torch.arange(axis.size),
            kept=sum(_kept_by_name(along, scores).values()),
        )

    def better(self, order_X: Tensor) -> Self:
        """This one with ``order_X`` on top, if that keeps more; else this one."""
        move = Move(axis=self.axis, order_X=order_X)
        scores = arranged_by(self.scores, [move])
        kept = sum(_kept_by_name(self.goals, scores).values())
        if kept <= self.kept:
            return self
        return replace(self, scores=scores, order_X=self.order_X[order_X], kept=kept)


def _order(
    axis: Axis, goals: Goals, scores: Scores, budget: SearchBudget, generator: torch.Generator
) -> Move | None:
    """The best order found for one axis, or none if that is the present one."""
    heights = {g.rows for g in _goals(goals, axis.rows, Block) if groups_fit(g.rows, axis)}
    stripes = {g for g in _goals(goals, axis.columns, NM) if axis.unit == 1}
    if not heights and not stripes:
        return None
    start = now = _Arrangement.of(axis, goals, scores)
    segment = axis.segment
    for height in sorted(heights, reverse=True):
        if segment % height:
            continue
        grouped = now.better(_grouped(now, height, segment, budget, generator))
        # What follows moves within the groups that were worth it, and so leaves their gain alone.
        now, segment = grouped, segment if grouped is now else height
    for pattern in sorted(stripes, key=lambda p: (p.m, p.n)):
        if segment % pattern.m == 0:
            now = now.better(_striped(now, pattern, segment, budget, generator))
    return None if now is start else Move(axis=axis, order_X=now.order_X)


def _grouped(
    now: _Arrangement, height: int, segment: int, budget: SearchBudget, generator: torch.Generator
) -> Tensor:
    """The order that a grouping of the rows into groups of ``height`` proposes."""
    unit = now.axis.unit
    sections = [
        Section.of(now.scores[name], goal, unit=unit)
        for name in now.axis.rows
        if isinstance(goal := now.goals.get(name), Block) and goal.rows == height
    ]
    order_U = group_order(
        sections,
        size=height // unit,
        segment=segment // unit,
        budget=budget,
        generator=generator,
    )
    return spread(order_U, unit)


def _striped(
    now: _Arrangement, pattern: NM, segment: int, budget: SearchBudget, generator: torch.Generator
) -> Tensor:
    """The order that the matrices with this N:M pattern propose."""
    readers = [now.scores[name] for name in now.axis.columns if now.goals.get(name) == pattern]
    return stripe_order(
        torch.cat(readers), pattern, segment=segment, budget=budget, generator=generator
    )


def _goals(goals: Goals, names: Iterable[str], kind: type[_Kind]) -> Iterator[_Kind]:
    """The goals of one kind among the named matrices'."""
    for name in names:
        goal = goals.get(name)
        if isinstance(goal, kind):
            yield goal


def _kept_by_name(goals: Goals, scores: Scores) -> dict[str, float]:
    """Score that each matrix keeps."""
    return {name: kept_score(scores[name], goal) for name, goal in goals.items()}


def _shares(
    names: Sequence[str],
    total: Mapping[str, float],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Kept:
    """Shares of the score that the named matrices together keep in the old and the new order."""
    whole = sum(total[name] for name in names) or 1.0
    return Kept(
        before=sum(before[name] for name in names) / whole,
        after=sum(after[name] for name in names) / whole,
    )


def _by_role(encoder: Encoder, names: Container[str]) -> dict[Role, list[str]]:
    """Those of the encoder's matrices that are named, by role."""
    found: dict[Role, list[str]] = {}
    for matrix in encoder.matrices():
        if matrix.name in names:
            found.setdefault(matrix.role, []).append(matrix.name)
    return found
