"""Lowerings give the weight back bit for bit, and are chosen for a reason that can be read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporters.autotune.select import choose_lowerings
from exporters.classifier_weights import read_weights
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.arithmetic.float16 import Float16
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.arithmetic.int8 import DynamicInt8, StaticInt8, TokenInt8
from exporters.onnx.graph import Graph, Target
from exporters.precision import Precision
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block, parse_pattern
from tests.tiny import tiny_checkpoint


def matrix(N: int, K: int) -> Matrix:
    return Matrix(name="m", layer=0, role="query", shape=(N, K))


def weight(N: int, K: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((N, K)).astype(np.float32)


def emitted(lowering: Lowering) -> Mapping[str, NDArray[Any]]:
    """The constants that emitting it leaves in a graph."""
    g = Graph()
    lowering.on_features(g, Float32(), "x", np.zeros(lowering.matrix.shape[0], np.float32), None)
    return g.constants


def test_dense_is_stored_as_it_is() -> None:
    """Nothing is added to or taken from a dense weight."""
    lowering = Dense.of(matrix(4, 6), weight(4, 6))

    assert np.array_equal(lowering.restored(emitted(lowering)), weight(4, 6))
    assert lowering.flops_share == 1.0


def test_compact_keeps_rows_and_columns() -> None:
    """What was kept comes back in its place, and the rest is zero."""
    rows, columns = np.array([0, 3]), np.array([1, 2, 5])
    left = Dense.of(matrix(4, 6), weight(4, 6)[np.ix_(rows, columns)])
    lowering = Compact.of(matrix(4, 6), left, rows=rows, columns=columns)

    restored = lowering.restored(emitted(lowering))

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

    assert np.array_equal(lowering.restored(emitted(lowering)), whole)
    assert lowering.values_GRJ.shape[2] == max(1, alive_GU.sum(1).max()) * columns
    assert all(len(set(index)) == len(index) for index in lowering.index_GU.tolist())


DRAWN: dict[str, Any] = {
    "target": st.sampled_from(list(Target)),
    "precision": st.sampled_from(["fp32", "fp16", "int8, dynamic", "int8, static"]),
    "groups": st.integers(1, 3),
    "rows": st.sampled_from([1, 2, 8]),
    "columns": st.sampled_from([1, 3]),
    "with_residual": st.booleans(),
    "seed": st.integers(0, 99),
}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["dense", "packed", "gathered", "compact", "compact, gathered"]),
    batch=st.integers(1, 3),
    sequence=st.integers(1, 9),
    **DRAWN,
)
def test_every_lowering_is_the_product(
    kind: str,
    target: Target,
    precision: str,
    groups: int,
    rows: int,
    columns: int,
    batch: int,
    sequence: int,
    with_residual: bool,
    seed: int,
) -> None:
    """In ONNX Runtime, for all targets and precisions: W x + b, and the residual if there is."""
    case = case_of(kind, groups=groups, block=Block(rows=rows, columns=columns), seed=seed)
    draw = np.random.default_rng(seed + 1)
    x = draw.standard_normal((batch, case.whole.shape[1], sequence), np.float32)
    residual = draw.standard_normal((batch, len(case.rows), sequence), np.float32)

    feed = {"x": x[:, case.columns]} | ({"r": residual} if with_residual else {})
    by = ARITHMETIC[precision](float(np.abs(x).max()))
    found = run(case.lowering, by, case.bias, feed, Graph(target))

    expected = np.einsum("nk,bks->bns", case.whole, x)[:, case.rows] + case.bias[case.rows, None]
    expected = expected + residual if with_residual else expected
    # Half a step of each weight is worth its input, half a step of each input its weight.
    of_rows = np.abs(case.whole).max(1, initial=0)[case.rows, None] * np.abs(x).sum(1)[:, None]
    of_columns = np.abs(case.whole).sum(1)[case.rows, None] * np.abs(x).max() * 2
    assert (np.abs(found - expected) <= STEPS[precision] * (of_rows + of_columns) + 1e-4).all()


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["dense", "packed", "compact"]),
    tokens=st.integers(1, 20),
    **DRAWN,
)
def test_every_lowering_of_tokens_is_the_product(
    kind: str,
    target: Target,
    precision: str,
    groups: int,
    rows: int,
    columns: int,
    tokens: int,
    with_residual: bool,
    seed: int,
) -> None:
    """The same law token by token, which all that is not gathered can be run by."""
    case = case_of(kind, groups=groups, block=Block(rows=rows, columns=columns), seed=seed)
    draw = np.random.default_rng(seed + 1)
    x = draw.standard_normal((tokens, case.whole.shape[1]), np.float32)
    residual = draw.standard_normal((tokens, len(case.rows)), np.float32)

    feed = {"x": x[:, case.columns]} | ({"r": residual} if with_residual else {})
    by = ARITHMETIC[precision](float(np.abs(x).max()))
    found = run(case.lowering, by, case.bias, feed, Graph(target), by_token=True)

    expected = (x @ case.whole.T + case.bias)[:, case.rows]
    expected = expected + residual if with_residual else expected
    of_rows = np.abs(case.whole).max(1, initial=0)[case.rows] * np.abs(x).sum(1)[:, None]
    of_columns = np.abs(case.whole).sum(1)[case.rows] * np.abs(x).max() * 2
    assert (np.abs(found - expected) <= STEPS[precision] * (of_rows + of_columns) + 1e-4).all()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["dense", "compact"]),
    tokens=st.integers(1, 20),
    groups=st.integers(1, 3),
    rows=st.sampled_from([1, 2, 8]),
    with_residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_range_for_each_token_rounds_each_by_its_own_size(
    kind: str, tokens: int, groups: int, rows: int, with_residual: bool, seed: int
) -> None:
    """A token with values 1,000 times larger, or with none but zeros, changes no other token."""
    case = case_of(kind, groups=groups, block=Block(rows=rows, columns=3), seed=seed)
    draw = np.random.default_rng(seed + 1)
    x = draw.standard_normal((tokens, case.whole.shape[1]), np.float32)
    x *= draw.choice([0.0, 1.0, 1000.0], (tokens, 1)).astype(np.float32)
    residual = draw.standard_normal((tokens, len(case.rows)), np.float32)

    feed = {"x": x[:, case.columns]} | ({"r": residual} if with_residual else {})
    found = run(case.lowering, TokenInt8(), case.bias, feed, Graph(), by_token=True)

    expected = (x @ case.whole.T + case.bias)[:, case.rows]
    expected = expected + residual if with_residual else expected
    most_T1 = np.abs(x).max(1, keepdims=True)
    of_rows = np.abs(case.whole).max(1, initial=0)[case.rows] * np.abs(x).sum(1)[:, None]
    of_columns = np.abs(case.whole).sum(1)[case.rows] * most_T1 * 2
    bound = 0.6 / 127 * (of_rows + of_columns) + 1e-4 * np.maximum(1, most_T1)
    assert (np.abs(found - expected) <= bound).all()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["dense", "packed", "gathered", "compact", "compact, gathered"]),
    groups=st.integers(1, 3),
    columns=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_scaled_inputs_scale_the_columns(kind: str, groups: int, columns: int, seed: int) -> None:
    """The stored weight is the whole one with the columns that remain multiplied."""
    case = case_of(kind, groups=groups, block=Block(rows=2, columns=columns), seed=seed)
    factor = np.exp2(np.random.default_rng(seed).integers(-4, 5, len(case.columns)))

    scaled = case.lowering.with_inputs_scaled(factor.astype(np.float32))

    whole = np.ones(case.whole.shape[1])
    whole[case.columns] = factor
    assert np.array_equal(scaled.restored(emitted(scaled)), case.whole * whole)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A drawn weight with its lowering, and the rows and columns that are left of it."""

    whole: Array
    bias: Array
    lowering: Lowering
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


def case_of(kind: str, *, groups: int, block: Block, seed: int) -> Case:
    """A weight that half of the blocks are left of, in one lowering."""
    draw = np.random.default_rng(seed)
    N, K = groups * block.rows, 5 * block.columns
    alive = draw.random((groups, 5)) < 0.5
    whole = weight(N, K, seed) * alive.repeat(block.rows, 0).repeat(block.columns, 1)
    if kind == "packed":
        whole *= draw.random((N, K)) < 0.2
    rows, columns = np.arange(N), np.arange(K)
    if kind.startswith("compact"):
        assume(groups > 1)  # or nothing would be left
        rows, columns = np.arange(block.rows, N), np.arange(block.columns, K)
        whole[: block.rows], whole[:, : block.columns] = 0, 0
    part = whole[np.ix_(rows, columns)]
    inner = (
        Gathered.of(matrix(N, K), part, block)
        if kind.endswith("gathered")
        else Dense.of(matrix(N, K), part)
    )
    lowering: Lowering = inner
    if kind.startswith("compact"):
        lowering = Compact.of(matrix(N, K), inner, rows=rows, columns=columns)
    assert np.array_equal(lowering.restored(emitted(lowering)), whole)
    bias = weight(N, 1, seed)[:, 0]
    return Case(whole=whole, bias=bias, lowering=lowering, rows=rows, columns=columns)


STEPS = {"fp32": 0.0, "fp16": 2**-11, "int8, dynamic": 0.6 / 127, "int8, static": 0.6 / 127}
ARITHMETIC: dict[str, Callable[[float], Arithmetic]] = {
    "fp32": lambda _: Float32(),
    "fp16": lambda _: Float16(),
    "int8, dynamic": lambda _: DynamicInt8(),
    "int8, static": lambda most: StaticInt8(ranges={"m": most}),
}


def run(
    lowering: Lowering,
    by: Arithmetic,
    bias: Array,
    feed: dict[str, Array],
    g: Graph,
    *,
    by_token: bool = False,
) -> Array:
    """What the lowering alone gives in ONNX Runtime."""
    emit = lowering.on_tokens if by_token else lowering.on_features
    g.output(emit(g, by, "x", bias, "r" if "r" in feed else None), "y")
    described = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in feed.items()
    }
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * feed["x"].ndim)
    model = g.model(list(described.values()), [y], producer="tests")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feed)[0], np.float32)


@pytest.mark.parametrize(
    ("spelled", "sparsity", "expected", "fact"),
    [
        (None, None, "dense", "is not sparse"),
        ("unstructured", 0.9, "dense", "no kernel that skips"),
        ("2:4", None, "dense", "tensor cores"),
        ("block:32x1", 0.75, "gathered", "cost model estimates"),
        ("block:2x1", 0.5, "dense", "copying the kept inputs"),
        ("structured", 0.5, "compact", "are left"),
    ],
)
def test_every_matrix_has_a_lowering_and_a_reason(
    tmp_path: Path, spelled: str | None, sparsity: float | None, expected: str, fact: str
) -> None:
    """Each pattern is lowered as documented, and says why; a loss is not taken."""
    pattern = None if spelled is None else parse_pattern(spelled, sparsity)
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=pattern)

    found = choose_lowerings(checkpoint, read_weights(checkpoint))

    assert set(found) == {m.name for m in checkpoint.encoder.matrices()}
    for choice in found.values():
        assert choice.lowering.name == expected
        assert fact in choice.reason


def test_sparser_blocks_are_estimated_to_gain_more() -> None:
    """The cost model's gain grows with sparsity and rows of a block, and is less in int8."""

    def gain(rows: int, sparsity: float, precision: Precision = Precision.FP32) -> float:
        block = Block(rows=rows, columns=1, sparsity=sparsity)
        dense = torch.from_numpy(weight(64, 64))
        mask = block.mask(dense.abs(), sparsity)
        gathered = Gathered.of(matrix(64, 64), (dense * mask).numpy(), block)
        ungathered = Dense.of(matrix(64, 64), dense.numpy())
        return ungathered.cost.seconds(precision) / gathered.cost.seconds(precision)

    assert gain(64, 0.9) > gain(64, 0.75) > gain(64, 0.5)
    assert gain(64, 0.75) > gain(32, 0.75) > gain(8, 0.75)
    assert gain(64, 0.75) > gain(64, 0.75, Precision.INT8) > gain(8, 0.75, Precision.INT8)
