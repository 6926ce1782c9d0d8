"""Searches for orders against brute force, planted optima and the order that was there."""

import itertools

import pytest
import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.bert import BERT_LAYER
from spd_deploy.domain.patterns import (
    NM,
    PATTERN_EXAMPLES,
    Block,
    Pattern,
    Structured,
    Unstructured,
    parse_pattern,
)
from spd_train.pruning.permutation.axes import axes_of
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.grouping import Section, group_order
from spd_train.pruning.permutation.pairing import random_pairs
from spd_train.pruning.permutation.permutations import Permutations
from spd_train.pruning.permutation.search import (
    depends_on_order,
    find_permutations,
    kept_score,
    misfit,
)
from spd_train.pruning.permutation.stripes import deals, kept_by_exchange, stripe_order, top_sum

BUDGET = SearchBudget(stripe_sweeps=30, patience=5, group_rounds=40)
ENCODER = Encoder(
    prefix="bert.encoder.layer",
    naming=BERT_LAYER,
    layers=2,
    hidden=32,
    heads=4,
    intermediate=64,
    vocabulary=9,
    positions=9,
)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def heavy_tailed(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Scores as squared weights have them: a few large, and columns that differ."""
    generator = draw(seed)
    scale_K = torch.rand(columns, generator=generator)
    return torch.randn(rows, columns, generator=generator).square() * scale_K


def scores_of(encoder: Encoder) -> dict[str, Tensor]:
    return {m.name: heavy_tailed(*m.shape, seed=i) for i, m in enumerate(encoder.matrices())}


def goals_of(encoder: Encoder, pattern: Pattern) -> dict[str, Pattern]:
    return {m.name: encoder.pattern_on(m, pattern) for m in encoder.matrices()}


def search(pattern: Pattern, budget: SearchBudget = BUDGET) -> Permutations:
    return find_permutations(
        axes_of(ENCODER), ENCODER, goals_of(ENCODER, pattern), scores_of(ENCODER), budget=budget
    )


@pytest.mark.parametrize("spelled", PATTERN_EXAMPLES)
def test_an_order_matters_where_it_changes_the_score_that_is_kept(spelled: str) -> None:
    """Another order of rows and columns keeps the same score under the other patterns."""
    pattern, score_NK = parse_pattern(spelled), heavy_tailed(128, 64).double()
    other_NK = score_NK[torch.randperm(128, generator=draw())][
        :, torch.randperm(64, generator=draw())
    ]

    same = kept_score(score_NK, pattern) == pytest.approx(kept_score(other_NK, pattern))

    assert same is not depends_on_order(pattern)


def striped(score_NK: Tensor, pattern: NM, *, segment: int | None = None) -> Tensor:
    return stripe_order(
        score_NK, pattern, segment=segment or score_NK.shape[1], budget=BUDGET, generator=draw()
    )


def grouped(score_NK: Tensor, pattern: Block, *, segment: int | None = None) -> Tensor:
    return group_order(
        [Section.of(score_NK, pattern, unit=1)],
        size=pattern.rows,
        segment=segment or len(score_NK),
        budget=SearchBudget(),
        generator=draw(),
    )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_two_stripes_are_dealt_out_in_the_best_way(n: int, seed: int) -> None:
    """On 8 columns the order found keeps as much as the best of all their permutations."""
    score_NK, pattern = heavy_tailed(6, 8, seed), NM(n=n, m=4)

    order_K = striped(score_NK, pattern)

    stripes = list(itertools.combinations(range(8), 4))
    best = max(
        kept_score(score_NK[:, [*left, *(set(range(8)) - set(left))]], pattern) for left in stripes
    )
    assert kept_score(score_NK[:, order_K], pattern) == pytest.approx(best)


def test_planted_stripes_are_found() -> None:
    """Where some order keeps everything, it is found again from a shuffled start."""
    pattern = NM(n=2, m=4)
    score_NK = heavy_tailed(64, 32) + 0.1
    full_NK = score_NK * pattern.mask(score_NK, 0.5)
    shuffled_NK = full_NK[:, torch.randperm(32, generator=draw())]

    order_K = stripe_order(
        shuffled_NK, pattern, segment=32, budget=SearchBudget(patience=40), generator=draw()
    )

    assert kept_score(shuffled_NK[:, order_K], pattern) == pytest.approx(float(full_NK.sum()))


@pytest.mark.parametrize("pattern", [NM(n=2, m=4), NM(n=4, m=8), NM(n=1, m=2)], ids=str)
@pytest.mark.parametrize("segment", [16, 48])
def test_an_order_of_columns_stays_in_its_segments_and_keeps_more(
    pattern: NM, segment: int
) -> None:
    """Each column stays in its segment, each comes once, and more is kept than before."""
    score_NK = heavy_tailed(20, 48)

    order_K = striped(score_NK, pattern, segment=segment)

    assert torch.equal(order_K.sort().values, torch.arange(48))
    assert torch.equal(order_K // segment, torch.arange(48) // segment)
    assert kept_score(score_NK[:, order_K], pattern) > kept_score(score_NK, pattern)


@pytest.mark.parametrize(("m", "count"), [(2, 3), (3, 10), (4, 35)])
def test_every_deal_is_a_different_one(m: int, count: int) -> None:
    """The first deal changes nothing, and no two give the same stripes, whichever comes first."""
    dealt = deals(m).tolist()

    stripes = {frozenset((frozenset(d[:m]), frozenset(d[m:]))) for d in dealt}
    assert dealt[0] == list(range(2 * m))
    assert len(stripes) == len(dealt) == count
    assert all(sorted(d) == list(range(2 * m)) for d in dealt)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (4, 8), (7, 8)])
def test_every_exchange_is_worth_what_the_mask_says(n: int, m: int) -> None:
    """The score foretold of each exchange of two columns is what the pattern's mask then keeps."""
    pattern = NM(n=n, m=m)
    score_CN = heavy_tailed(2 * m, 6).round(decimals=1)  # rounded, so that there are ties

    (foretold_T,) = kept_by_exchange(score_CN[None], pattern)

    orders = [list(range(2 * m))]
    for i, j in itertools.product(range(m), range(m, 2 * m)):
        orders.append([{i: j, j: i}.get(c, c) for c in range(2 * m)])
    kept = [kept_score(score_CN[order].T, pattern) for order in orders]
    assert foretold_T.tolist() == pytest.approx(kept)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_largest_are_summed(n: int) -> None:
    """The sum of the n largest of some columns is what sorting them gives."""
    column_CN = heavy_tailed(5, 30)

    total_N = top_sum(column_CN.unbind(), n)

    assert torch.allclose(total_N, column_CN.sort(0).values[-n:].sum(0))


@pytest.mark.parametrize("rows", [4, 8, 16])
@pytest.mark.parametrize("columns", [1, 2])
def test_planted_groups_are_found(rows: int, columns: int) -> None:
    """Rows that read the same few inputs are brought together from a shuffled start."""
    pattern = Block(rows=rows, columns=columns, sparsity=0.75)
    planted_NK = pattern.mask(heavy_tailed(48, 64), 0.75) * (heavy_tailed(48, 64, 1) + 0.1)
    shuffled_NK = planted_NK[torch.randperm(48, generator=draw())]

    order_N = grouped(shuffled_NK, pattern)

    assert kept_score(shuffled_NK[order_N], pattern) == pytest.approx(float(planted_NK.sum()))


@pytest.mark.parametrize("segment", [12, 48])
def test_an_order_of_rows_stays_in_its_segments_and_keeps_more(segment: int) -> None:
    """Each row stays in its segment, each comes once, and more is kept than before."""
    score_NK, pattern = heavy_tailed(48, 40), Block(rows=4, columns=1, sparsity=0.75)

    order_N = grouped(score_NK, pattern, segment=segment)

    assert torch.equal(order_N.sort().values, torch.arange(48))
    assert torch.equal(order_N // segment, torch.arange(48) // segment)
    assert kept_score(score_NK[order_N], pattern) > kept_score(score_NK, pattern)


@pytest.mark.parametrize("per_segment", [1, 3, 4, 12])
def test_pairs_are_disjoint_and_within_a_segment(per_segment: int) -> None:
    """No group is in two pairs, and both of a pair are of one segment."""
    pair_P2 = random_pairs(12, per_segment, draw())

    assert len(pair_P2) == 12 // per_segment * (per_segment // 2)
    assert len(set(pair_P2.flatten().tolist())) == pair_P2.numel()
    assert torch.equal(pair_P2[:, 0] // per_segment, pair_P2[:, 1] // per_segment)


@pytest.mark.parametrize(
    "pattern",
    [
        NM(n=2, m=4),
        NM(n=4, m=8),
        Block(rows=4, columns=1, sparsity=0.75),
        Block(rows=16, columns=1, sparsity=0.75),
        Block(rows=4, columns=4, sparsity=0.5),
    ],
    ids=str,
)
def test_a_network_keeps_more_than_in_the_old_order(pattern: Pattern) -> None:
    """The report's shares are those of the pattern's own masks, and the later one is larger."""
    scores, targets = scores_of(ENCODER), goals_of(ENCODER, pattern)

    found = search(pattern)

    total = sum(float(score.sum()) for score in scores.values())
    after = found.arranged(scores)
    for share, arrays in ((found.total.before, scores), (found.total.after, after)):
        kept = sum(kept_score(arrays[name], target) for name, target in targets.items())
        assert share == pytest.approx(kept / total)
    assert found.total.after > found.total.before


def test_blocks_and_stripes_share_the_neurons() -> None:
    """Blocks of intermediate rows with stripes of the columns that read them: both keep more."""
    of_role: dict[str, Pattern] = {
        "intermediate": Block(rows=16, columns=1, sparsity=0.75),
        "output": NM(n=2, m=4),
    }
    targets = {m.name: of_role[m.role] for m in ENCODER.matrices() if m.role in of_role}

    found = find_permutations(axes_of(ENCODER), ENCODER, targets, scores_of(ENCODER), budget=BUDGET)

    assert set(found.kept) == {"intermediate", "output"}
    assert all(kept.after > kept.before for kept in found.kept.values())


@pytest.mark.parametrize("pattern", [Unstructured(sparsity=0.5), Structured()], ids=str)
def test_patterns_without_neighbours_move_nothing(pattern: Pattern) -> None:
    """What looks at single weights or whole slices gains nothing from another order."""
    found = search(pattern)

    assert found.moves == ()
    assert found.kept == {}


@pytest.mark.parametrize("pattern", [NM(n=2, m=4), Block(rows=4, columns=1)], ids=str)
def test_the_same_seed_finds_the_same_orders(pattern: Pattern) -> None:
    """Two searches agree order by order; another seed finds others."""
    once, again = search(pattern), search(pattern)
    other = search(pattern, SearchBudget(stripe_sweeps=30, patience=5, group_rounds=40, seed=1))

    def orders(found: Permutations) -> list[list[int]]:
        return [move.order_X.tolist() for move in found.moves]

    assert orders(once) == orders(again)
    assert orders(once) != orders(other)


def test_heads_that_stripes_do_not_divide_are_named() -> None:
    """Where a head is no whole number of stripes its order is left alone, with the reason."""
    values = next(axis for axis in axes_of(ENCODER) if axis.name == "layer 0 values")
    (reader,) = values.columns

    assert misfit(values, {reader: NM(n=2, m=4)}) is None
    assert misfit(values, {reader: NM(n=4, m=16)}) == "16 does not divide the 8 inputs of a head"
