"""Bytes through L2 of a layer's products, against a count by hand and a count of loads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.kernels.stationary import StationaryTile
from spd_deploy.kernels.tiles import ProblemSize, Tile
from spd_deploy.kernels.traffic import least_bytes, stationary_bytes, streamed_bytes

# BERT-base at 90 %: outputs, kept inputs in multiples of 16, and whether a residual is added.
LAYER = ((2304, 80, False), (768, 80, True), (3072, 80, False), (768, 320, True))


def problem_of(outputs: int, inputs: int, height: int, tokens: int = 4096) -> ProblemSize:
    return ProblemSize(
        groups=outputs // height, rows=height, inputs=inputs, tokens=tokens, dtype="fp16"
    )


@pytest.mark.parametrize(
    ("height", "tokens", "megabytes"), [(64, 128, 211), (64, 256, 187), (128, 256, 140)]
)
def test_a_layer_moves_what_was_counted_by_hand(height: int, tokens: int, megabytes: float) -> None:
    """BERT-base at 32x128 and 90 %, by height of blocks and width of tiles."""
    tile = Tile(rows=height, tokens=tokens, inputs=32)

    found = sum(
        streamed_bytes(problem_of(N, J, height), tile, residual=residual)
        for N, J, residual in LAYER
    )

    assert found / 1e6 == pytest.approx(megabytes, rel=0.01)


def test_kept_weights_leave_little_more_than_must_move() -> None:
    """With weights in shared memory the same layer moves 118 MB, next to the least."""
    tile = StationaryTile(rows=128, tokens=128, splits=1)
    problems = [(problem_of(N, J, 128), residual) for N, J, residual in LAYER]

    found = sum(stationary_bytes(p, tile, residual=residual) for p, residual in problems)
    least = sum(least_bytes(p, residual=residual) for p, residual in problems)

    assert found / 1e6 == pytest.approx(118, rel=0.01)
    assert least < found < 1.02 * least


@given(
    groups=st.integers(1, 5),
    rows=st.integers(1, 200),
    steps=st.integers(1, 6),
    tokens=st.integers(1, 600),
    height=st.sampled_from([16, 64, 128]),
    width=st.sampled_from([16, 64, 256]),
    residual=st.booleans(),
)
def test_it_is_the_sum_over_programs(
    groups: int, rows: int, steps: int, tokens: int, height: int, width: int, *, residual: bool
) -> None:
    """Adding up what each program reads and writes gives the same number."""
    problem = ProblemSize(groups=groups, rows=rows, inputs=16 * steps, tokens=tokens, dtype="fp16")
    tile = Tile(rows=height, tokens=width, inputs=16)
    total = 0
    for _ in range(groups):
        for row in range(0, rows, height):
            for token in range(0, tokens, width):
                R, T = min(height, rows - row), min(width, tokens - token)
                total += 2 * (R + T) * problem.inputs + 4 * problem.inputs
                total += 2 * R * T * (2 if residual else 1)

    assert streamed_bytes(problem, tile, residual=residual) == total
    assert least_bytes(problem, residual=residual) <= total
