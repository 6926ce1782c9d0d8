"""Search orders of a classifier's axes with which its patterns keep a higher score.

The axes are searched one after another, each on the scores in the order found so far. For a block
pattern a grouping of the rows is tried first. Then, for an N:M pattern, an order of the columns is
tried, within the groups of rows if those were a gain. An order is taken only if all matrices along
the axis together keep more with their patterns' own masks, so no axis gets worse.

Unstructured and structured patterns do not depend on the order and are not searched.
"""

import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar, assert_never

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.architecture import Role
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_train.pruning.permutation.axes import Axis, AxisOrder, spread
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.grouping import Section, group_order
from spd_train.pruning.permutation.permutations import Kept, Permutations, arranged_by
from spd_train.pruning.permutation.stripes import stripe_order

Targets = Mapping[str, Pattern]
Scores = Mapping[str, Tensor]
_Kind = TypeVar("_Kind", NM, Block)


def find_permutations(
    axes: Iterable[Axis],
    encoder: Encoder,
    targets: Targets,
    scores: Scores,
    *,
    budget: SearchBudget,
    skipped: Mapping[str, str] | None = None,
) -> Permutations:
    """Search all axes; the model is not changed.

    Args:
        axes: the axes whose order is free.
        encoder: gives the role of each matrix, for the report.
        targets: pattern and sparsity by matrix name.
        scores: importance ``[N, K]`` by matrix name, never negative.
        budget: number of rounds.
        skipped: axes that the caller left out, with the reason.
    """
    start = time.perf_counter()
    local = {name: target for name, target in targets.items() if depends_on_order(target)}
    generator = torch.Generator().manual_seed(budget.seed)
    present, reasons = dict(scores), dict(skipped or {})
    moves: list[AxisOrder] = []
    for axis in axes:
        if reason := misfit(axis, local):
            reasons[axis.name] = reason
        order = _order(axis, local, present, budget, generator)
        if order is not None:
            moves.append(order)
            present = arranged_by(present, [order])
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


def depends_on_order(pattern: Pattern) -> bool:
    """Whether another order of rows or columns can let the pattern's mask keep a higher score."""
    match pattern:
        case NM() | Block():
            return True
        case Unstructured() | Structured():
            return False
        case never:
            assert_never(never)


def misfit(axis: Axis, targets: Targets) -> str | None:
    """Why an N:M pattern cannot be searched along the axis; None if it can."""
    wrong = [g for g in _targets_of_kind(targets, axis.columns, NM) if axis.segment % g.m]
    return f"{wrong[0].m} does not divide the {axis.segment} inputs of a head" if wrong else None


def groups_fit(height: int, axis: Axis) -> bool:
    """Whether groups of ``height`` rows hold several units, and a segment several groups."""
    return axis.unit < height < axis.segment and not (height % axis.unit or axis.segment % height)


def kept_score(score_NK: Tensor, pattern: Pattern) -> float:
    """Total score of the weights that the pattern's best mask keeps."""
    mask_NK = pattern.mask(score_NK, pattern.sparsity)
    return float(score_NK[mask_NK].sum(dtype=torch.float64))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Arrangement:
    """An order of an axis, with the scores in that order and the score that is kept."""

    axis: Axis
    targets: Targets
    scores: Scores
    order_X: Tensor
    kept: float

    @classmethod
    def of(cls, axis: Axis, targets: Targets, scores: Scores) -> Self:
        """The present order of ``axis``."""
        along = {name: targets[name] for name in axis.matrices if name in targets}
        return cls(
            axis=axis,
            targets=along,
            scores={name: scores[name] for name in along},
            order_X=torch.arange(axis.size),
            kept=sum(_kept_by_name(along, scores).values()),
        )

    def better(self, order_X: Tensor) -> Self:
        """The arrangement with ``order_X`` applied if that keeps more, otherwise this one."""
        move = AxisOrder(axis=self.axis, order_X=order_X)
        scores = arranged_by(self.scores, [move])
        kept = sum(_kept_by_name(self.targets, scores).values())
        if kept <= self.kept:
            return self
        return replace(self, scores=scores, order_X=self.order_X[order_X], kept=kept)


def _order(
    axis: Axis, targets: Targets, scores: Scores, budget: SearchBudget, generator: torch.Generator
) -> AxisOrder | None:
    """The best order that was found for one axis; None if it is the present one."""
    heights = {
        g.rows for g in _targets_of_kind(targets, axis.rows, Block) if groups_fit(g.rows, axis)
    }
    stripes = {g for g in _targets_of_kind(targets, axis.columns, NM) if axis.unit == 1}
    if not heights and not stripes:
        return None
    start = now = _Arrangement.of(axis, targets, scores)
    segment = axis.segment
    for height in sorted(heights, reverse=True):
        if segment % height:
            continue
        grouped = now.better(_grouped(now, height, segment, budget, generator))
        # Later orders move rows within a group that was a gain, so that the gain is kept.
        now, segment = grouped, segment if grouped is now else height
    for pattern in sorted(stripes, key=lambda p: (p.m, p.n)):
        if segment % pattern.m == 0:
            now = now.better(_striped(now, pattern, segment, budget, generator))
    return None if now is start else AxisOrder(axis=axis, order_X=now.order_X)


def _grouped(
    now: _Arrangement, height: int, segment: int, budget: SearchBudget, generator: torch.Generator
) -> Tensor:
    """An order that puts similar rows into groups of ``height``, for the block patterns."""
    unit = now.axis.unit
    sections = [
        Section.of(now.scores[name], target, unit=unit)
        for name in now.axis.rows
        if isinstance(target := now.targets.get(name), Block) and target.rows == height
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
    """An order of the columns, for the matrices with this N:M pattern."""
    readers = [now.scores[name] for name in now.axis.columns if now.targets.get(name) == pattern]
    return stripe_order(
        torch.cat(readers), pattern, segment=segment, budget=budget, generator=generator
    )


def _targets_of_kind(targets: Targets, names: Iterable[str], kind: type[_Kind]) -> Iterator[_Kind]:
    """The targets of the named matrices that are patterns of one class."""
    for name in names:
        target = targets.get(name)
        if isinstance(target, kind):
            yield target


def _kept_by_name(targets: Targets, scores: Scores) -> dict[str, float]:
    """Total score that the best mask of each matrix keeps, by name."""
    return {name: kept_score(scores[name], target) for name, target in targets.items()}


def _shares(
    names: Sequence[str],
    total: Mapping[str, float],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Kept:
    """Shares of the total score that the named matrices together keep, before and after."""
    whole = sum(total[name] for name in names) or 1.0
    return Kept(
        before=sum(before[name] for name in names) / whole,
        after=sum(after[name] for name in names) / whole,
    )


def _by_role(encoder: Encoder, names: Container[str]) -> dict[Role, list[str]]:
    """The names of the encoder's matrices that are in ``names``, by role."""
    by_role: dict[Role, list[str]] = {}
    for matrix in encoder.matrices():
        if matrix.name in names:
            by_role.setdefault(matrix.role, []).append(matrix.name)
    return by_role
