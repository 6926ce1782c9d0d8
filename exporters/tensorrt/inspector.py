"""What TensorRT's engine inspector says, as values: which kernel runs which layer, and on what.

The inspector gives JSON when an engine is built with detailed verbosity. Its form differs:

    10    ``Bindings`` are names; a tensor has one field ``Format/Datatype`` in words, such as
          ``Row major linear FP16 format`` or ``Half``.
    11    ``I/O Tensors`` are objects; format and type are fields of their own.

``Metadata`` names the ONNX nodes that a layer was made of. With several profiles each
layer comes once for each, all of the first before all of the second, and may say which in the end
of its name from the second on.
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
# What kernels that skip zeros are called; a flag of the layer's says no more than that it could.
_SPARSE = ("sparse", "sptensor", "spgemm")
# What kernels are called that multiply matrices and do nothing else of weight. What is compiled for
# one region alone begins with an underscore, and may multiply in whichever way.
_MULTIPLIES = re.compile(r"(?!_).*(gemm|gemv|xmma|cutlass|nvjet)", re.IGNORECASE)
# Regions that are compiled as one and do not tell what is inside.
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
        name: without the mark of its profile.
        profile: by that mark; 0 where there is none, which it may lack in others too.
        nodes: the ONNX nodes it was made of, where the inspector says.
        tactic: the kernel's name; None where it has none to tell.
        inputs: the types of what it reads, in order; None where it does not tell.
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
        """Whether its kernel is a sparse one, by its name."""
        return any(sign in (self.tactic or "").lower() for sign in _SPARSE)

    @property
    def multiplies(self) -> bool:
        """Whether its kernel is by its name a product's, so that it would say if it was sparse."""
        return _MULTIPLIES.match(self.tactic or "") is not None

    @property
    def products(self) -> int:
        """How many of the graph's products it was made of; 0 where it does not tell."""
        return sum(bool(_PRODUCT.search(node)) for node in self.nodes)

    @property
    def kernel_type(self) -> str | None:
        """In what its kernel multiplies, by its name; None where that does not tell."""
        found = _OPERANDS.search((self.tactic or "").lower())
        return _OPERAND[found["after"] or found["doubled"]] if found else None

    @property
    def opaque(self) -> bool:
        """Whether it is a fused region that hides its kernels."""
        return bool(_FOREIGN.search(self.name)) or (self.kind == "Myelin" and not self.tactic)

    def runs(self, node: str) -> bool:
        """Whether it was made of an ONNX node: as it says itself, else as its name does."""
        if self.nodes:
            return node in self.nodes
        spellings = (node, node.replace(".", "_"))
        return any(re.search(_NAMED.format(re.escape(one)), self.name) for one in spellings)


# A node's name in a layer's, whole: not the beginning or end of a longer one. A fused layer joins
# names with "+" or " + "; one that was compiled has a suffix, and "_" for "." in what it is of.
_NAMED = r"(?<![\w./]){}(?=$|_myl|[^\w./])"


def layers_in(text: str) -> tuple[Layer, ...]:
    """The layers of an inspector's document, in whichever form.

    Raises:
        EngineFailed: it is no such document, or has names alone.
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
    """The types of a layer's tensors."""
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict):
            yield type_in(_said(tensor))


def _said(tensor: Mapping[str, Any]) -> str:
    """Where a tensor's type stands: in a field of its own, else among the words of its format."""
    for field in ("DataType", "Datatype", "Format/Datatype", "Format"):
        if tensor.get(field):
            return str(tensor[field])
    return ""


def type_in(words: str) -> str | None:
    """The type that the inspector's words name, as this project spells it; None if none."""
    lowered = words.lower()
    return next((ours for ours, theirs in _TYPES if any(t in lowered for t in theirs)), None)


def _unreadable(why: str) -> EngineFailed:
    """The error for a document that tells nothing."""
    return EngineFailed(
        "TensorRT's inspector gave no layers", got=why, fix="please report this, with its version"
    )
