"""What a TensorRT engine of a checkpoint is to be, as far as it can be known without a GPU.

Which matrices may be run by sparse kernels is decided by what was stored, not by what was meant: at
most 2 of every 4 inputs of each row, a product of fp16 or int8, and sizes that the tiles of sparse
tensor cores divide. Whether such a kernel is then taken, TensorRT decides by timing both
(``exporters.tensorrt.verdict``).
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from exporters.classifier_weights import Array
from exporters.formats import Draft, ExportFormat
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.lowering import Lowering
from exporters.onnx.graph import Target
from exporters.onnx.storage import products_of, read_constants
from exporters.precision import Precision
from exporters.tensorrt.fp16_range import peak_of_halves
from exporters.tensorrt.select_lowering import choose_for_engine
from spd_deploy.domain.golden import GOLDEN_FILE, read_golden
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.tensorrt.build_plan import (
    BuildPlan,
    Options,
    Planned,
    Typed,
    sha256_of_masks,
    write_plan,
)

# Rows and inputs come to sparse tensor cores by so many at a time.
_ROWS, _INPUTS = 8, 16
_KEPT, _OF = 2, 4
_HALF_TOLERANCE = 5e-2
_TYPED: Mapping[Precision, Typed] = {
    Precision.FP32: "fp32",
    Precision.FP16: "fp16",
    Precision.INT8: "int8",
}


def engine_form(buckets: tuple[Shape, ...]) -> ExportFormat:
    """A trt artefact for so many shapes: the portable graph and the plan of its engine."""
    return ExportFormat(
        format="trt",
        targets={PORTABLE_FILE: Target.TENSORRT},
        runtime="tensorrt",
        choose=choose_for_engine,
        tolerance=tolerance_of,
        complete=partial(_complete, buckets),
    )


def tolerance_of(precision: Precision) -> float | None:
    """As for a graph whose products alone are fp16, but where all between them is as well.

    Each of some dozen roundings a layer moves a number by 2^-11 of it. Random models of 12 layers,
    run in ONNX's own reference implementation, which rounds after each operator, were up to 0.022
    from their checkpoints (``tests.sessions.tensorrt.test_half``); trained ones are less sensitive.
    """
    return _HALF_TOLERANCE if precision is Precision.FP16 else precision.tolerance


def plan_for(draft: Draft, buckets: tuple[Shape, ...]) -> BuildPlan:
    """The plan for an artefact whose graph stands, from what was stored in it."""
    file = draft.folder / PORTABLE_FILE
    constants = read_constants(file)
    names = [matrix.name for matrix in draft.weights.encoder.matrices()]
    lowerings = {name: draft.choices[name].lowering for name in names}
    stored = {name: lowering.restored(constants) for name, lowering in lowerings.items()}
    products = products_of(file, names)
    typed = _TYPED[draft.precision]
    matrices = tuple(
        planned(lowerings[name], stored[name], products.get(name, ""), typed) for name in names
    )
    return BuildPlan(
        buckets=buckets,
        precision=typed,
        sparse_weights=any(matrix.eligible for matrix in matrices),
        masks_sha256=sha256_of_masks(stored.items()),
        largest_half=peak_of_halves(file, read_golden(draft.folder / GOLDEN_FILE)),
        matrices=matrices,
        options=Options(),
    )


def planned(lowering: Lowering, stored_NK: Array, product: str, typed: Typed) -> Planned:
    """What is to be expected of a matrix that is stored so."""
    multiplied_NK = _multiplied(lowering, stored_NK)
    fits = multiplied_NK is not None and two_of_four(multiplied_NK)
    reason = _obstacle(multiplied_NK, typed, fits=fits)
    name, shape = lowering.matrix.name, (int(stored_NK.shape[0]), int(stored_NK.shape[1]))
    return Planned(
        name=name,
        shape=shape,
        product=product,
        two_of_four=fits,
        typed=typed,
        eligible=reason is None,
        why=reason or f"at most {_KEPT} of every {_OF} inputs are kept, in {typed}",
    )


def two_of_four(weight_NK: Array) -> bool:
    """Whether every 4 inputs in a row hold at most 2 weights that are not zero."""
    N, K = weight_NK.shape
    if K % _OF or not weight_NK.size:
        return False
    return bool(((weight_NK.reshape(N, K // _OF, _OF) != 0).sum(2) <= _KEPT).all())


def _multiplied(lowering: Lowering, stored_NK: Array) -> Array | None:
    """The one matrix that is multiplied; None where there are many, or none."""
    match lowering:
        case Dense():
            return stored_NK
        case Compact(inner=Dense(), rows=rows, columns=columns):
            return stored_NK[np.ix_(rows, columns)] if len(rows) and len(columns) else None
        case _:
            return None


def _obstacle(weight_NK: Array | None, typed: Typed, *, fits: bool) -> str | None:
    """Why no sparse kernel can be taken; None where one can."""
    if weight_NK is None:
        return "gathered into dense products, or nothing is left"
    if not fits:
        return f"more than {_KEPT} of some {_OF} inputs are kept"
    if typed == "fp32":
        return "sparse tensor cores multiply fp16 and int8, not fp32"
    N, K = weight_NK.shape
    if N % _ROWS or K % _INPUTS:
        return f"{N} x {K} is not a multiple of {_ROWS} x {_INPUTS}, as sparse kernels want it"
    return None


def _complete(buckets: tuple[Shape, ...], draft: Draft) -> None:
    """Write the plan beside the graph."""
    write_plan(draft.folder, plan_for(draft, buckets))
