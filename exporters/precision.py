"""The precisions of ONNX graphs: their arithmetic, and how far they may be from the checkpoint.

bf16 is not one of them: OpenVINO rounds an fp32 artefact to bf16 itself (``sessions``).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.arithmetic.engine_float16 import EngineFloat16
from exporters.onnx.arithmetic.engine_int8 import EngineInt8
from exporters.onnx.arithmetic.float16 import Float16
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.arithmetic.int8 import DynamicInt8, StaticInt8, TokenInt8
from exporters.onnx.graph import Target
from spd_deploy.domain.number_types import is_quantised
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Session

Scores = Mapping[str, float | None]

# Two scores a hundredth apart may differ by more than 0.01 as floats; no two real ones are so near.
_ROUNDING = 1e-9


class Precision(StrEnum):
    """The precision of the products with the encoder's matrices.

    The word-embedding table is stored in it too, except where :func:`word_embedding_precision` says
    otherwise. In TensorRT graphs of fp16 and int8, the values between operators are fp16.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def calibrated(self) -> bool:
        """Whether an export needs a task's texts, to calibrate ranges on and to be scored by."""
        return is_quantised(self.value)

    @property
    def tolerance(self) -> float | None:
        """Allowed difference of logits, in units of max(1, largest logit); None in int8.

        In fp32 it covers another order of additions, in fp16 operands of 11 bits. In int8 the
        task's metric decides instead.
        """
        match self:
            case Precision.FP32:
                return 1e-4
            case Precision.FP16:
                return 2e-2
            case Precision.INT8:
                return None

    def matches(self, stored_NK: Array, weight_NK: Array) -> bool:
        """Whether a stored weight is the checkpoint's, rounded to this precision."""
        if stored_NK.shape != weight_NK.shape:
            return False
        return bool((np.abs(stored_NK - weight_NK) <= self._rounding_of(weight_NK)).all())

    def _rounding_of(self, weight_NK: Array) -> Array:
        """The most that each weight may have been moved by rounding."""
        match self:
            case Precision.FP32:
                return np.zeros_like(weight_NK)
            case Precision.FP16:
                return np.asarray(2**-11 * np.abs(weight_NK) + 2**-24)
            case Precision.INT8:
                step_N1 = np.abs(weight_NK).max(1, keepdims=True, initial=0.0) / 127
                return np.asarray(0.5001 * step_N1)


_INT8_ENGINE = (Precision.INT8, Target.TENSORRT)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """Texts that int8 is calibrated on, and a score that int8 and bf16 must keep.

    Attributes:
        batches: texts of the task, to calibrate ranges on.
        score: gives the task's metrics of a session, on other texts than ``batches``.
        metric: the metric that must be kept.
        max_drop: how much of the metric may be lost, in points of 100.
        refuses: whether an export that loses more is refused; else the best there is is taken.
        split: the name of the data that ``score`` uses, for the manifest.
        calibration: how well the scores of a session fit what is true, on the same data; None where
            they are no probabilities of labels.
    """

    batches: Sequence[Batch]
    score: Callable[[Session], Scores]
    metric: str
    max_drop: float
    refuses: bool = True
    split: str = "dev"
    calibration: Callable[[Session], TemperatureScaling | None] = lambda _: None

    def allows(self, before: Scores, after: Scores) -> bool:
        """Whether the metric fell by no more than allowed.

        A metric is undefined where all answers are the same. That counts as a loss where it was
        defined before.
        """
        score_before, score_after = before.get(self.metric), after.get(self.metric)
        if score_before is None:
            return True
        allowed = self.max_drop / 100 + _ROUNDING
        return score_after is not None and score_before - score_after <= allowed

    def lowest(self, scores: Iterable[Scores]) -> float:
        """The lowest value of the metric among several graphs; one that is undefined is lowest."""
        return min(
            -math.inf if (found := one.get(self.metric)) is None else found for one in scores
        )


def arithmetic_for(
    precision: Precision, target: Target, ranges: Mapping[str, float], *, by_token: bool = False
) -> Arithmetic:
    """The arithmetic of ``precision`` in a graph for ``target``.

    Args:
        precision: precision of the products.
        target: the runtime that the graph is made for.
        ranges: the calibrated range of each matrix's input, for int8 graphs that are static.
        by_token: a range for each token in int8 graphs that are dynamic and token-major.
    """
    match precision:
        case Precision.FP32:
            return Float32()
        case Precision.FP16:
            return EngineFloat16() if target is Target.TENSORRT else Float16()
        case Precision.INT8:
            return _int8_for(target, ranges, by_token=by_token)


def word_embedding_precision(precision: Precision, target: Target) -> Precision:
    """The precision that the word-embedding table is stored in, in a graph for ``target``.

    In int8 graphs for TensorRT it is fp16. TensorRT reads an int8 table only where
    ``DequantizeLinear`` comes directly after it. ONNX Runtime, which runs the same graph where
    there is no engine, would then convert the whole table to fp32 at every run.
    """
    return Precision.FP16 if (precision, target) == _INT8_ENGINE else precision


def _int8_for(target: Target, ranges: Mapping[str, float], *, by_token: bool) -> Arithmetic:
    """The int8 arithmetic that the target has kernels for."""
    match target:
        case Target.ONNXRUNTIME:
            return TokenInt8() if by_token else DynamicInt8()
        case Target.PORTABLE:
            return StaticInt8(ranges=ranges)
        case Target.TENSORRT:
            return EngineInt8(ranges=ranges)
