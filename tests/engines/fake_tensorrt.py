"""A stand-in for the module ``tensorrt``: its builder notes what it was told, its engines run.

It has the names that 10 and 11 each have, as NVIDIA's migration guides list them, and none of
those they lack, so a call of the wrong version is an ``AttributeError``.
"""

import contextlib
import json
from enum import IntEnum
from types import ModuleType
from typing import Any

import onnx

from tests.engines.fake_cuda import FakeDriver
from tests.engines.fake_engine import Log, Runtime

_GONE_IN_11 = ("FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS")
_FLAGS = (
    *_GONE_IN_11,
    "REFIT",
    "DISABLE_TIMING_CACHE",
    "TF32",
    "SPARSE_WEIGHTS",
    "VERSION_COMPATIBLE",
    "STRICT_NANS",
)


def fake_tensorrt(version: str, driver: FakeDriver, log: Log) -> ModuleType:
    """The module of one version."""
    major = int(version.split(".")[0])
    trt = ModuleType("tensorrt")
    typed: Any = trt
    typed.__version__ = version
    flags = [f for f in _FLAGS if major < 11 or f not in _GONE_IN_11]
    typed.BuilderFlag = _enum("BuilderFlag", {name: i for i, name in enumerate(flags)})
    kinds = {
        10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
        11: ["STRONGLY_TYPED"],
    }
    typed.NetworkDefinitionCreationFlag = _enum(
        "NetworkDefinitionCreationFlag",
        {name: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}[name] for name in kinds[major]},
    )
    levels = ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"]
    typed.HardwareCompatibilityLevel = _enum(
        "HardwareCompatibilityLevel", {name: i for i, name in enumerate(levels)}
    )
    typed.MemoryPoolType = _enum("MemoryPoolType", {"WORKSPACE": 0})
    typed.ProfilingVerbosity = _enum("ProfilingVerbosity", {"LAYER_NAMES_ONLY": 0, "DETAILED": 2})
    typed.LayerInformationFormat = _enum("LayerInformationFormat", {"ONELINE": 0, "JSON": 1})
    for name in ("float32", "float16", "int32", "int64"):
        setattr(trt, name, name)
    typed.ExecutionContextAllocationStrategy = _enum(
        "ExecutionContextAllocationStrategy", {"STATIC": 0, "ON_PROFILE_CHANGE": 1}
    )
    typed.ILogger = _Logger
    typed.IProfiler = _Base
    typed.IProgressMonitor = _Base
    typed.Builder = lambda logger: _Builder(trt, driver, log, logger)
    typed.OnnxParser = lambda network, logger: _Parser(network, log)
    typed.Runtime = lambda logger: Runtime(trt, driver, log, logger)
    return trt


# Enumerations are made at run time, by version; no type checker follows that.
_enum: Any = IntEnum


class _Base:
    """A class that is derived from, and must be initialised by its own name."""

    def __init__(self) -> None:
        self.initialised = True


class _Logger(_Base):
    Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3})

    def log(self, severity: int, msg: str) -> None:
        raise AssertionError("a logger is derived from this and says how it logs")


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.model = flags, ""


class _Parser:
    def __init__(self, network: _Network, log: Log) -> None:
        self._network, self._log = network, log

    def parse_from_file(self, path: str) -> bool:
        onnx.checker.check_model(path)
        self._network.model = path
        return not self._log.parse_errors

    @property
    def num_errors(self) -> int:
        return len(self._log.parse_errors)

    def get_error(self, number: int) -> str:
        return self._log.parse_errors[number]


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[name] = [min, opt, max]


class _Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


class _Config:
    def __init__(self, log: Log) -> None:
        object.__setattr__(self, "log", log)
        self.told: dict[str, Any] = {"flags": [], "cleared": [], "profiles": []}

    def set_flag(self, flag: Any) -> None:
        self.told["flags"].append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.told["cleared"].append(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.told["workspace"] = size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.told["profiles"].append(profile.shapes)
        return len(self.told["profiles"]) - 1

    def create_timing_cache(self, content: bytes) -> _Cache | None:
        log: Log = object.__getattribute__(self, "log")
        return None if content in log.damaged else _Cache(content)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, _Cache):
            raise TypeError("set_timing_cache(): incompatible function arguments")
        self.told["timings"] = cache.content.decode()
        return not ignore_mismatch

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "told":
            object.__setattr__(self, name, value)
        else:
            self.told[name] = getattr(value, "name", value)


class _Builder:
    def __init__(self, trt: Any, driver: FakeDriver, log: Log, logger: Any) -> None:
        assert driver.calls[0] == "cuInit", "a builder without a driver"
        self._trt, self._log, self._logger = trt, log, log.registered(logger)
        if log.no_builder:
            self._logger.log(1, log.no_builder)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config(self._log)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        monitor = config.told.pop("progress_monitor")
        monitor.phase_start("Building Engine", None, 1)
        with contextlib.suppress(KeyboardInterrupt):  # lost in the C++ around Python
            self._log.during()
        goes_on = monitor.step_complete("Building Engine", 0)
        monitor.phase_finish("Building Engine")
        if not goes_on:
            return None
        self._logger.log(3, "[I] (Sparsity) Layers eligible for sparse math: all of them")
        told = {**config.told, "network": network.flags, "model": network.model}
        told["number"] = len(self._log.configs)
        self._log.configs.append(told)
        return json.dumps(told).encode()
