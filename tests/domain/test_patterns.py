"""Patterns against brute force, and the laws every pattern obeys."""

import itertools
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadPattern
from spd_deploy.domain.patterns import (
    NM,
    PATTERN_EXAMPLES,
    Block,
    Pattern,
    Structured,
    Unstructured,
    at_sparsity,
    parse_pattern,
)

ORACLE_PATTERNS: list[Pattern] = [
    Unstructured(sparsity=0.9),
    NM(n=2, m=4),
    NM(n=1, m=4),
    NM(n=4, m=8),
    Block(rows=4, columns=1, sparsity=0.75),
    Block(rows=2, columns=4, sparsity=0.5),
    Structured(sparsity=0.5, axis=0, width=4),
    Structured(sparsity=0.25, axis=1, width=2),
]
every_pattern = pytest.mark.parametrize("pattern", ORACLE_PATTERNS, ids=repr)


def scores(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def choices(pattern: Pattern, shape: tuple[int, int]) -> list[torch.Tensor]:
    """Every mask of the pattern on a tiny matrix, by brute force."""
    N, K = shape
    match pattern:
        case Unstructured():
            return _subsets(
                torch.arange(N * K).reshape(N, K), round(N * K * (1 - pattern.sparsity))
            )
        case NM(n=n, m=m):
            group = torch.arange(N * K).reshape(N, K) // m
            return _products([(group == g) for g in range(N * K // m)], n)
        case Block(rows=rows, columns=columns):
            kept = round(K // columns * (1 - pattern.sparsity))
            row = torch.arange(N)[:, None] // rows
            column = torch.arange(K)[None, :] // columns
            block = row * (K // columns) + column
            groups = [
                [block == g * (K // columns) + b for b in range(K // columns)]
                for g in range(N // rows)
            ]
            per_group = [
                [torch.stack(c).any(0) for c in itertools.combinations(group, kept)]
                for group in groups
            ]
            return [torch.stack(c).any(0) for c in itertools.product(*per_group)]
        case Structured(axis=axis, width=width):
            lines = torch.arange(shape[axis]) // width
            unit = lines[:, None].expand(N, K) if axis == 0 else lines[None, :].expand(N, K)
            return _subsets(unit, round(shape[axis] // width * (1 - pattern.sparsity)))


def _subsets(unit_NK: torch.Tensor, kept: int) -> list[torch.Tensor]:
    units = sorted(set(unit_NK.flatten().tolist()))
    return [torch.isin(unit_NK, torch.tensor(c)) for c in itertools.combinations(units, kept)]


def _products(groups: list[torch.Tensor], n: int) -> list[torch.Tensor]:
    masks = [torch.zeros_like(groups[0])]
    for group in groups:
        places = group.nonzero().tolist()
        grown = []
        for mask in masks:
            for chosen in itertools.combinations(places, n):
                new = mask.clone()
                for i, j in chosen:
                    new[i, j] = True
                grown.append(new)
        masks = grown
    return masks


@every_pattern
def test_weights_are_zero_together_in_the_blocks_of_the_pattern(pattern: Pattern) -> None:
    """Each tile of ``block_shape`` is kept or dropped as a whole, and no larger one is."""
    rows, columns = pattern.block_shape
    mask_NK = pattern.mask(scores(64, 64), pattern.sparsity)

    def uniform(rows: int, columns: int) -> bool:
        tiles = mask_NK.unfold(0, rows, rows).unfold(1, columns, columns)
        return bool((tiles == tiles[..., :1, :1]).all())

    assert uniform(rows, columns)
    of_rows = isinstance(pattern, Structured) and pattern.axis == 0
    assert not uniform(*((2 * rows, columns) if of_rows else (rows, 2 * columns)))


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        (Unstructured(sparsity=0.75), (2, 6)),
        (NM(n=2, m=4), (2, 8)),
        (NM(n=1, m=3), (2, 6)),
        (Block(rows=2, columns=1, sparsity=0.5), (4, 4)),
        (Block(rows=1, columns=2, sparsity=0.5), (2, 8)),
        (Structured(sparsity=0.5, axis=0, width=2), (8, 3)),
        (Structured(sparsity=0.5, axis=1, width=1), (3, 6)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_keeps_more(pattern: Pattern, shape: tuple[int, int], seed: int) -> None:
    """The mask keeps the highest total score among all masks of its pattern."""
    score_NK = scores(*shape, seed=seed)

    mask_NK = pattern.mask(score_NK, pattern.sparsity)

    best = max(float(score_NK[choice].sum()) for choice in choices(pattern, shape))
    assert float(score_NK[mask_NK].sum()) == pytest.approx(best)


@every_pattern
def test_a_masked_weight_holds_its_pattern(pattern: Pattern) -> None:
    """What the mask leaves satisfies the pattern at its density, and the whole weight does not."""
    weight_NK = scores(16, 32) + 0.1

    mask_NK = pattern.mask(weight_NK, pattern.sparsity)

    assert pattern.holds(weight_NK * mask_NK)
    assert not pattern.holds(weight_NK)
    assert float(mask_NK.float().mean()) == pytest.approx(1 - pattern.sparsity, abs=1 / 512)


@every_pattern
def test_masking_twice_is_masking_once(pattern: Pattern) -> None:
    """The mask of what a mask left is the same mask."""
    score_NK = scores(16, 32) + 0.1
    once_NK = pattern.mask(score_NK, pattern.sparsity)

    again_NK = pattern.mask(score_NK * once_NK, pattern.sparsity)

    assert torch.equal(once_NK, again_NK)


@every_pattern
def test_one_weight_too_many_breaks_the_pattern(pattern: Pattern) -> None:
    """A single weight set back where the mask has a zero is noticed."""
    score_NK = scores(16, 32) + 0.1
    mask_NK = pattern.mask(score_NK, pattern.sparsity)
    weight_NK = score_NK * mask_NK
    i, j = (~mask_NK).nonzero()[0].tolist()
    weight_NK[i, j] = 1.0

    assert not pattern.holds(weight_NK)


@every_pattern
def test_rising_sparsity_never_brings_a_weight_back(pattern: Pattern) -> None:
    """Along a rising schedule each mask lies within the one before, and the last is the goal."""
    weight_NK = scores(16, 32) + 0.1
    before_NK = torch.ones(16, 32, dtype=torch.bool)

    for share in (0.2, 0.5, 0.7, 0.9, 1.0):
        mask_NK = pattern.mask(weight_NK, pattern.sparsity * share)
        weight_NK = weight_NK * mask_NK
        assert not (mask_NK & ~before_NK).any()
        before_NK = mask_NK

    assert pattern.holds(weight_NK)


@every_pattern
def test_equal_scores_keep_the_earlier(pattern: Pattern) -> None:
    """Ties are broken by position, so the same scores always give the same mask."""
    flat_NK = torch.ones(16, 32)

    mask_NK = pattern.mask(flat_NK, pattern.sparsity)

    assert pattern.holds(flat_NK * mask_NK)
    assert bool(mask_NK[0, 0])
    assert torch.equal(mask_NK, pattern.mask(flat_NK, pattern.sparsity))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_nm_reaches_intermediate_sparsity_exactly(share: float) -> None:
    """On its way an N:M mask has just the sparsity asked for, and never too little in a group."""
    pattern = NM(n=2, m=4)

    mask_NK = pattern.mask(scores(16, 32), 0.5 * share)

    assert int((~mask_NK).sum()) == round(512 * 0.5 * share)
    assert int(mask_NK.reshape(-1, 4).sum(1).min()) >= 2


def test_every_kind_of_pattern_is_tested_here_and_has_an_example() -> None:
    """No class of pattern is left out of these tests, nor of the examples of help texts."""
    kinds = set(get_args(Pattern))

    assert {type(pattern) for pattern in ORACLE_PATTERNS} == kinds
    assert {type(parse_pattern(text)) for text in PATTERN_EXAMPLES} == kinds


@every_pattern
def test_a_fixed_sparsity_is_the_only_one(pattern: Pattern) -> None:
    """A pattern takes another sparsity unless it says that its own is fixed."""
    if pattern.fixed_sparsity:
        with pytest.raises(BadPattern):
            at_sparsity(pattern, 0.1)
    else:
        assert at_sparsity(pattern, 0.1).sparsity == 0.1


@every_pattern
def test_a_pattern_has_one_spelling(pattern: Pattern) -> None:
    """Parsing what a pattern prints gives the pattern back, but for its place in a matrix."""
    spelled = parse_pattern(str(pattern), pattern.sparsity)

    assert str(spelled) == str(pattern)
    assert spelled.sparsity == pytest.approx(pattern.sparsity)


@pytest.mark.parametrize(
    "text", ["", "4:4", "0:4", "5:4", "block:0x1", "block:64", "blocks", "2:4:8", "-2:4", "2 : 4"]
)
def test_a_pattern_that_makes_no_sense_is_refused(text: str) -> None:
    """A spelling that is none, or keeps nothing or everything, is an error with a remedy."""
    with pytest.raises(BadPattern) as caught:
        parse_pattern(text)

    assert caught.value.fix


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("text", ["unstructured", "block:4x1", "structured", "2:4"])
def test_a_sparsity_outside_its_range_is_refused(text: str, sparsity: float) -> None:
    """Sparsity lies strictly between 0 and 1, and an N:M pattern has just its own."""
    with pytest.raises(BadPattern):
        parse_pattern(text, sparsity)


@pytest.mark.parametrize("pattern", [NM(n=2, m=4), Block(rows=4, columns=3)], ids=str)
def test_dimensions_that_do_not_divide_are_refused(pattern: Pattern) -> None:
    """A matrix whose sizes the pattern does not divide is named with its sizes."""
    with pytest.raises(BadPattern, match="divide"):
        pattern.mask(scores(6, 10), pattern.sparsity)


def test_scores_that_are_not_numbers_are_refused() -> None:
    """NaN scores come of a diverged training; no mask is made from them."""
    score_NK = scores(4, 8)
    score_NK[1, 2] = float("nan")

    with pytest.raises(BadPattern, match="NaN"):
        Unstructured(sparsity=0.5).mask(score_NK, 0.5)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 4),
    rows=st.integers(1, 4),
    blocks=st.integers(1, 8),
    columns=st.integers(1, 3),
    sparsity=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_balanced_blocks_are_balanced(
    groups: int, rows: int, blocks: int, columns: int, sparsity: float, seed: int
) -> None:
    """Every group of rows keeps the same number of blocks, at least one, at any shape."""
    pattern = Block(rows=rows, columns=columns, sparsity=sparsity)

    mask_NK = pattern.mask(scores(groups * rows, blocks * columns, seed), sparsity)

    kept_G = mask_NK.reshape(groups, rows, blocks, columns).all(3).all(1).sum(1)
    assert len(set(kept_G.tolist())) == 1
    assert int(kept_G[0]) >= 1
    assert int(mask_NK.sum()) == int(kept_G.sum()) * rows * columns
