"""The precisions an artefact can be exported in: their graphs, and how near they must stay.

bf16 is none of them: it is a runtime's choice over an fp32 artefact (OpenVINO's, ``sessions``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.arithmetic.float16 import Float16
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.arithmetic.half import Half
from exporters.onnx.arithmetic.half_int8 import HalfInt8
from exporters.onnx.arithmetic.int8 import DynamicInt8, StaticInt8
from exporters.onnx.graph import Target
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Session

Scores = Mapping[str, float | None]

# Two scores a hundredth apart may differ by more than 0.01 as floats; no two real ones are so near.
_ROUNDING = 1e-9


class Precision(StrEnum):
    """Of the products of the encoder's matrices; in engines fp16 lies between all but fp32 ones.

    The table of word embeddings is stored in it too, but for :func:`words_in`.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def tolerance(self) -> float | None:
        """Allowed difference of logits, in units of max(1, largest logit); None: by accuracy.

        In fp32 what a change of the order of additions may make; in fp16 what 11 bits of each
        product's operands may. How far int8 goes is for the task's metric to say.
        """
        return {Precision.FP32: 1e-4, Precision.FP16: 2e-2, Precision.INT8: None}[self]

    def near(self, stored_NK: Array, weight_NK: Array) -> bool:
        """Whether a stored weight is the checkpoint's, as nearly as this precision holds it."""
        if self is Precision.FP32:
            return np.array_equal(stored_NK, weight_NK)
        off_NK = np.abs(stored_NK - weight_NK)
        if self is Precision.FP16:
            return bool((off_NK <= 2**-11 * np.abs(weight_NK) + 2**-24).all())
        step_N = np.abs(weight_NK).max(1, initial=0.0) / 127
        return bool((off_NK <= 0.5001 * step_N[:, None]).all())


_INT8_ENGINE = (Precision.INT8, Target.TENSORRT)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """What int8 is made from and judged by.

    Attributes:
        batches: texts of the task, for the ranges.
        score: the task's metrics of a session, on data it was not calibrated on.
        metric: the headline among them.
        max_drop: how much of the headline may be lost, in points of 100.
        split: what ``score`` scores on, for the record.
    """

    batches: Sequence[Batch]
    score: Callable[[Session], Scores]
    metric: str
    max_drop: float
    split: str = "dev"

    def allows(self, before: Scores, after: Scores) -> bool:
        """Whether the headline fell by no more than allowed.

        An undefined one, of constant answers, is a fall where it was defined before.
        """
        was, is_ = before.get(self.metric), after.get(self.metric)
        most = self.max_drop / 100 + _ROUNDING
        return was is None or (is_ is not None and was - is_ <= most)


def arithmetic_for(precision: Precision, target: Target, ranges: Mapping[str, float]) -> Arithmetic:
    """How a graph for ``target`` computes in ``precision``."""
    match precision:
        case Precision.FP32:
            return Float32()
        case Precision.FP16:
            return Half() if target is Target.TENSORRT else Float16()
        case Precision.INT8:
            return _int8_for(target, ranges)


def words_in(precision: Precision, target: Target) -> Precision:
    """What the table of word embeddings is stored in, in a graph for ``target``.

    An int8 engine is made from fp16 words. TensorRT takes int8 ones before ``DequantizeLinear``
    alone, and there ONNX Runtime, which runs the same graph where there is no engine, makes the
    whole table fp32 at every run.
    """
    return Precision.FP16 if (precision, target) == _INT8_ENGINE else precision


def _int8_for(target: Target, ranges: Mapping[str, float]) -> Arithmetic:
    """The int8 that each target has kernels for."""
    match target:
        case Target.ONNXRUNTIME:
            return DynamicInt8()
        case Target.PORTABLE:
            return StaticInt8(ranges=ranges)
        case Target.TENSORRT:
            return HalfInt8(ranges=ranges)
