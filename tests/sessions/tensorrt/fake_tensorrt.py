"""A stand-in for what runs engines: ``tensorrt.Runtime`` and what it gives; and for a build.

An engine is the path of its ONNX file with what it was built with, and is run by ONNX Runtime on
the fake GPU's memory. What the inspector says of one is made up by ``told``. TensorRT's parser and
builder are not stood in for: ``make test-tensorrt`` gives them our graphs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx

from exporters.tensorrt.compile import Compiled
from spd_deploy.domain.text import INPUTS, Batch
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.tensorrt.build_plan import BuildPlan, Options
from spd_deploy.sessions.tensorrt.engine_record import Variant
from spd_deploy.sessions.tensorrt.versions import flags_for
from tests.sessions.tensorrt.fake_gpu import STREAM, FakeGpu

# A layer of an engine as the inspector tells it, by the node it was made of.
Told = Callable[[dict[str, Any], str, int], dict[str, Any]]


@dataclass
class Log:
    """What was done with the module, and what it is to do.

    Attributes:
        builds: of each build, what it was built with.
        seconds: how long an engine takes on the fake GPU, by what it was built with.
        refuse: an error to log where an engine is deserialised, as TensorRT says it.
        no_context: the same of a context that does not take its profile.
        noise: added to each logit.
    """

    builds: list[dict[str, Any]] = field(default_factory=list)
    seconds: Callable[[dict[str, Any]], float] = lambda config: 1e-3
    told: Told | None = None
    refuse: str | None = None
    no_context: str | None = None
    noise: float = 0.0
    runtimes: int = 0
    models: dict[str, "_Model"] = field(default_factory=dict)


def fake_tensorrt(version: str, gpu: FakeGpu, log: Log) -> ModuleType:
    """The module of one version, as far as engines are run with it."""
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    trt.int32, trt.int64, trt.float32 = "int32", "int64", "float32"
    trt.BuilderFlag = SimpleNamespace(SPARSE_WEIGHTS=0, STRICT_NANS=1, VERSION_COMPATIBLE=2)
    trt.ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE=1)
    trt.LayerInformationFormat = SimpleNamespace(JSON="json")
    trt.ILogger, trt.IProfiler = _Logger, _Base
    trt.Runtime = lambda logger: _Runtime(gpu, log, logger)
    module: ModuleType = trt
    return module


def fake_compile(log: Log) -> Callable[..., Compiled]:
    """What stands for ``compile_engine``: timings grow by a mark with each build."""

    def compiled(
        tensorrt: ModuleType,
        model: Path,
        plan: BuildPlan,
        options: Options,
        variant: Variant,
        *,
        timings: bytes,
        advance: object,
    ) -> Compiled:
        flags = flags_for(tensorrt, plan, options, variant)
        told = {
            "number": len(log.builds),
            "model": str(model),
            "flags": flags,
            "timings": timings.decode(),
            "profiles": [[bucket.batch, bucket.seq] for bucket in plan.buckets],
        }
        log.builds.append(told)
        return Compiled(
            engine=json.dumps(told).encode(),
            timings=timings + b"+",
            flags=flags,
            build_s=1.0,
            sparsity_log=("(Sparsity) Layers eligible for sparse math: all of them",),
        )

    return compiled


class _Base:
    """A class that is derived from, and must be initialised by its own name."""

    def __init__(self) -> None:
        self.initialised = True


class _Logger(_Base):
    Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3})


class _Model:
    """An ONNX file that runs, with the names of its products and the number of its classes."""

    def __init__(self, path: str) -> None:
        graph = onnx.load(path, load_external_data=False).graph
        self.products = [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm")]
        self.classes = int(graph.output[0].type.tensor_type.shape.dim[1].dim_value)
        self.session = OnnxSession(Path(path), precision="fp32", threads=1)


class _Runtime:
    def __init__(self, gpu: FakeGpu, log: Log, logger: Any) -> None:
        self._gpu, self._log, self._logger = gpu, log, logger
        log.runtimes += 1

    def deserialize_cuda_engine(self, engine: bytes) -> "_Engine | None":
        if self._log.refuse:
            self._logger.log(1, self._log.refuse)
            return None
        return _Engine(self._gpu, self._log, self._logger, json.loads(engine))


class _Engine:
    def __init__(self, gpu: FakeGpu, log: Log, logger: Any, built: dict[str, Any]) -> None:
        self.gpu, self.log, self.logger, self.built = gpu, log, logger, built
        if built["model"] not in log.models:
            log.models[built["model"]] = _Model(built["model"])
        self.model = log.models[built["model"]]
        self.num_optimization_profiles = len(built["profiles"])

    def get_tensor_dtype(self, name: str) -> str:
        return "float32" if name == "logits" else "int64"

    def create_execution_context(self, strategy: int) -> "_Context":
        return _Context(self)

    def create_engine_inspector(self) -> Any:
        rows = [row for n in range(self.num_optimization_profiles) for row in self.layers(n)]
        text = json.dumps({"Layers": rows, "Bindings": []})
        return SimpleNamespace(get_engine_information=lambda form: text)

    def layers(self, profile: int) -> list[dict[str, Any]]:
        """What the inspector tells of one profile."""
        told = self.log.told
        return [told(self.built, name, profile) for name in self.model.products] if told else []


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
        self.shapes[name] = shape
        return shape == tuple(self.engine.built["profiles"][self.profile])

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return self.shapes["input_ids"][0], self.engine.model.classes

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        self.engine.gpu.submit(self._run)
        if self.profiler is not None:
            for layer in self.engine.layers(self.profile):
                self.profiler.report_layer_time(layer["Name"], layer.get("ms", 0.01))
        return True

    def _run(self) -> None:
        gpu, log = self.engine.gpu, self.engine.log
        ids, mask, types = (gpu.view(self.addresses[n], self.shapes[n], np.int64) for n in INPUTS)
        logits_BC = self.engine.model.session.run(Batch(ids_BS=ids, mask_BS=mask, types_BS=types))
        gpu.view(self.addresses["logits"], logits_BC.shape, np.float32)[:] = logits_BC + log.noise
        gpu.now_s += log.seconds(self.engine.built)
