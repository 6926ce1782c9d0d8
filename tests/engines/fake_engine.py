"""What the stand-in for ``tensorrt`` runs with, and what was done with it: engines and the log.

An engine is the path of its ONNX file with what it was built with, and is run by ONNX Runtime on
the fake GPU's memory. What the inspector says of one is made up by ``told``.
"""

import ctypes
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.engines.fake_cuda import FakeDriver

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# A layer of an engine as the inspector tells it, by the node it was made of.
Told = Callable[[dict[str, Any], str, int], dict[str, Any]]


@dataclass
class Log:
    """What was done with the module.

    Attributes:
        configs: of each build, what it was configured with.
        seconds: how long an engine takes on the fake GPU, by what it was built with.
        refuse: an error to raise where an engine is deserialised, as TensorRT says it.
        noise: added to each logit.
        during: what happens in the middle of a build.
        no_builder: a line of the log with which no builder is made.
        no_context: the same of a context that does not take its profile.
        damaged: contents of which no timing cache is made.
    """

    configs: list[dict[str, Any]] = field(default_factory=list)
    seconds: Callable[[dict[str, Any]], float] = lambda config: 1e-3
    told: Told | None = None
    refuse: str | None = None
    parse_errors: Sequence[str] = ()
    noise: float = 0.0
    during: Callable[[], None] = lambda: None
    no_builder: str | None = None
    no_context: str | None = None
    damaged: Sequence[bytes] = ()
    runtimes: int = 0
    logger: Any = None
    models: dict[str, "_Model"] = field(default_factory=dict)

    def registered(self, logger: Any) -> Any:
        """The first logger that any object was made with; TensorRT passes over the others."""
        self.logger = self.logger or logger
        return self.logger

    def model(self, path: str) -> "_Model":
        """The ONNX file, read once."""
        if path not in self.models:
            self.models[path] = _Model(path)
        return self.models[path]


class _Model:
    """An ONNX file that runs, with the names of its products and the number of its classes."""

    def __init__(self, path: str) -> None:
        from spd_deploy.sessions.onnxruntime import OnnxSession

        graph = onnx.load(path, load_external_data=False).graph
        self.products = [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm")]
        self.classes = int(graph.output[0].type.tensor_type.shape.dim[1].dim_value)
        self.session = OnnxSession(Path(path), precision="fp32", threads=1)


class Runtime:
    def __init__(self, trt: Any, driver: FakeDriver, log: Log, logger: Any) -> None:
        assert driver.calls[0] == "cuInit", "a runtime without a driver crashes"
        self._trt, self._driver, self._log = trt, driver, log
        self._logger = log.registered(logger)
        log.runtimes += 1

    def deserialize_cuda_engine(self, engine: bytes) -> "_Engine | None":
        if self._log.refuse:
            self._logger.log(1, self._log.refuse)
            return None
        return _Engine(self._trt, self._driver, self._log, self._logger, json.loads(engine))


class _Engine:
    def __init__(
        self, trt: Any, driver: FakeDriver, log: Log, logger: Any, told: dict[str, Any]
    ) -> None:
        self.trt, self.driver, self.log, self.told = trt, driver, log, told
        self.logger = logger
        self.model = log.model(told["model"])
        self.num_optimization_profiles = len(told["profiles"])

    def get_tensor_dtype(self, name: str) -> str:
        return "float32" if name == "logits" else "int64"

    def create_execution_context(self, strategy: Any) -> "_Context":
        return _Context(self)

    def create_engine_inspector(self) -> "_Inspector":
        return _Inspector(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.profile = engine, 0
        self.shapes: dict[str, tuple[int, int]] = {}
        self.addresses: dict[str, int] = {}
        self.profiler: Any = None

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        if self.engine.log.no_context:
            self.engine.logger.log(1, self.engine.log.no_context)
            raise RuntimeError("Error in set optimization profile async.")
        self.profile = number
        return True

    def set_input_shape(self, name: str, shape: tuple[int, int]) -> bool:
        low, _, high = self.engine.told["profiles"][self.profile][name]
        self.shapes[name] = shape
        return tuple(low) <= shape <= tuple(high)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return self.shapes["input_ids"][0], self.engine.model.classes

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.driver.submit(stream, self._run)
        if self.profiler is not None:
            for layer in self.engine.create_engine_inspector().layers(self.profile):
                self.profiler.report_layer_time(layer["Name"], layer.get("ms", 0.01))
        return True

    def _run(self) -> None:
        from spd_deploy.domain.text import Batch

        given = [_view(self.addresses[n], self.shapes[n], np.int64) for n in _INPUTS]
        logits_BC = self.engine.model.session.run(
            Batch(ids_BS=given[0], mask_BS=given[1], types_BS=given[2])
        )
        _view(self.addresses["logits"], logits_BC.shape, np.float32)[:] = (
            logits_BC + self.engine.log.noise
        )
        self.engine.driver.spend(self.engine.log.seconds(self.engine.told))


class _Inspector:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.execution_context: _Context | None = None

    def layers(self, profile: int) -> list[dict[str, Any]]:
        told = self._engine.log.told
        names = self._engine.model.products
        return [] if told is None else [told(self._engine.told, name, profile) for name in names]

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        assert self.execution_context is not None
        profiles = range(self._engine.num_optimization_profiles)
        rows = [row for number in profiles for row in self.layers(number)]
        return json.dumps({"Layers": rows, "Bindings": []})


def _view(address: int, shape: tuple[int, ...], kind: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    held = (ctypes.c_uint8 * size).from_address(address)
    return np.ctypeslib.as_array(held).view(kind).reshape(shape)
