"""One product alone, as ONNX Runtime gets it in a whole network, opened to be timed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from exporters.arithmetic.float32 import Float32
from exporters.graph import Graph, Target
from exporters.lowering.lowering import Lowering
from exporters.tuning.timing import Run
from spd_deploy.domain.measured import Shape
from spd_deploy.domain.versions import PACKAGE

INPUT, OUTPUT = "x", "y"


def product_model(lowering: Lowering) -> Any:
    """The ``ModelProto`` of a product with its bias, batch and sequence being dynamic.

    Each is in the layout that its own network would have: ``[T, K]`` to ``[T, N]``, and
    ``[B, K, S]`` to ``[B, N, S]`` where it is gathered.
    """
    from onnx import TensorProto, helper

    g = Graph(Target.ONNXRUNTIME)
    bias_N = np.linspace(-1, 1, lowering.matrix.shape[0], dtype=np.float32)
    emit = lowering.on_features if lowering.feature_major else lowering.on_tokens
    g.output(emit(g, Float32(), INPUT, bias_N, None), OUTPUT)
    features = (lowering.inputs, lowering.outputs)
    x, y = (
        helper.make_tensor_value_info(
            name,
            TensorProto.FLOAT,
            ["batch", size, "sequence"] if lowering.feature_major else ["tokens", size],
        )
        for name, size in zip((INPUT, OUTPUT), features, strict=True)
    )
    return g.model([x], [y], producer=PACKAGE)


@contextmanager
def opened_product(
    lowering: Lowering, *, threads: int, shape_at: Callable[[Shape], Shape] = lambda shape: shape
) -> Iterator[Run]:
    """The product in a session of its own; ``shape_at`` tells what it gets of a network's shape.

    Raises:
        Unavailable: no ONNX Runtime, or two at once.
    """
    from spd_deploy.sessions.onnxruntime import import_onnxruntime, refuse_double_install

    refuse_double_install()
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    model = product_model(lowering).SerializeToString()
    open_ = [ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])]
    draw = np.random.default_rng(0)
    inputs: dict[Shape, Any] = {}

    def run(shape: Shape) -> object:
        """One product; the input of a shape is made before it is warm, and kept."""
        if shape not in inputs:
            B, S = (at := shape_at(shape)).batch, at.seq
            K = lowering.inputs
            size = (B, K, S) if lowering.feature_major else (B * S, K)
            inputs[shape] = draw.standard_normal(size, np.float32)
        return open_[0].run([OUTPUT], {INPUT: inputs[shape]})

    try:
        yield run
    finally:
        open_.clear()  # ``run`` may live on, the session's threads may not
