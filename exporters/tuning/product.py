"""One product alone, as a runtime gets it in a whole network, opened to be timed.

In ONNX Runtime it is shared out as a network's batch is (``sessions.chunks``): one of rows enough
runs by the chunk, each on one thread, and one of few rows whole, on all threads.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.graph import Graph, Target
from exporters.lowering.lowering import Lowering
from exporters.precisions import Precision, arithmetic_for
from spd_deploy.domain.measured import Shape
from spd_deploy.domain.runtimes import CpuRuntime
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.sessions.chunks import chunks_of
from spd_deploy.timing.interleaved import Run

INPUT, OUTPUT = "x", "y"
TARGETS: Mapping[CpuRuntime, Target] = {
    "onnxruntime": Target.ONNXRUNTIME,
    "openvino": Target.PORTABLE,
}
# What a calibrated range is taken for, where time is all that is asked: no time depends on it.
RANGE = 4.0


def product_model(
    lowering: Lowering,
    precision: Precision = Precision.FP32,
    target: Target = Target.ONNXRUNTIME,
) -> Any:
    """The ``ModelProto`` of a product with its bias, batch and sequence being dynamic.

    Each is in the layout that its own network would have: ``[T, K]`` to ``[T, N]``, and
    ``[B, K, S]`` to ``[B, N, S]`` where it is gathered. Input and output are fp32 in all
    precisions, as they are in a network: in int8 the input is quantised here, once.
    """
    from onnx import TensorProto, helper

    g = Graph(target)
    bias_N = np.linspace(-1, 1, lowering.matrix.shape[0], dtype=np.float32)
    emit = lowering.on_features if lowering.feature_major else lowering.on_tokens
    arithmetic = arithmetic_for(precision, target, ranges={lowering.matrix.name: RANGE})
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
    """The product in sessions of its own, run as a network of so many threads would run it.

    ``shape_at`` tells what it gets of a network's shape, and of a chunk's.

    Raises:
        Unavailable: no such runtime, not in this precision, or ONNX Runtime twice.
    """
    inputs = _Inputs(lowering, shape_at)
    model = product_model(lowering, precision, TARGETS[runtime]).SerializeToString()
    opened: list[_Product] = []
    if runtime == "openvino":
        opened.append(_InOpenVino(model, precision, threads, inputs))
    else:
        opened.append(_InOnnxRuntime(model, threads, inputs))
    try:
        yield lambda shape: opened[0].run(shape)
    finally:
        opened.pop().close()  # the caller may keep what runs it; the sessions' threads must go


class _Product(Protocol):
    """A product that can be run."""

    def run(self, shape: Shape) -> object:
        """Once at a network's shape; what that needs is made before it is warm, and kept."""
        ...

    def close(self) -> None:
        """Let threads and sessions go."""
        ...


class _Inputs:
    """What a product reads, drawn once for each shape of the network."""

    def __init__(self, lowering: Lowering, shape_at: Callable[[Shape], Shape]) -> None:
        self._lowering = lowering
        self._shape_at = shape_at
        self._known: dict[tuple[Shape, int], list[NDArray[np.float32]]] = {}
        self._draw = np.random.default_rng(0)

    def at(self, shape: Shape, threads: int = 1) -> list[NDArray[np.float32]]:
        """For each chunk that a network shares its batch out in among so many threads."""
        if (shape, threads) not in self._known:
            mask_BS = np.ones((shape.batch, shape.seq), np.int64)
            chunks = chunks_of(mask_BS, threads)
            self._known[shape, threads] = [
                self._drawn(Shape(batch=len(rows), seq=shape.seq)) for rows in chunks
            ]
        return self._known[shape, threads]

    def _drawn(self, shape: Shape) -> NDArray[np.float32]:
        """What the product gets where the network gets this shape."""
        B, S = (at := self._shape_at(shape)).batch, at.seq
        K = self._lowering.inputs
        size = (B, K, S) if self._lowering.feature_major else (B * S, K)
        return self._draw.standard_normal(size, np.float32)


class _InOpenVino:
    """A product compiled by OpenVINO, which takes each batch whole."""

    def __init__(self, model: bytes, precision: Precision, threads: int, inputs: _Inputs) -> None:
        from spd_deploy.sessions.openvino import compiled_product

        self._request = compiled_product(model, precision.value, threads).create_infer_request()
        self._inputs = inputs

    def run(self, shape: Shape) -> object:
        """Once."""
        (whole,) = self._inputs.at(shape)
        return self._request.infer([whole])

    def close(self) -> None:
        """Drop the request, and with it the compiled product."""
        del self._request


class _InOnnxRuntime:
    """A product's sessions: the one with all threads, and the one that chunks run on."""

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
        """Once, whole or by the chunk."""
        inputs = self._inputs.at(shape, self._threads)
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


def _session(model: bytes, threads: int) -> Any:
    """The product in ONNX Runtime, with the options that ``OnnxSession`` opens a network with."""
    from spd_deploy.sessions.onnxruntime import import_onnxruntime, options_for

    ort = import_onnxruntime()
    return ort.InferenceSession(
        model, options_for(ort, threads), providers=["CPUExecutionProvider"]
    )
