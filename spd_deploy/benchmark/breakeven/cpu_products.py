"""Products of one matrix on a CPU, as exports run them, timed in ONNX Runtime and OpenVINO."""

from collections.abc import Sequence
from functools import partial
from typing import assert_never

import numpy as np

from exporters.autotune.product_model import opened_product
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Array
from spd_deploy.benchmark.breakeven.map_plan import MapPlan, pattern_on_shape
from spd_deploy.benchmark.breakeven.map_records import MapMatrix
from spd_deploy.benchmark.breakeven.map_times import MapTimes
from spd_deploy.benchmark.breakeven.product_kernels import ProductKey
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.versions import version_of
from spd_deploy.sessions.onnxruntime import import_onnxruntime
from spd_deploy.sessions.openvino import import_openvino
from spd_deploy.timing.interleaved import time_interleaved


def time_on_cpu(part: MapMatrix, keys: Sequence[ProductKey], plan: MapPlan) -> MapTimes:
    """Time the products of one size of matrix at all numbers of tokens, in turns."""
    assert plan.threads is not None  # noqa: S101 - a plan of a CPU has some
    matrix = Matrix(name="product", layer=0, role="query", shape=part.shape)
    weight_NK = np.random.default_rng(0).standard_normal(part.shape, np.float32)
    lowerings = {
        pattern: lowering_of(matrix, weight_NK, pattern)
        for pattern in dict.fromkeys(key.pattern for key in keys)
    }
    openers = {
        key: partial(
            opened_product,
            lowering,
            threads=plan.threads,
            precision=key.precision,
            runtime=key.runtime or "onnxruntime",
        )
        for key in keys
        if (lowering := lowerings[key.pattern]) is not None
    }
    shapes = [Shape(batch=1, seq=tokens) for tokens in plan.tokens]
    times = time_interleaved(openers, shapes, plan.timing)
    return MapTimes(
        seconds={
            (key, tokens): times[key][i] for key in openers for i, tokens in enumerate(plan.tokens)
        }
    )


def versions_of(runtimes: Sequence[CpuRuntime]) -> dict[str, str]:
    """The version of each runtime.

    Raises:
        Unavailable: a runtime is not installed.
    """
    return {runtime: _version(runtime) for runtime in runtimes}


def _version(runtime: CpuRuntime) -> str:
    """The version of an installed runtime."""
    match runtime:
        case "onnxruntime":
            return str(import_onnxruntime().__version__)
        case "openvino":
            import_openvino()
            return version_of("openvino") or "unknown"
        case never:
            assert_never(never)


def lowering_of(matrix: Matrix, weight_NK: Array, pattern: Pattern | None) -> Lowering | None:
    """The weight, pruned by magnitude, as an export would run it; None where it would run dense."""
    if pattern is None:
        return Dense.of(matrix, weight_NK)
    pattern = pattern_on_shape(pattern, matrix.shape)
    match pattern:
        case Unstructured() | NM():
            return None
        case Block():
            mask_NK = _magnitude_mask(weight_NK, pattern)
            return Gathered.of(matrix, weight_NK * mask_NK, pattern)
        case Structured():
            mask_NK = _magnitude_mask(weight_NK, pattern)
            rows, columns = np.flatnonzero(mask_NK.any(1)), np.flatnonzero(mask_NK.any(0))
            left = Dense.of(matrix, np.ascontiguousarray(weight_NK[np.ix_(rows, columns)]))
            return Compact.of(matrix, left, rows=rows, columns=columns)
        case never:
            assert_never(never)


def _magnitude_mask(weight_NK: Array, pattern: Pattern) -> Array:
    """The pattern's mask by magnitude, at its own sparsity."""
    import torch

    return np.asarray(pattern.mask(torch.from_numpy(weight_NK).abs(), pattern.sparsity))
