"""Lowerings give the weight back bit for bit, and are chosen for a reason that can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.lowering.choose import choose
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.weights import Array, read_weights
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block, parse_pattern
from tests.tiny import tiny_checkpoint


def matrix(N: int, K: int) -> Matrix:
    return Matrix(name="m", layer=0, role="query", shape=(N, K))


def weight(N: int, K: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((N, K)).astype(np.float32)


def test_dense_is_stored_as_it_is() -> None:
    """Nothing is added to or taken from a dense weight."""
    lowering = Dense.of(matrix(4, 6), weight(4, 6))

    assert np.array_equal(lowering.restored(lowering.stored()), weight(4, 6))
    assert lowering.flops_share == 1.0


def test_compact_keeps_rows_and_columns() -> None:
    """What was kept comes back in its place, and the rest is zero."""
    rows, columns = np.array([0, 3]), np.array([1, 2, 5])
    lowering = Compact.of(matrix(4, 6), weight(4, 6), rows=rows, columns=columns)

    restored = lowering.restored(lowering.stored())

    assert np.array_equal(restored[np.ix_(rows, columns)], weight(4, 6)[np.ix_(rows, columns)])
    assert np.count_nonzero(restored) == 6
    assert lowering.flops_share == pytest.approx(6 / 24)


@settings(max_examples=80, deadline=None)
@given(
    groups=st.integers(1, 4),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 9),
    columns=st.integers(1, 3),
    density=st.floats(0, 1),
    seed=st.integers(0, 50),
)
def test_gathered_gives_any_block_weight_back(
    groups: int, rows: int, blocks: int, columns: int, density: float, seed: int
) -> None:
    """Balanced or not, empty or full: every non-zero comes back bit for bit."""
    draw = np.random.default_rng(seed)
    alive_GU = draw.random((groups, blocks)) < density
    mask = alive_GU.repeat(rows, 0).repeat(columns, 1)
    whole = weight(groups * rows, blocks * columns, seed) * mask
    block = Block(rows=rows, columns=columns)

    lowering = Gathered.of(matrix(*whole.shape), whole, block)

    assert np.array_equal(lowering.restored(lowering.stored()), whole)
    assert lowering.values_GRJ.shape[2] == max(1, alive_GU.sum(1).max()) * columns
    assert all(len(set(index)) == len(index) for index in lowering.index_GU.tolist())


def test_gathered_is_the_product() -> None:
    """Reading the kept inputs and multiplying group by group is the matrix product."""
    block = Block(rows=8, columns=1, sparsity=0.75)
    dense = torch.from_numpy(weight(32, 16))
    whole = (dense * block.mask(dense.abs(), 0.75)).numpy()
    x_KT = weight(16, 5, seed=1)
    lowering = Gathered.of(matrix(32, 16), whole, block)

    y_GRT = lowering.values_GRJ @ x_KT[lowering.index_GU]

    np.testing.assert_allclose(y_GRT.reshape(32, 5), whole @ x_KT, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spelled", "sparsity", "expected", "said"),
    [
        (None, None, "dense", "dense weights"),
        ("unstructured", 0.9, "dense", "does not skip"),
        ("2:4", None, "dense", "tensor cores"),
        ("block:32x1", 0.75, "gathered", "cost model promises"),
        ("block:2x1", 0.5, "dense", "gathered would be"),
        ("structured", 0.5, "compact", "are left"),
    ],
)
def test_every_matrix_has_a_lowering_and_a_reason(
    tmp_path: Path, spelled: str | None, sparsity: float | None, expected: str, said: str
) -> None:
    """Each pattern is lowered as documented, and says why; a loss is not taken."""
    pattern = None if spelled is None else parse_pattern(spelled, sparsity)
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=pattern)

    found = choose(checkpoint, read_weights(checkpoint))

    assert set(found) == {m.name for m in checkpoint.encoder.matrices()}
    for choice in found.values():
        assert choice.lowering.name == expected
        assert said in choice.reason


def test_sparser_blocks_promise_more() -> None:
    """The cost model's gain grows with sparsity and with the rows of a block."""

    def gain(rows: int, sparsity: float) -> float:
        block = Block(rows=rows, columns=1, sparsity=sparsity)
        dense = torch.from_numpy(weight(64, 64))
        mask = block.mask(dense.abs(), sparsity)
        return Gathered.of(matrix(64, 64), (dense * mask).numpy(), block).expected_gain

    assert gain(64, 0.9) > gain(64, 0.75) > gain(64, 0.5)
    assert gain(64, 0.75) > gain(32, 0.75) > gain(8, 0.75)
