"""Tiles: what is proposed, what is taken unmeasured, and how many a product has."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadSetting
from spd_deploy.kernels.tiles import (
    Number,
    Problem,
    Tile,
    candidates,
    default_tile,
    power_above,
    rows_of_tiles,
)

problems = st.builds(
    Problem,
    groups=st.integers(1, 100),
    rows=st.integers(1, 400),
    inputs=st.integers(1, 100).map(lambda n: 16 * n),
    tokens=st.integers(1, 50_000),
    number=st.sampled_from(["fp16", "bf16", "fp32"]),
)


@given(problems)
def test_candidates_are_few_and_fit(problem: Problem) -> None:
    """The default is the first; all others fit into shared memory twice; none is named twice."""
    found = candidates(problem)

    assert found[0] == default_tile(problem)
    assert len(found) == len(set(found)) <= 25
    assert all(tile.shared_bytes(problem.number) <= 100 * 1024 for tile in found[1:])
    assert all(tile.tokens <= max(16, power_above(problem.tokens)) for tile in found)


@given(problems)
def test_no_thread_holds_more_than_64_sums(problem: Problem) -> None:
    """Registers do not spill: a tile has the warps that it needs, four or more."""
    for tile in candidates(problem):
        assert tile.rows * tile.tokens <= 128 * 32 * tile.warps
        assert tile.warps >= 4


@given(st.integers(1, 1000))
def test_a_group_is_cut_into_whole_tiles_or_padded(rows: int) -> None:
    """Tiles divide a group where one can; else the group is padded, to less than twice its rows."""
    found = rows_of_tiles(rows)

    assert all(rows % tile == 0 for tile in found) or len(found) == 1
    assert all(16 <= tile <= 128 for tile in found)
    if rows >= 16:
        assert -(-rows // found[0]) * found[0] < 2 * rows


@given(problems)
def test_tiles_cover_the_product(problem: Problem) -> None:
    """A program for each part of a group's rows and each stretch of tokens, as they are counted."""
    tile = default_tile(problem)
    parts = len(range(0, problem.rows, tile.rows))
    stretches = len(range(0, problem.tokens, tile.tokens))

    assert problem.programs(tile) == problem.groups * parts * stretches


@pytest.mark.parametrize("number", ["fp16", "bf16", "fp32"])
def test_a_class_of_shapes_shares_a_name(number: Number) -> None:
    """Tokens count to the next power of two; everything else makes another class."""
    one = Problem(groups=12, rows=64, inputs=80, tokens=3000, number=number)
    like = Problem(groups=12, rows=64, inputs=80, tokens=4096, number=number)
    others = [
        Problem(groups=12, rows=64, inputs=80, tokens=4097, number=number),
        Problem(groups=12, rows=64, inputs=96, tokens=4096, number=number),
        Problem(groups=12, rows=64, inputs=80, tokens=4096, number=number, residual=True),
        Problem(groups=12, rows=64, inputs=80, tokens=4096, number=number, activation="gelu"),
    ]

    assert one.name == like.name
    assert len({one.name, *(other.name for other in others)}) == 5


def test_few_tokens_get_small_tiles() -> None:
    """Where whole tiles would leave most of a GPU idle they are narrower."""
    many = default_tile(Problem(groups=48, rows=64, inputs=80, tokens=4096, number="fp16"))
    few = default_tile(Problem(groups=12, rows=64, inputs=80, tokens=128, number="fp16"))

    assert (many.rows, many.tokens) == (64, 128)
    assert (few.rows, few.tokens) == (64, 32)


@pytest.mark.parametrize(
    "wrong", [{"rows": 8}, {"tokens": 48}, {"inputs": 0}, {"warps": 3}, {"stages": 0}], ids=str
)
def test_a_tile_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """No side below a tensor core's least, and powers of two alone."""
    with pytest.raises(BadSetting, match="no kernel can be made for"):
        Tile(**{"rows": 64, "tokens": 64, "inputs": 32, **wrong})
