"""Attribution of operators: the part of the model that an operator belongs to, by its name.

The exporter names every node after the scope it is made in, such as
``layer.0/attention/query/Conv``. ONNX Runtime fuses operators when it loads a graph and names the
result after one of them, with ``fused `` before it or the fusion's name behind; the scope survives
both. An operator without a scope of ours is counted as ``unattributed``.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from spd_deploy.domain.models.architecture import ROLES, Role
from spd_deploy.domain.models.known import ARCHITECTURES

Part = Literal[
    "products",
    "gather copies",
    "bias and residual",
    "attention",
    "normalisation",
    "activation",
    "embeddings and head",
    "unattributed",
]
PARTS: tuple[Part, ...] = get_args(Part)
# The parts that a matrix is made of.
OF_MATRIX: tuple[Part, ...] = PARTS[:3]

# Within a matrix's scope; what is neither is a pass over its result, for bias or residual.
_COPIES = frozenset({"Gather", "Reshape", "Transpose"})
_PRODUCTS = frozenset(
    {"Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Conv", "FusedConv"}
    | {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
)
_MATRIX = re.compile(rf"layer\.(\d+)/(?:attention|feed_forward)/({'|'.join(ROLES)})/")
# Where no head or no neuron is left, the bias of the second matrix is all that is left of both.
_LONE_BIAS = re.compile(r"layer\.(\d+)/(attention|feed_forward)/Add\b")
_IN_LAYER: tuple[tuple[re.Pattern[str], Part], ...] = (
    (re.compile(r"layer\.\d+/attention/product/"), "attention"),
    (re.compile(r"layer\.\d+/(?:attention|feed_forward)/norm/"), "normalisation"),
    (re.compile(r"layer\.\d+/feed_forward/\w+"), "activation"),
    # The last layer takes the first token of each row, which is the head's business.
    (re.compile(r"layer\.\d+/(?!attention/|feed_forward/)"), "embeddings and head"),
)
_AROUND = frozenset(
    {"embeddings", "mask", "axes", "rotary", "head"}
    | {
        layer.name.removeprefix(f"{base}.")
        for base, architecture in ARCHITECTURES.items()
        for layer in architecture.head
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution:
    """The part of the model an operator belongs to, and the matrix where it is one's."""

    part: Part
    matrix: tuple[int, Role] | None = None


def attribution_of(name: str, op: str) -> Attribution:
    """The part of an operator of this name and kind."""
    name = name.removeprefix("fused ")
    if found := _MATRIX.match(name):
        return Attribution(part=_part_of(op), matrix=(int(found[1]), cast("Role", found[2])))
    if found := _LONE_BIAS.match(name):
        role: Role = "attention_output" if found[2] == "attention" else "output"
        return Attribution(part="bias and residual", matrix=(int(found[1]), role))
    for pattern, part in _IN_LAYER:
        if pattern.match(name):
            return Attribution(part=part)
    scope, slash, _ = name.partition("/")
    around = slash and scope in _AROUND
    return Attribution(part="embeddings and head" if around else "unattributed")


def _part_of(op: str) -> Part:
    """The part of an operator within a matrix's scope."""
    if op in _PRODUCTS:
        return "products"
    return "gather copies" if op in _COPIES else "bias and residual"
