"""One product alone, as ONNX Runtime gets it in a whole network, opened to be timed.

Also shared out as a network's batch is (``sessions.chunks``): one of rows enough runs by the chunk,
each on one thread, and one of few rows whole, on all threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.graph import Graph, Target
from exporters.lowering.lowering import Lowering
from exporters.precisions import Precision, arithmetic_for
from exporters.tuning.timing import Run
from spd_deploy.domain.measured import Shape
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.sessions.chunks import chunks_of

INPUT, OUTPUT = "x", "y"


def product_model(lowering: Lowering, precision: Precision = Precision.FP32) -> Any:
    """The ``ModelProto`` of a product with its bias, batch and sequence being dynamic.

    Each is in the layout that its own network would have: ``[T, K]`` to ``[T, N]``, and
    ``[B, K, S]`` to ``[B, N, S]`` where it is gathered. Input and output are fp32 in all
    precisions, as they are in a network: in int8 the input is quantised here, once.
    """
    from onnx import TensorProto, helper

    g = Graph(Target.ONNXRUNTIME)
    bias_N = np.linspace(-1, 1, lowering.matrix.shape[0], dtype=np.float32)
    emit = lowering.on_features if lowering.feature_major else lowering.on_tokens
    arithmetic = arithmetic_for(precision, g.target, ranges={})
    g.output(emit(g, arithmetic, INPUT, bias_N, None), OUTPUT)
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
    lowering: Lowering,
    *,
    threads: int,
    precision: Precision = Precision.FP32,
    shape_at: Callable[[Shape], Shape] = lambda shape: shape,
) -> Iterator[Run]:
    """The product in sessions of its own, run as a network of so many threads would run it.

    ``shape_at`` tells what it gets of a network's shape, and of a chunk's.

    Raises:
        Unavailable: no ONNX Runtime, or two at once.
    """
    from spd_deploy.sessions.onnxruntime import refuse_double_install

    refuse_double_install()
    opened = [_Product(lowering, precision, threads, shape_at)]
    try:
        yield lambda shape: opened[0].run(shape)
    finally:
        opened.pop().close()  # the caller may keep what runs it; the sessions' threads must go


class _Product:
    """A product's sessions: the one with all threads, and the one that chunks run on."""

    def __init__(
        self,
        lowering: Lowering,
        precision: Precision,
        threads: int,
        shape_at: Callable[[Shape], Shape],
    ) -> None:
        self._lowering = lowering
        self._threads = threads
        self._shape_at = shape_at
        self._model = product_model(lowering, precision).SerializeToString()
        self._whole: Any = None
        self._single: Any = None
        self._pool = ThreadPoolExecutor(threads)
        self._inputs: dict[Shape, list[NDArray[np.float32]]] = {}
        self._draw = np.random.default_rng(0)

    def run(self, shape: Shape) -> object:
        """Once at a network's shape; what that needs is made before it is warm, and kept."""
        if shape not in self._inputs:
            self._inputs[shape] = self._drawn(shape)
        inputs = self._inputs[shape]
        if len(inputs) == 1:
            self._whole = self._whole or _session(self._model, self._threads)
            return self._whole.run([OUTPUT], {INPUT: inputs[0]})
        self._single = self._single or _session(self._model, 1)
        return list(self._pool.map(self._run_chunk, inputs))

    def close(self) -> None:
        """Let the threads and the sessions go."""
        self._pool.shutdown()
        self._whole = self._single = None

    def _run_chunk(self, x: NDArray[np.float32]) -> object:
        """One chunk, on the thread that calls."""
        return self._single.run([OUTPUT], {INPUT: x})

    def _drawn(self, shape: Shape) -> list[NDArray[np.float32]]:
        """An input for each chunk of a network's batch."""
        mask_BS = np.ones((shape.batch, shape.seq), np.int64)
        chunks = chunks_of(mask_BS, self._threads)
        return [self._input(Shape(batch=len(rows), seq=shape.seq)) for rows in chunks]

    def _input(self, shape: Shape) -> NDArray[np.float32]:
        """What the product gets where the network gets this shape."""
        B, S = (at := self._shape_at(shape)).batch, at.seq
        K = self._lowering.inputs
        size = (B, K, S) if self._lowering.feature_major else (B * S, K)
        return self._draw.standard_normal(size, np.float32)


def _session(model: bytes, threads: int) -> Any:
    """The product in ONNX Runtime, with the options that ``OnnxSession`` opens a network with."""
    from spd_deploy.sessions.onnxruntime import import_onnxruntime, options_for

    ort = import_onnxruntime()
    return ort.InferenceSession(
        model, options_for(ort, threads), providers=["CPUExecutionProvider"]
    )
