"""The plan of a break-even map: sizes of matrices, patterns, tokens, precisions and runtimes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from exporters.precision import Precision
from spd_deploy.benchmark.breakeven.map_records import MapMatrix, MapSettings
from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.checkpoint import encoder_in
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.named_encoders import NAMED_ENCODERS, refuse_unknown_model
from spd_deploy.domain.patterns import (
    NM,
    Block,
    Pattern,
    Structured,
    Unstructured,
    parse_pattern,
)
from spd_deploy.domain.runtime_choice import CPU_RUNTIMES, CpuRuntime, traits_of
from spd_deploy.domain.versions import version_of
from spd_deploy.sessions.protocol import Device
from spd_deploy.timing.host_clock import TimingSettings

# A protobuf ends at 2 GB; this many weights take half of that.
_LARGEST = 2**28


@dataclass(frozen=True, kw_only=True, slots=True)
class MapPlan:
    """The products to measure, and how.

    Attributes:
        patterns: each at one sparsity.
        precisions: each is compared with dense products in the same precision; fp16 on a GPU.
        threads: None on a GPU.
        runtimes: of a CPU, each with dense products of its own; empty on a GPU.
    """

    model: str | None
    parts: tuple[MapMatrix, ...]
    tokens: tuple[int, ...]
    patterns: tuple[Pattern, ...]
    precisions: tuple[Precision, ...]
    threads: int | None
    timing: TimingSettings
    runtimes: tuple[CpuRuntime, ...] = ()
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Refuse empty plans, and patterns that do not fit all sizes."""
        enough = self.device == "cuda" or ((self.threads or 0) >= 1 and self.runtimes)
        wide = self.parts and self.tokens and self.patterns and self.precisions
        if not (wide and enough):
            raise BadSetting("the map measures nothing", got=self, fix="name sizes and patterns")
        for part in self.parts:
            if part.shape[0] * part.shape[1] > _LARGEST:
                raise BadSetting(
                    "a matrix too large to be a constant of an ONNX graph",
                    got=part,
                    fix=f"use sizes of at most {_LARGEST:,} weights",
                )
            for pattern in self.patterns:
                pattern_on_shape(pattern, part.shape).check(part.shape)


def parts_of(encoder: Encoder) -> tuple[MapMatrix, ...]:
    """The matrices of one layer, those of one shape together."""
    shapes = Counter(matrix.shape for matrix in encoder.matrices() if matrix.layer == 0)
    return tuple(MapMatrix(shape=shape, count=count) for shape, count in shapes.items())


def model_parts(model: str) -> tuple[str, tuple[MapMatrix, ...]]:
    """The name and the matrices of one layer of a known size, or of the model in a folder.

    Raises:
        BadSetting: no known size, and no folder.
        SpdError: a folder whose model is not handled, with the reason.
    """
    refuse_unknown_model(model)
    if model in NAMED_ENCODERS:
        return model, parts_of(NAMED_ENCODERS[model])
    folder = Path(model)
    encoder = open_artefact(folder).encoder if is_artefact(folder) else encoder_in(folder)
    return folder.resolve().name, parts_of(encoder)


def patterns_of(spelled: Sequence[str], sparsities: Sequence[float]) -> tuple[Pattern, ...]:
    """Each pattern at each sparsity, once; N:M at its own alone.

    Raises:
        BadPattern: an unknown spelling, or a sparsity outside (0, 1).
    """
    found: list[Pattern] = []
    for text in dict.fromkeys(spelled):
        fixed = parse_pattern(text).fixed_sparsity
        options = [None] if fixed else sorted(set(sparsities))
        found += [parse_pattern(text, sparsity) for sparsity in options]
    return tuple(found)


def runtimes_here() -> tuple[CpuRuntime, ...]:
    """ONNX Runtime, and the others of a CPU that are installed."""
    first, *others = CPU_RUNTIMES
    return (first, *(one for one in others if version_of(traits_of(one).package) is not None))


def pattern_on_shape(pattern: Pattern, shape: tuple[int, int]) -> Pattern:
    """``pattern`` as it applies to a matrix of which only the shape is known.

    A structured one removes along the longer side, where a layer has its neurons, and rows of a
    square matrix. Other patterns are returned unchanged. ``Encoder.pattern_on`` does the same for a
    matrix of a model, whose role gives the axis and the width.
    """
    match pattern:
        case Structured():
            return pattern.on(axis=0 if shape[0] >= shape[1] else 1, width=1)
        case Unstructured() | NM() | Block():
            return pattern
        case never:
            assert_never(never)


def settings_of(plan: MapPlan) -> MapSettings:
    """The settings that the map's file keeps."""
    return MapSettings(threads=plan.threads, rounds=plan.timing.rounds, seconds=plan.timing.seconds)
