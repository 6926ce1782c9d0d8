"""A model of one product alone, to time it as it runs in a whole network.

In ONNX Runtime its batch is split as a network's batch is (``sessions.row_parallel``): a batch with
enough rows runs in chunks, each on one thread; a smaller one runs whole, on all threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.lowering import Lowering
from exporters.onnx.graph import Graph, Target
from exporters.precision import Precision, arithmetic_for
from spd_deploy.domain.runtime_choice import CpuRuntime, traits_of
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.sessions.row_parallel import chunks_of
from spd_deploy.timing.interleaved import Run

INPUT, OUTPUT = "x", "y"
# The int8 range in models that are only timed: times do not depend on it.
ASSUMED_RANGE = 4.0


def target_of(runtime: CpuRuntime) -> Target:
    """The operators of the graph that a runtime reads."""
    return Target.PORTABLE if traits_of(runtime).portable else Target.ONNXRUNTIME


def product_model(
    lowering: Lowering,
    precision: Precision = Precision.FP32,
    target: Target = Target.ONNXRUNTIME,
) -> Any:
    """The ``ModelProto`` of a product with its bias; batch and sequence are dynamic.

    The layout is that of its network: ``[T, K]`` to ``[T, N]``, and ``[B, K, S]`` to ``[B, N, S]``
    where it is gathered. Input and output are fp32 in all precisions, as in a network. In int8 the
    model quantises its input.
    """
    from onnx import TensorProto, helper

    g = Graph(target)
    bias_N = np.linspace(-1, 1, lowering.matrix.shape[0], dtype=np.float32)
    emit = lowering.on_features if lowering.feature_major else lowering.on_tokens
    arithmetic = arithmetic_for(precision, target, ranges={lowering.matrix.name: ASSUMED_RANGE})
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
    runtime: CpuRuntime = "onnxruntime",
    shape_at: Callable[[Shape], Shape] = lambda shape: shape,
) -> Iterator[Run]:
    """A function that runs the product once at a shape of its network, with ``threads`` threads.

    ``shape_at`` gives the product's own shape for a shape of the network.

    Raises:
        Unavailable: the runtime is missing or lacks this precision, or ONNX Runtime is there twice.
    """
    inputs = _Inputs(lowering, shape_at)
    model = product_model(lowering, precision, target_of(runtime)).SerializeToString()
    opened: list[_Product] = []
    match runtime:
        case "onnxruntime":
            opened.append(_InOnnxRuntime(model, threads, inputs))
        case "openvino":
            opened.append(_InOpenVino(model, precision, threads, inputs))
        case never:
            assert_never(never)
    try:
        yield lambda shape: opened[0].run(shape)
    finally:
        opened.pop().close()  # the caller may keep the function; the threads must end


class _Product(Protocol):
    """A product in a runtime."""

    def run(self, shape: Shape) -> object:
        """Run once at a network's shape. The first run at a shape makes and keeps its inputs."""
        ...

    def close(self) -> None:
        """End the threads and free the sessions."""
        ...


class _Inputs:
    """Random inputs of a product, made once for each shape of the network."""

    def __init__(self, lowering: Lowering, shape_at: Callable[[Shape], Shape]) -> None:
        self._lowering = lowering
        self._shape_at = shape_at
        self._inputs_by_shape: dict[tuple[Shape, int], list[NDArray[np.float32]]] = {}
        self._generator = np.random.default_rng(0)

    def at(self, shape: Shape, threads: int = 1) -> list[NDArray[np.float32]]:
        """The input of each chunk of a batch that is split for ``threads`` threads."""
        if (shape, threads) not in self._inputs_by_shape:
            mask_BS = np.ones((shape.batch, shape.seq), np.int64)
            chunks = chunks_of(mask_BS, threads)
            self._inputs_by_shape[shape, threads] = [
                self._random_input(Shape(batch=len(rows), seq=shape.seq)) for rows in chunks
            ]
        return self._inputs_by_shape[shape, threads]

    def _random_input(self, shape: Shape) -> NDArray[np.float32]:
        """A random input of the product where the network runs at ``shape``."""
        B, S = (at := self._shape_at(shape)).batch, at.seq
        K = self._lowering.inputs
        size = (B, K, S) if self._lowering.feature_major else (B * S, K)
        return self._generator.standard_normal(size, np.float32)


class _InOpenVino:
    """A product compiled by OpenVINO, which runs each batch whole."""

    def __init__(self, model: bytes, precision: Precision, threads: int, inputs: _Inputs) -> None:
        from spd_deploy.sessions.openvino import compiled_product

        self._request = compiled_product(model, precision.value, threads).create_infer_request()
        self._inputs = inputs

    def run(self, shape: Shape) -> object:
        """Run once on the whole batch."""
        (whole,) = self._inputs.at(shape)
        return self._request.infer([whole])

    def close(self) -> None:
        """Free the request, and with it the compiled product."""
        del self._request


class _InOnnxRuntime:
    """A product in ONNX Runtime: a session with all threads, and one with one thread for chunks."""

    def __init__(self, model: bytes, threads: int, inputs: _Inputs) -> None:
        from spd_deploy.sessions.onnxruntime import refuse_double_install

        refuse_double_install()
        self._threads = threads
        self._model = model
        self._inputs = inputs
        self._whole: Any = None
        self._single: Any = None
        self._pool = ThreadPoolExecutor(threads)

    def run(self, shape: Shape) -> object:
        """Run once, whole or in chunks."""
        inputs = self._inputs.at(shape, self._threads)
        if len(inputs) == 1:
            self._whole = self._whole or _session(self._model, self._threads)
            return self._whole.run([OUTPUT], {INPUT: inputs[0]})
        self._single = self._single or _session(self._model, 1)
        return list(self._pool.map(self._run_chunk, inputs))

    def close(self) -> None:
        """End the threads and free the sessions."""
        self._pool.shutdown()
        self._whole = self._single = None

    def _run_chunk(self, x: NDArray[np.float32]) -> object:
        """Run one chunk on the calling thread."""
        return self._single.run([OUTPUT], {INPUT: x})


def _session(model: bytes, threads: int) -> Any:
    """A session of the product, with the options that ``OnnxSession`` uses for a network."""
    from spd_deploy.sessions.onnxruntime import import_onnxruntime, options_for

    ort = import_onnxruntime()
    return ort.InferenceSession(
        model, options_for(ort, threads), providers=["CPUExecutionProvider"]
    )
