"""Tiles: what is proposed, what is taken unmeasured, and how many a product has."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadSetting
from spd_deploy.kernels.tiles import (
    TILES,
    ProblemSize,
    Tile,
    candidates,
    next_power_of_2,
    rows_of_tiles,
)

problems = st.builds(
    ProblemSize,
    groups=st.integers(1, 100),
    rows=st.integers(1, 400),
    inputs=st.integers(1, 100).map(lambda n: 16 * n),
    tokens=st.integers(1, 50_000),
    dtype=st.sampled_from(["fp16", "bf16", "fp32"]),
)


@given(problems)
def test_candidates_are_few_and_fit(problem: ProblemSize) -> None:
    """There is one at least; all fit into shared memory twice, and none is wider than its work."""
    found = candidates(problem)

    assert 1 <= len(found) == len(set(found)) <= 25
    assert set(found) <= set(TILES)
    assert all(tile.shared_bytes(problem.dtype) <= 100 * 1024 for tile in found)
    assert all(tile.tokens <= max(16, next_power_of_2(problem.tokens)) for tile in found)


@given(problems)
def test_no_thread_holds_more_than_64_sums(problem: ProblemSize) -> None:
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
def test_tiles_cover_the_product(problem: ProblemSize) -> None:
    """A program for each part of a group's rows and each stretch of tokens, as they are counted."""
    for tile in candidates(problem):
        parts = len(range(0, problem.rows, tile.rows))
        stretches = len(range(0, problem.tokens, tile.tokens))

        assert problem.programs(tile) == problem.groups * parts * stretches


def test_few_tokens_get_small_tiles() -> None:
    """Tiles that would leave most of a GPU idle are not measured."""
    many = candidates(ProblemSize(groups=48, rows=64, inputs=80, tokens=4096, dtype="fp16"))
    few = candidates(ProblemSize(groups=12, rows=64, inputs=80, tokens=128, dtype="fp16"))

    assert {tile.tokens for tile in many} == {32, 64, 128, 256}
    assert {tile.tokens for tile in few} == {32, 64}


@pytest.mark.parametrize(
    "wrong", [{"rows": 8}, {"tokens": 48}, {"inputs": 0}, {"warps": 3}, {"stages": 0}], ids=str
)
def test_a_tile_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """No side below a tensor core's least, and powers of two alone."""
    with pytest.raises(BadSetting, match="no kernel can be compiled for"):
        Tile(**{"rows": 64, "tokens": 64, "inputs": 32, **wrong})
