"""An order of the inputs with which an N:M pattern keeps more.

A stripe is the m columns of which every row keeps n. The columns of two stripes are divided anew in
the way that keeps most over all rows; random pairs of stripes take turns until nothing is gained.
After Pool and Yu, "Channel permutations for N:M sparsity" (NeurIPS 2021), who rank all pairs by
their gain. Random pairs need no table of S^2 gains, and all S/2 pairs of a round are computed in
the same few tensor operations.

S counts stripes; P pairs of stripes; C the 2m columns of a pair; T trial divisions of them; M the m
columns of a stripe.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from spd_deploy.domain.patterns import NM
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.pairing import random_pairs

# A gain must exceed fp32 rounding, or two stripes could exchange the same columns endlessly.
_MIN_GAIN = 1e-6

# Up to this m all divisions of a pair are tried. For a larger m they are too many (6435 for m = 8),
# and all exchanges of one column for one are tried.
_MAX_DEALT = 4

# Scores that are compared at a time, so that they fit into the processor's cache.
_CHUNK = 1 << 15


def stripe_order(
    score_NK: Tensor, pattern: NM, *, segment: int, budget: SearchBudget, generator: torch.Generator
) -> Tensor:
    """An order ``[K]`` of the inputs that keeps no less than the present one.

    Args:
        score_NK: scores of all matrices that read the inputs, stacked.
        pattern: the N:M pattern.
        segment: number of inputs that an input cannot leave; a multiple of m that divides K.
        budget: number of rounds.
        generator: draws the pairs.
    """
    score_KN = score_NK.float().T.contiguous()
    order_SM = torch.arange(len(score_KN)).reshape(-1, pattern.m)
    deals_TC = deals(pattern.m) if pattern.m <= _MAX_DEALT else None
    quiet = 0
    for _ in range(budget.stripe_sweeps):
        pair_P2 = random_pairs(len(order_SM), segment // pattern.m, generator)
        dealt_PC = order_SM[pair_P2].flatten(1)
        better_PC = _dealt_best(score_KN, dealt_PC, deals_TC, pattern)
        quiet = quiet + 1 if torch.equal(better_PC, dealt_PC) else 0
        if quiet == budget.patience:
            break
        order_SM[pair_P2.flatten()] = better_PC.reshape(-1, pattern.m)
    return order_SM.flatten()


def deals(m: int) -> Tensor:
    """All divisions ``[T, 2m]`` of 2m columns into two stripes; the first leaves them as they are.

    The two stripes are interchangeable, so column 0 is always in the left one: 35 divisions for m =
    4.
    """
    lefts = [(0, *others) for others in itertools.combinations(range(1, 2 * m), m - 1)]
    return torch.tensor([[*one, *sorted(set(range(2 * m)) - set(one))] for one in lefts])


def _dealt_best(score_KN: Tensor, dealt_PC: Tensor, deals_TC: Tensor | None, pattern: NM) -> Tensor:
    """The columns ``[P, C]`` of each pair in the best division; unchanged if none is better."""
    better = []
    for part_PC in torch.split(dealt_PC, max(1, _CHUNK // score_KN.shape[1])):
        score_PCN = score_KN[part_PC]
        if deals_TC is None:
            best_P = _worth_it(kept_by_exchange(score_PCN, pattern)).to(part_PC.device)
            source_PC = _exchanged(best_P, pattern.m)
        else:
            best_P = _worth_it(_kept_by_deal(score_PCN, deals_TC, pattern)).to(part_PC.device)
            source_PC = deals_TC[best_P]
        better.append(part_PC.gather(1, source_PC))
    return torch.cat(better) if better else dealt_PC


def _worth_it(kept_PT: Tensor) -> Tensor:
    """The best trial ``[P]`` of each pair; 0, which changes nothing, if no other gains."""
    gain_P = kept_PT.amax(1) - kept_PT[:, 0]
    return kept_PT.argmax(1).masked_fill(gain_P <= _MIN_GAIN * kept_PT[:, 0], 0)


def kept_by_exchange(score_PCN: Tensor, pattern: NM) -> Tensor:
    """Score ``[P, 1 + m * m]`` that pairs keep: unchanged, then with column i of the left for j.

    Without column i a row keeps ``rest + max(least, new)`` of its stripe, with the new column in
    the place of i. So an exchange costs one or two maxima, for every n.
    """
    left_PMN, right_PMN = score_PCN[:, : pattern.m], score_PCN[:, pattern.m :]
    rest_left_PM, least_left_PMN = _without_each(left_PMN, pattern.n)
    rest_right_PM, least_right_PMN = _without_each(right_PMN, pattern.n)
    now_P = _top_total(left_PMN, pattern.n) + _top_total(right_PMN, pattern.n)
    kept = [now_P[:, None]]
    for i in range(pattern.m):
        one = slice(i, i + 1)
        joined_PM = torch.maximum(least_left_PMN[:, one], right_PMN).sum(2)
        joined_PM += torch.maximum(least_right_PMN, left_PMN[:, one]).sum(2)
        kept.append(rest_left_PM[:, one] + rest_right_PM + joined_PM)
    return torch.cat(kept, 1)


def _top_total(stripe_PMN: Tensor, n: int) -> Tensor:
    """Score ``[P]`` that the stripe of each pair keeps, summed over rows."""
    return stripe_PMN.topk(n, 1).values.sum((1, 2))


def _without_each(stripe_PMN: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Per column i of a stripe: sum of the n - 1 largest others, and the n-th of each row."""
    top_PUN = stripe_PMN.topk(n + 1, 1).values
    nth_P1N, next_P1N = top_PUN[:, n - 1 : n], top_PUN[:, n:]
    rest_PMN = top_PUN[:, :n].sum(1, keepdim=True) - torch.maximum(stripe_PMN, nth_P1N)
    least_PMN = torch.where(stripe_PMN >= nth_P1N, next_P1N, nth_P1N)
    return rest_PMN.sum(2), least_PMN


def _exchanged(best_P: Tensor, m: int) -> Tensor:
    """The source ``[P, 2m]`` of each of a pair's columns after exchange number ``best_P``."""
    source_PC = torch.arange(2 * m).repeat(len(best_P), 1)
    moved_P = best_P.nonzero().flatten()
    left_P, right_P = (best_P[moved_P] - 1) // m, (best_P[moved_P] - 1) % m + m
    source_PC[moved_P, left_P], source_PC[moved_P, right_P] = right_P, left_P
    return source_PC


def _kept_by_deal(score_PCN: Tensor, deals_TC: Tensor, pattern: NM) -> Tensor:
    """Score ``[P, T]`` that the pairs keep with each division."""
    column_CPN = score_PCN.transpose(0, 1).contiguous().unbind()
    kept = []
    for deal in deals_TC.tolist():
        columns = [column_CPN[c] for c in deal]
        left_PN = top_sum(columns[: pattern.m], pattern.n)
        kept.append((left_PN + top_sum(columns[pattern.m :], pattern.n)).sum(1))
    return torch.stack(kept, 1)


def top_sum(columns: Sequence[Tensor], n: int) -> Tensor:
    """Sum of the ``n`` largest of the columns, element by element.

    Each round moves the largest remaining value to the front. These are few operations on long
    vectors; sorting very many very short rows would cost a call for each.
    """
    left, total = list(columns), torch.zeros_like(columns[0])
    for round_ in range(n):
        highest, lower = left[0], []
        for column in left[1:]:
            if round_ < n - 1:
                lower.append(torch.minimum(highest, column))
            highest = torch.maximum(highest, column)
        total, left = total + highest, lower
    return total
