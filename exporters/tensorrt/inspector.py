"""Reads the document of TensorRT's engine inspector: the kernel and types of each layer.

The inspector gives JSON when an engine is built with detailed verbosity. Its form differs between
versions:

    10    ``Bindings`` are names; a tensor has one field ``Format/Datatype``, such as
          ``Row major linear FP16 format`` or ``Half``.
    11    ``I/O Tensors`` are objects; format and type are fields of their own.

``Metadata`` names the ONNX nodes that a layer was made of. With several profiles each layer is
listed once for each profile, all of the first before all of the second. From the second profile on,
the name of a layer may end with a mark of its profile.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import EngineFailed

_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PRODUCT = re.compile(r"(^|/)(MatMul|Gemm)(_\d+)?$")
_PROFILE = re.compile(r"\s*\[profile (\d+)\]$")
# Names of kernels that skip zeros contain one of these. A layer's own flag proves nothing.
_SPARSE = ("sparse", "sptensor", "spgemm")
# Names of kernels that mainly multiply matrices. The name of a kernel that was compiled for one
# fused region begins with an underscore; it may multiply in any way.
_MULTIPLIES = re.compile(r"(?!_).*(gemm|gemv|xmma|cutlass|nvjet)", re.IGNORECASE)
# Fused regions, which do not say what is inside.
_FOREIGN = re.compile(r"ForeignNode", re.IGNORECASE)
_OPERAND = {
    "bf16": "bf16",
    "f16": "fp16",
    "i8": "int8",
    "s8": "int8",
    "f32": "fp32",
    "e4m3": "fp8",
}
# The type of a product's first operand in a kernel's name: two types in one word, as in
# ``gemm_f16f16_f16f32_f32_tn``, or the word after the product, as in ``f32_i16832gemm_s8``. A type
# that stands alone elsewhere may be that of the result.
_ANY = "|".join(_OPERAND)
_OPERANDS = re.compile(
    rf"gemm_(?P<after>{_ANY})(?=_|$)|(?<![a-z0-9])(?P<doubled>{_ANY})(?:{_ANY}|i32)(?=_|$)"
)
_TYPES = (
    ("bf16", ("bf16", "bfloat16")),
    ("fp16", ("fp16", "half", "float16")),
    ("fp8", ("fp8",)),
    ("int8", ("int8",)),
    ("int64", ("int64",)),
    ("int32", ("int32",)),
    ("fp32", ("fp32", "float")),
    ("bool", ("bool",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer of an engine, in one profile.

    Attributes:
        name: the name without the mark of its profile.
        profile: the number in that mark; 0 without one, although a mark may be missing elsewhere.
        nodes: the ONNX nodes it was made of; empty where the inspector does not say.
        tactic: the kernel's name; None where the inspector names none.
        inputs: the types of its inputs, in order; None for a type that is not given.
        weights_sparse: whether the inspector calls its weights sparse, which proves nothing.
    """

    name: str
    profile: int
    kind: str
    nodes: tuple[str, ...]
    tactic: str | None
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    weights_sparse: bool

    @property
    def sparse(self) -> bool:
        """Whether the name of its kernel says that it is sparse."""
        return any(sign in (self.tactic or "").lower() for sign in _SPARSE)

    @property
    def multiplies(self) -> bool:
        """Whether its kernel's name is that of a product, which would say if it was sparse."""
        return _MULTIPLIES.match(self.tactic or "") is not None

    @property
    def products(self) -> int:
        """How many of the graph's products it was made of; 0 where that is unknown."""
        return sum(bool(_PRODUCT.search(node)) for node in self.nodes)

    @property
    def kernel_type(self) -> str | None:
        """The type that its kernel multiplies, by its name; None where the name does not say."""
        match = _OPERANDS.search((self.tactic or "").lower())
        return _OPERAND[match["after"] or match["doubled"]] if match else None

    @property
    def opaque(self) -> bool:
        """Whether it is a fused region that hides its kernels."""
        return bool(_FOREIGN.search(self.name)) or (self.kind == "Myelin" and not self.tactic)

    def runs(self, node: str) -> bool:
        """Whether it was made of an ONNX node, by its metadata, else by its name."""
        if self.nodes:
            return node in self.nodes
        spellings = (node, node.replace(".", "_"))
        return any(re.search(_NAMED.format(re.escape(one)), self.name) for one in spellings)


# A node's name in a layer's, whole: not the beginning or end of a longer one. A fused layer joins
# names with "+" or " + "; one that was compiled has a suffix, and "_" for "." in what it is of.
_NAMED = r"(?<![\w./]){}(?=$|_myl|[^\w./])"


def layers_in(text: str) -> tuple[Layer, ...]:
    """The layers of an inspector's document, in the form of any supported version.

    Raises:
        EngineFailed: the text is no such document, or has names of layers only.
    """
    try:
        value = json.loads(text)
        rows = value["Layers"]
    except (ValueError, KeyError, TypeError) as err:
        raise _unreadable(f"{type(err).__name__}: {err}") from err
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable("layers without details: the engine was built without them")
    return tuple(_layer(row) for row in rows)


def _layer(row: Mapping[str, Any]) -> Layer:
    """One row of the document."""
    name = str(row.get("Name", ""))
    marked = _PROFILE.search(name)
    tactic = row.get("TacticName")
    return Layer(
        name=_PROFILE.sub("", name),
        profile=int(marked[1]) if marked else 0,
        kind=str(row.get("LayerType", "")),
        nodes=tuple(_NODE.findall(str(row.get("Metadata", "")))),
        tactic=str(tactic) if tactic else None,
        inputs=tuple(_types(row.get("Inputs"))),
        outputs=tuple(_types(row.get("Outputs"))),
        weights_sparse=bool(row.get("HasSparseWeights", row.get("AllowSparse", 0))),
    )


def _types(tensors: Any) -> Iterator[str | None]:
    """The type of each of a layer's tensors; None for one that is not given."""
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict):
            yield type_named(_type_field(tensor))


def _type_field(tensor: Mapping[str, Any]) -> str:
    """The field that holds a tensor's type: its own, else the description of its format."""
    for field in ("DataType", "Datatype", "Format/Datatype", "Format"):
        if tensor.get(field):
            return str(tensor[field])
    return ""


def type_named(description: str) -> str | None:
    """The type in an inspector's description, in this project's spelling; None without one."""
    lowered = description.lower()
    return next((ours for ours, theirs in _TYPES if any(t in lowered for t in theirs)), None)


def _unreadable(why: str) -> EngineFailed:
    """The error for a document without layers."""
    return EngineFailed(
        "TensorRT's inspector gave no layers", got=why, fix="please report this, with its version"
    )
