"""One product alone: it computes what it stands for, and runs as its network would run it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from exporters.autotune.product_model import INPUT, OUTPUT, opened_product, product_model
from exporters.autotune.tuning import TimedProduct
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.lowering.candidates import Candidates, candidates_of
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.patterns import Block, Structured
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from tests.tiny import tiny_checkpoint

SHAPES = (Shape(batch=1, seq=8), Shape(batch=2, seq=16))


def rounded(values: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """What ``DynamicQuantizeLinear`` makes of an input in int8, and the input itself in fp32."""
    if precision is Precision.FP32:
        return values
    low, high = min(values.min(), np.float32(0)), max(values.max(), np.float32(0))
    step = (high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / step), 0, 255)
    steps = np.clip(np.rint(values / step) + zero, 0, 255) - zero
    return np.asarray(steps * step, np.float32)


def stored(weight_NK: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """A weight as it is stored: in int8 steps of a 127th of its row's largest."""
    if precision is Precision.FP32:
        return weight_NK
    most_N1 = np.abs(weight_NK).max(1, keepdims=True)
    step_N1 = np.where(most_N1 > 0, most_N1, 127) / 127
    return np.asarray(np.rint(weight_NK / step_N1) * step_N1, np.float32)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
@pytest.mark.parametrize("pattern", [Block(rows=16, columns=1), Structured()], ids=str)
def test_a_product_alone_is_the_product(
    tmp_path: Path, pattern: Block | Structured, precision: Precision
) -> None:
    """The timed graph computes W x + b in each lowering, on what remains, and as rounded."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=pattern)
    weights = read_weights(checkpoint)
    for name, candidates in candidates_of(checkpoint, weights).items():
        whole_NK, N = weights.weight(name), candidates.matrix.shape[0]
        bias_N = np.linspace(-1, 1, N, dtype=np.float32)
        for lowering in candidates.lowerings.values():
            rows = getattr(lowering, "rows", np.arange(N))
            columns = getattr(lowering, "columns", np.arange(candidates.matrix.shape[1]))
            x_TK = np.random.default_rng(0).standard_normal((6, lowering.inputs), np.float32)
            feed = x_TK.reshape(2, 3, -1).transpose(0, 2, 1) if lowering.feature_major else x_TK

            model = product_model(lowering, precision)
            session = onnxruntime.InferenceSession(model.SerializeToString())
            (found,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(feed)})

            if lowering.feature_major:
                found = np.asarray(found).transpose(0, 2, 1).reshape(6, -1)
            left_NK = stored(whole_NK[np.ix_(rows, columns)], precision)
            expected = rounded(x_TK, precision) @ left_NK.T + bias_N[rows]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lowering_name", ["dense", "gathered"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("shape", "chunks"), [((1, 64), 1), ((3, 64), 1), ((16, 64), 4)])
def test_a_product_is_shared_out_as_its_network_is(
    blocks: tuple[Checkpoint, ClassifierWeights],
    lowering_name: LoweringName,
    first: bool,
    shape: tuple[int, int],
    chunks: int,
) -> None:
    """Of a batch of rows enough each chunk is a product, of all its tokens or its first ones."""
    checkpoint, weights = blocks
    role = "attention.output.dense" if first else "attention.self.key"
    candidates = candidates_of(checkpoint, weights)[f"bert.encoder.layer.2.{role}"]
    lowering, product = candidates.lowerings[lowering_name], TimedProduct.of(candidates, last=2)
    assert product.first == first
    B, S = shape

    with opened_product(lowering, threads=2, shape_at=product.shape_at) as run:
        found: Any = run(Shape(batch=B, seq=S))

    parts = found if chunks > 1 else [found]
    rows, tokens = B // chunks, 1 if first else S
    N = lowering.outputs
    in_features = (1, N, rows) if first else (rows, N, tokens)
    expected = in_features if lowering.feature_major else (rows * tokens, N)
    assert [part[0].shape for part in parts] == [expected] * chunks


@pytest.mark.parametrize("lowering_name", ["dense", "gathered"])
def test_both_runtimes_time_the_same_product(
    blocks: tuple[Checkpoint, ClassifierWeights], lowering_name: LoweringName
) -> None:
    """What is drawn for one shape is the same, and so is what comes out."""
    lowering = next(iter(candidates_of(*blocks).values())).lowerings[lowering_name]

    def answer(runtime: CpuRuntime) -> NDArray[np.float32]:
        with opened_product(lowering, threads=1, runtime=runtime) as run:
            answers: Any = run(SHAPES[1])
            return np.array(answers[0])

    np.testing.assert_allclose(answer("onnxruntime"), answer("openvino"), rtol=1e-4, atol=1e-4)


def test_a_closed_product_holds_no_session(
    blocks: tuple[Checkpoint, ClassifierWeights],
) -> None:
    """What ran it cannot run it any more, so no threads stay beside the next."""
    candidates: Candidates = next(iter(candidates_of(*blocks).values()))
    with opened_product(candidates.lowerings["gathered"], threads=1) as run:
        run(SHAPES[0])

    with pytest.raises(IndexError):
        run(SHAPES[0])
