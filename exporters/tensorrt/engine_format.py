"""The ``trt`` format: a portable graph, and the plan of the engine that is built from it later.

The plan says which matrices are eligible for sparse kernels. That depends on the stored weights: at
most 2 of every 4 inputs of each row are not zero, the product is fp16 or int8, and the tiles of
sparse tensor cores divide its sizes. Whether TensorRT then chooses a sparse kernel, it decides by
timing (``exporters.tensorrt.verdict``).
"""

from functools import partial

import numpy as np

from exporters.classifier_weights import Array
from exporters.formats import DraftArtefact, ExportFormat
from exporters.lowering.lowering import Lowering
from exporters.onnx.graph import Target
from exporters.onnx.storage import product_nodes, read_constants
from exporters.precision import Precision
from exporters.tensorrt.fp16_range import largest_fp16_value
from exporters.tensorrt.select_lowering import choose_engine_lowerings
from spd_deploy.domain.golden import GOLDEN_FILE, read_golden
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.tensorrt.build_plan import (
    BuildPlan,
    Options,
    PlannedMatrix,
    TrtPrecision,
    sha256_of_masks,
    write_plan,
)

# Sparse tensor cores read rows and inputs in multiples of these.
_ROWS, _INPUTS = 8, 16
_KEPT, _OF = 2, 4
_FP16_TOLERANCE = 5e-2


def engine_format(buckets: tuple[Shape, ...]) -> ExportFormat:
    """The trt format with an engine that has one profile for each of the shapes ``buckets``."""
    return ExportFormat(
        format="trt",
        targets={PORTABLE_FILE: Target.TENSORRT},
        runtime="tensorrt",
        choose_lowerings=choose_engine_lowerings,
        tolerance=tolerance_of,
        complete=partial(_complete, buckets),
    )


def tolerance_of(precision: Precision) -> float | None:
    """Allowed difference of logits: larger in fp16 than for onnx, since all operators are fp16.

    Each of about a dozen roundings a layer changes a number by 2^-11 of it. Random models of 12
    layers, run in ONNX's reference implementation, which rounds after each operator, were up to
    0.022 from their checkpoints (``tests.sessions.tensorrt.test_engine_float16``). Trained models
    are less sensitive.
    """
    match precision:
        case Precision.FP16:
            return _FP16_TOLERANCE
        case Precision.FP32 | Precision.INT8:
            return precision.tolerance


def _engine_precision(precision: Precision) -> TrtPrecision:
    """The name of a precision in ``build.json``."""
    match precision:
        case Precision.FP32:
            return "fp32"
        case Precision.FP16:
            return "fp16"
        case Precision.INT8:
            return "int8"


def plan_for(draft: DraftArtefact, buckets: tuple[Shape, ...]) -> BuildPlan:
    """The plan for a draft, from the weights that are stored in its graph."""
    file = draft.folder / PORTABLE_FILE
    constants = read_constants(file)
    names = [matrix.name for matrix in draft.weights.encoder.matrices()]
    lowerings = {name: draft.choices[name].lowering for name in names}
    stored = {name: lowering.restored(constants) for name, lowering in lowerings.items()}
    nodes = product_nodes(file, names)
    precision = _engine_precision(draft.precision)
    matrices = tuple(
        plan_matrix(lowerings[name], stored[name], nodes.get(name, ""), precision) for name in names
    )
    return BuildPlan(
        buckets=buckets,
        precision=precision,
        sparse_weights=any(matrix.eligible for matrix in matrices),
        masks_sha256=sha256_of_masks(stored.items()),
        largest_fp16_activation=largest_fp16_value(file, read_golden(draft.folder / GOLDEN_FILE)),
        matrices=matrices,
        options=Options(),
    )


def plan_matrix(
    lowering: Lowering, stored_NK: Array, onnx_node: str, precision: TrtPrecision
) -> PlannedMatrix:
    """Whether a matrix, as it is stored, is eligible for sparse kernels, and why or why not."""
    multiplied_NK = _multiplied(lowering, stored_NK)
    fits = multiplied_NK is not None and two_of_four(multiplied_NK)
    reason = _obstacle(multiplied_NK, precision, fits=fits)
    name, shape = lowering.matrix.name, (int(stored_NK.shape[0]), int(stored_NK.shape[1]))
    return PlannedMatrix(
        name=name,
        shape=shape,
        onnx_node=onnx_node,
        two_of_four=fits,
        precision=precision,
        eligible=reason is None,
        reason=reason or f"at most {_KEPT} of every {_OF} inputs are not zero, in {precision}",
    )


def two_of_four(weight_NK: Array) -> bool:
    """Whether every 4 inputs in a row hold at most 2 weights that are not zero."""
    N, K = weight_NK.shape
    if K % _OF or not weight_NK.size:
        return False
    return bool(((weight_NK.reshape(N, K // _OF, _OF) != 0).sum(2) <= _KEPT).all())


def _multiplied(lowering: Lowering, stored_NK: Array) -> Array | None:
    """The matrix that is multiplied as it is; None where it is gathered, or nothing remains."""
    if lowering.block is not None or not lowering.values.size:
        return None
    return stored_NK[np.ix_(lowering.rows, lowering.columns)]


def _obstacle(weight_NK: Array | None, precision: TrtPrecision, *, fits: bool) -> str | None:
    """Why no sparse kernel can run the matrix; None where one can."""
    if weight_NK is None:
        return "blocks are gathered into dense products, or no weights remain"
    if not fits:
        return f"more than {_KEPT} of some {_OF} inputs are not zero"
    if precision == "fp32":
        return "sparse tensor cores multiply fp16 and int8, not fp32"
    N, K = weight_NK.shape
    if N % _ROWS or K % _INPUTS:
        return f"{N} x {K} is not a multiple of {_ROWS} x {_INPUTS}, which sparse kernels need"
    return None


def _complete(buckets: tuple[Shape, ...], draft: DraftArtefact) -> None:
    """Write the plan beside the graph."""
    write_plan(draft.folder, plan_for(draft, buckets))
