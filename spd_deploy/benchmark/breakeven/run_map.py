"""Measures a break-even map: each product of a model's sizes, dense and in every pattern.

Nothing is trained: time does not depend on what weights are worth, so they are drawn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np

from exporters.autotune.product_model import opened_product
from exporters.autotune.select import why_zeros_are_multiplied
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Array
from exporters.precision import Precision
from spd_deploy.benchmark.breakeven.map_records import BreakEven, Cell, MapSettings, Part
from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.checkpoint import encoder_in
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured, parse_pattern
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.versions import version_of
from spd_deploy.machine.facts import this_machine
from spd_deploy.sessions.onnxruntime import import_onnxruntime
from spd_deploy.sessions.openvino import import_openvino
from spd_deploy.timing.host_clock import Effort
from spd_deploy.timing.interleaved import time_interleaved
from spd_deploy.timing.machine_load import LoadObserver, load_average

# Hidden and feed-forward width by what models of this size are called.
MODELS: Mapping[str, tuple[int, int]] = {
    "minilm": (384, 1536),
    "base": (768, 3072),
    "large": (1024, 4096),
}
# A protobuf ends at 2 GB; this many weights take half of that.
_LARGEST = 2**28


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        patterns: each at one sparsity.
        precisions: each against dense products in the same; a GPU's are in fp16.
        threads: None on a GPU.
        runtimes: of a CPU, each against dense products in the same; none on a GPU.
    """

    model: str | None
    parts: tuple[Part, ...]
    tokens: tuple[int, ...]
    patterns: tuple[Pattern, ...]
    precisions: tuple[Precision, ...]
    threads: int | None
    effort: Effort
    runtimes: tuple[CpuRuntime, ...] = ()

    def __post_init__(self) -> None:
        """Refuse plans that are empty, and patterns that do not fit all sizes."""
        enough = self.threads is None or (self.threads >= 1 and self.runtimes)
        wide = self.parts and self.tokens and self.patterns and self.precisions
        if not (wide and enough):
            raise BadSetting("a map with nothing on it", got=self, fix="name sizes and patterns")
        for part in self.parts:
            if part.shape[0] * part.shape[1] > _LARGEST:
                raise BadSetting(
                    "a matrix too large to be a constant of an ONNX graph",
                    got=part,
                    fix=f"use sizes of at most {_LARGEST:,} weights",
                )
            for pattern in self.patterns:
                placed(pattern, part.shape).check(part.shape)


def parts_of(model: str) -> tuple[Part, ...]:
    """The matrices of one layer: four of attention, and the feed-forward part's two."""
    hidden, inner = MODELS[model]
    return (
        Part(shape=(hidden, hidden), count=4),
        Part(shape=(inner, hidden), count=1),
        Part(shape=(hidden, inner), count=1),
    )


def model_parts(model: str) -> tuple[str, tuple[Part, ...]]:
    """The name and the matrices of one layer of a known size, or of the model in a folder.

    Raises:
        BadSetting: no known size, and no folder.
        SpdError: a folder whose model is not handled, with the reason.
    """
    if model in MODELS:
        return model, parts_of(model)
    folder = Path(model)
    if not folder.is_dir():
        raise BadSetting(
            "no such size of model, and no such folder",
            got=model,
            fix=f"use {', '.join(MODELS)}, or the folder of a model, a checkpoint or an artefact",
        )
    encoder = open_artefact(folder).encoder if is_artefact(folder) else encoder_in(folder)
    shapes = Counter(matrix.shape for matrix in encoder.matrices() if matrix.layer == 0)
    parts = tuple(Part(shape=shape, count=count) for shape, count in shapes.items())
    return folder.resolve().name, parts


def patterns_of(spelled: Sequence[str], sparsities: Sequence[float]) -> tuple[Pattern, ...]:
    """Each pattern at each sparsity, once; N:M at its own alone.

    Raises:
        BadPattern: an unknown spelling, or a sparsity outside (0, 1).
    """
    found: list[Pattern] = []
    for text in dict.fromkeys(spelled):
        fixed = isinstance(parse_pattern(text), NM)
        options = [None] if fixed else sorted(set(sparsities))
        found += [parse_pattern(text, sparsity) for sparsity in options]
    return tuple(found)


def runtimes_here() -> tuple[CpuRuntime, ...]:
    """ONNX Runtime, and OpenVINO where it is installed."""
    return ("onnxruntime",) if version_of("openvino") is None else ("onnxruntime", "openvino")


def placed(pattern: Pattern, shape: tuple[int, int]) -> Pattern:
    """The structured pattern along the longer side, where a layer has its neurons; else as it is.

    In a square matrix, as of attention, rows go.
    """
    if not isinstance(pattern, Structured):
        return pattern
    return pattern.on(axis=0 if shape[0] >= shape[1] else 1, width=1)


def measure_map(plan: Plan, *, progress: Progress | None = None) -> BreakEven:
    """Time every product of the plan on this machine's CPU.

    Raises:
        Unavailable: a runtime is not installed, or has not one of the precisions.
    """
    runtimes: dict[str, str] = {runtime: _version(runtime) for runtime in plan.runtimes}
    observer = LoadObserver(load_average())
    cells: list[Cell] = []
    with (progress or Silent()).stage("map", len(plan.parts)) as advance:
        for part in plan.parts:
            cells += _cells_of(part, plan)
            advance(note=str(part))
    return BreakEven(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        conditions=observer.conditions(),
        effort=settings_of(plan),
        model=plan.model,
        parts=plan.parts,
        cells=tuple(cells),
        runtimes=runtimes,
    )


def settings_of(plan: Plan) -> MapSettings:
    """What the map's file keeps of how it was measured."""
    return MapSettings(threads=plan.threads, rounds=plan.effort.rounds, seconds=plan.effort.seconds)


def _version(runtime: CpuRuntime) -> str:
    """The version of a runtime that is here; an error where it is not."""
    match runtime:
        case "onnxruntime":
            return str(import_onnxruntime().__version__)
        case "openvino":
            import_openvino()
            return version_of("openvino") or "unknown"
        case never:
            assert_never(never)


def _cells_of(part: Part, plan: Plan) -> list[Cell]:
    """All cells of one size of matrix, the dense product taking turns with all sparse ones."""
    N, K = part.shape
    matrix = Matrix(name="product", layer=0, role="query", shape=part.shape)
    weight_NK = np.random.default_rng(0).standard_normal((N, K), np.float32)
    lowerings: dict[Pattern | None, Lowering] = {None: Dense.of(matrix, weight_NK)}
    for pattern in plan.patterns:
        if (lowering := lowering_of(matrix, weight_NK, pattern)) is not None:
            lowerings[pattern] = lowering
    assert plan.threads is not None  # noqa: S101 - a CPU has some
    openers = {
        _name(runtime, precision, pattern): partial(
            opened_product, lowering, threads=plan.threads, precision=precision, runtime=runtime
        )
        for runtime in plan.runtimes
        for precision in plan.precisions
        for pattern, lowering in lowerings.items()
    }
    shapes = [Shape(batch=1, seq=tokens) for tokens in plan.tokens]
    times = time_interleaved(openers, shapes, plan.effort)
    nothing: tuple[tuple[float, ...], ...] = ((),) * len(shapes)
    return [
        Cell(
            shape=part.shape,
            tokens=tokens,
            pattern=str(pattern),
            sparsity=pattern.sparsity,
            precision=precision.value,
            dense_s=times[_name(runtime, precision, None)][place],
            sparse_s=times.get(_name(runtime, precision, pattern), nothing)[place],
            reason=why_zeros_are_multiplied(pattern, runtime)
            if isinstance(pattern, Unstructured | NM)
            else "",
            runtime=runtime,
        )
        for runtime in plan.runtimes
        for precision in plan.precisions
        for pattern in plan.patterns
        for place, tokens in enumerate(plan.tokens)
    ]


def _name(runtime: CpuRuntime, precision: Precision, pattern: Pattern | None) -> str:
    """What a product is called among those that take turns; None is the dense one."""
    what = "dense" if pattern is None else f"{pattern} {pattern.sparsity}"
    return f"{runtime} {precision} {what}"


def lowering_of(matrix: Matrix, weight_NK: Array, pattern: Pattern) -> Lowering | None:
    """The drawn weight, pruned by magnitude, as an export would run it; None where as dense."""
    if isinstance(pattern, Unstructured | NM):
        return None
    import torch

    found = placed(pattern, matrix.shape)
    score_NK = torch.from_numpy(weight_NK).abs()
    mask_NK = found.mask(score_NK, found.sparsity).numpy()
    if isinstance(found, Block):
        return Gathered.of(matrix, weight_NK * mask_NK, found)
    rows, columns = np.flatnonzero(mask_NK.any(1)), np.flatnonzero(mask_NK.any(0))
    left = Dense.of(matrix, np.ascontiguousarray(weight_NK[np.ix_(rows, columns)]))
    return Compact.of(matrix, left, rows=rows, columns=columns)
