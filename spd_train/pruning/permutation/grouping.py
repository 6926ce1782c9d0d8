"""An order of the outputs with which a block pattern keeps more: similar rows become neighbours.

This is a clustering into groups of equal size, like k-means. Given the blocks that each group
keeps, the affinity of a row to a group is the row's score in those blocks. Given the groups, each
keeps the blocks with the highest total. Both steps can only raise the kept score. To keep the sizes
equal, rows are divided between two groups at a time; for fixed blocks the best division is exact:
the rows with the larger difference of affinities go to the one group. Decreasing noise (simulated
annealing) lets the search leave poor optima. Rows that move together (whole heads) are summed.

Reordering rows for blocks follows Ji et al., "TETRIS" (NeurIPS 2018).

X counts rows, or heads; U the blocks of a row; G groups; R rows of a group; P pairs of groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spd_deploy.domain.patterns import Block
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.pairing import random_pairs

# Noise of the first round, in standard deviations of the affinities: for a large group, and the
# factor that a group of one has in addition, since its row decides its choice of blocks. Then the
# share of the rounds over which the noise decreases to 0. Measured on MiniLM's neurons (groups of
# 32 and 64: 0.3 to 1 are equally good) and heads (groups of 2: within 0.0005 of the best).
_NOISE = 0.5
_NOISE_OF_ONE = 6.0
_NOISY_SHARE = 0.8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Section:
    """A matrix whose rows are grouped.

    Attributes:
        score_XU: score of each block ``[X, U]``, rows that move together being summed.
        choice: the pattern that chooses among the blocks.
    """

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
        """The score of each row in each group's kept blocks ``[X, G]``, and the kept total."""
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
    """An order ``[X]`` of the rows in groups of ``size`` that keeps no less than the present one.

    Args:
        sections: the matrices that share the order.
        size: rows of a group.
        segment: number of rows that a row cannot leave; a multiple of ``size``.
        budget: number of rounds.
        generator: draws the pairs and the noise.
    """
    order_GR = torch.arange(len(sections[0].score_XU)).reshape(-1, size)
    best_GR, most = order_GR, -1.0
    for round_ in range(budget.group_rounds + 1):
        affinity_XG, kept = _affinity(sections, order_GR)
        if kept > most:
            best_GR, most = order_GR, kept
        noise = noise_at(round_ / budget.group_rounds, size)
        before_GR = order_GR
        order_GR = _regrouped(
            order_GR, _with_noise(affinity_XG, noise, generator), segment // size, generator
        )
        if noise == 0 and torch.equal(order_GR, before_GR):
            break
    return best_GR.flatten()


def noise_at(share: float, size: int) -> float:
    """Standard deviation of the noise after a ``share`` of the rounds, for groups of ``size``."""
    return _NOISE * (1 + _NOISE_OF_ONE / size) * max(0.0, 1 - share / _NOISY_SHARE)


def _affinity(sections: Sequence[Section], order_GR: Tensor) -> tuple[Tensor, float]:
    """Affinities ``[X, G]`` and kept score, summed over all sections."""
    parts = [section.affinity(order_GR) for section in sections]
    return torch.stack([a for a, _ in parts]).sum(0).cpu(), sum(kept for _, kept in parts)


def _with_noise(affinity_XG: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Affinities plus normal noise, in units of their standard deviation within a row."""
    if noise == 0:
        return affinity_XG
    spread = (affinity_XG - affinity_XG.mean(1, keepdim=True)).square().mean().sqrt()
    return affinity_XG + noise * spread * torch.randn(affinity_XG.shape, generator=generator)


def _regrouped(
    order_GR: Tensor, affinity_XG: Tensor, per_segment: int, generator: torch.Generator
) -> Tensor:
    """The groups ``[G, R]`` after each was paired about once with each other of its segment."""
    order_GR = order_GR.clone()
    for _ in range(per_segment):
        pair_P2 = random_pairs(len(order_GR), per_segment, generator)
        order_GR[pair_P2.T.flatten()] = _divided(order_GR[pair_P2], affinity_XG, pair_P2)
    return order_GR


def _divided(rows_P2R: Tensor, affinity_XG: Tensor, pair_P2: Tensor) -> Tensor:
    """The best division ``[2P, R]`` of each pair's rows for fixed blocks, first groups first."""
    R = rows_P2R.shape[2]
    rows_PX = rows_P2R.flatten(1)
    first_PX = affinity_XG[rows_PX, pair_P2[:, :1]]
    lead_PX = first_PX - affinity_XG[rows_PX, pair_P2[:, 1:]]
    rank_PX = lead_PX.argsort(dim=1, descending=True, stable=True)
    sorted_PX = rows_PX.gather(1, rank_PX)
    return torch.cat([sorted_PX[:, :R], sorted_PX[:, R:]])
