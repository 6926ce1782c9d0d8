"""An order of the outputs under which a block pattern keeps more: rows of like inputs together.

A clustering with equal sizes in the manner of k-means: given the blocks that each group keeps,
each row has an affinity to each group, the score those blocks hold of it; given the groups, each
keeps the blocks of highest total. Both steps can only raise what is kept. Equal sizes are held by
dealing rows out between two groups at a time, which for fixed blocks is solved exactly: the rows
with the larger difference of affinities go to the one. Noise that fades (simulated annealing) gets
the search out of the poor optimum it starts in, where each row has already pulled its own group's
choice of blocks its way. Rows that move as one (whole heads) are summed beforehand.

The idea of rows reordered so that blocks keep more follows Ji et al., "TETRIS" (NeurIPS 2018).

X counts rows, or heads; U the blocks of a row; G groups; P pairs of groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spd_deploy.domain.patterns import Block
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.pairing import random_pairs

# Noise at the start, in standard deviations of the affinities: of a large group, and how many times
# as much more for a group of one (the smaller the group, the more each row sways its choice). Then
# the share of the rounds over which it fades. Measured on MiniLM's neurons (groups of 32 and 64,
# where 0.3 to 1 do equally well) and heads (groups of 2, where 2 comes within 0.0005 of the best).
_NOISE = 0.5
_NOISE_OF_ONE = 6.0
_NOISY_SHARE = 0.8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Section:
    """A matrix whose rows are grouped: its block scores and the rule that chooses blocks."""

    score_XU: Tensor
    choice: Block

    @classmethod
    def of(cls, score_NK: Tensor, pattern: Block, *, unit: int) -> Self:
        """Scores of a matrix summed over blocks and over ``unit`` rows that move as one."""
        N, K = score_NK.shape
        C = pattern.columns
        score_XU = score_NK.float().reshape(N // unit, unit, K // C, C).sum((1, 3))
        return cls(score_XU=score_XU, choice=Block(rows=1, columns=1, sparsity=pattern.sparsity))

    def affinity(self, order_GR: Tensor) -> tuple[Tensor, float]:
        """What each group's blocks hold of each row, ``[X, G]``, and what is kept now."""
        score_GU = self.score_XU[order_GR].sum(1)
        mask_GU = self.choice.mask(score_GU, self.choice.sparsity)
        return self.score_XU @ mask_GU.float().T, float(score_GU[mask_GU].sum())


def group_order(
    sections: Sequence[Section],
    *,
    size: int,
    segment: int,
    budget: SearchBudget,
    generator: torch.Generator,
) -> Tensor:
    """An order of the X rows in groups of ``size`` that keeps no less than the present one.

    Args:
        sections: the matrices that share the order.
        size: rows a group.
        segment: a row stays in its segment of so many; ``size`` divides it.
        budget: how long to look.
        generator: chooses the pairs and the noise.
    """
    order_GR = torch.arange(len(sections[0].score_XU)).reshape(-1, size)
    best_GR, most = order_GR, -1.0
    for round_ in range(budget.group_rounds + 1):
        affinity_XG, kept = _affinity(sections, order_GR)
        if kept > most:
            best_GR, most = order_GR, kept
        noise = noise_at(round_ / budget.group_rounds, size)
        before_GR = order_GR
        order_GR = _dealt(
            order_GR, _shaken(affinity_XG, noise, generator), segment // size, generator
        )
        if noise == 0 and torch.equal(order_GR, before_GR):
            break
    return best_GR.flatten()


def noise_at(share: float, size: int) -> float:
    """Noise after a ``share`` of the rounds for groups of ``size``; none towards the end."""
    return _NOISE * (1 + _NOISE_OF_ONE / size) * max(0.0, 1 - share / _NOISY_SHARE)


def _affinity(sections: Sequence[Section], order_GR: Tensor) -> tuple[Tensor, float]:
    """Affinities and kept score of all sections together."""
    parts = [section.affinity(order_GR) for section in sections]
    return torch.stack([a for a, _ in parts]).sum(0).cpu(), sum(kept for _, kept in parts)


def _shaken(affinity_XG: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Affinities with normal noise in units of their spread within a row."""
    if noise == 0:
        return affinity_XG
    spread = (affinity_XG - affinity_XG.mean(1, keepdim=True)).square().mean().sqrt()
    return affinity_XG + noise * spread * torch.randn(affinity_XG.shape, generator=generator)


def _dealt(
    order_GR: Tensor, affinity_XG: Tensor, per_segment: int, generator: torch.Generator
) -> Tensor:
    """Groups after each has been paired about once with each other of its segment."""
    order_GR = order_GR.clone()
    for _ in range(per_segment):
        pair_P2 = random_pairs(len(order_GR), per_segment, generator)
        order_GR[pair_P2.T.flatten()] = _split(order_GR[pair_P2], affinity_XG, pair_P2)
    return order_GR


def _split(rows_P2R: Tensor, affinity_XG: Tensor, pair_P2: Tensor) -> Tensor:
    """The best division of each pair's rows for fixed blocks: ``[2P, R]``, first groups first."""
    R = rows_P2R.shape[2]
    rows_PX = rows_P2R.flatten(1)
    first_PX = affinity_XG[rows_PX, pair_P2[:, :1]]
    lead_PX = first_PX - affinity_XG[rows_PX, pair_P2[:, 1:]]
    rank_PX = lead_PX.argsort(dim=1, descending=True, stable=True)
    sorted_PX = rows_PX.gather(1, rank_PX)
    return torch.cat([sorted_PX[:, :R], sorted_PX[:, R:]])
