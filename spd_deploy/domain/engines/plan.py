"""``build.json``: how an engine is to be built from an artefact's ONNX file, on any GPU machine.

It is written by ``spd export --format trt``, hashed in the manifest, and read by ``spd build``.
Nothing in it depends on a GPU or on a version of TensorRT; what those make of it,
``engine.json`` tells afterwards (``domain.engines.record``).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.documents import text_of, versioned
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.files import read_json, write_text
from spd_deploy.domain.measured import Shape

PLAN_FILE = "build.json"
SCHEMA = 1

# For pydantic, which reads it: a field that no version wrote is damage, and so is NaN.
_AGAIN = "export it again"

Typed = Literal["fp32", "fp16", "int8"]
# Which GPUs besides the one it was built on may load an engine.
Hardware = Literal["same_gpu", "same_compute_capability", "ampere_plus"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What of a build is a choice.

    Attributes:
        workspace_bytes: most scratch memory of one layer; None for all that the GPU has.
        version_compatible: whether later versions of TensorRT are to load it, at some cost.
        hardware: which GPUs are to load it; every other one than ``same_gpu`` has its cost.
        strict_nans: whether NaN and infinity must pass through zeros as in a dense product. A
            sparse build and the dense one that it is compared with have it alike.
    """

    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware: Hardware = "same_gpu"
    strict_nans: bool = False

    def __post_init__(self) -> None:
        """Refuse no memory at all."""
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise BadArtefact(
                "a workspace without memory", got=self.workspace_bytes, fix="leave it out for all"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One encoder matrix: what can be known of its sparse kernel before there is an engine.

    Attributes:
        product: the ONNX node that multiplies by it; empty where nothing is left to multiply.
        two_of_four: whether at most 2 of every 4 inputs of a row are kept in what is stored.
        typed: in what precision the graph multiplies it.
        eligible: whether a sparse kernel may be taken for it.
        why: the reason for that, in words.
    """

    name: str
    shape: tuple[int, int]
    product: str
    two_of_four: bool
    typed: Typed
    eligible: bool
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPlan:
    """What ``build.json`` says.

    Attributes:
        buckets: the shapes, each a profile of its own (``domain.engines.buckets``).
        precision: of the products in the graph.
        sparse_weights: whether sparse kernels may be taken: where some matrix is eligible.
        largest_half: the largest fp16 value between operators on the golden inputs, of the 65504
            that fp16 has; 0 where none is fp16.
        masks_sha256: of where the matrices' zeros are (:func:`sha256_of_masks`).
        options: as ``spd build`` takes them where it is told nothing else.
    """

    buckets: tuple[Shape, ...]
    precision: Typed
    sparse_weights: bool
    masks_sha256: str
    largest_half: float
    matrices: tuple[Planned, ...]
    options: Options

    def __post_init__(self) -> None:
        """Refuse a plan of no shape, and sparse kernels that no matrix is eligible for."""
        if not self.buckets:
            raise BadArtefact("a build plan without shapes", fix=_AGAIN)
        if self.sparse_weights != any(matrix.eligible for matrix in self.matrices):
            raise BadArtefact(
                "a build plan whose sparse_weights is not what its matrices say", fix=_AGAIN
            )

    def to_json(self) -> dict[str, Any]:
        """The content of ``build.json``."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadArtefact: another schema, or a field that is missing, unknown or of the wrong kind.
        """
        other = f"export it again with this version, which reads schema {SCHEMA}"
        return versioned(
            cls, value, SCHEMA, what=PLAN_FILE, error=BadArtefact, fix=_AGAIN, other=other
        )


def write_plan(folder: Path, plan: BuildPlan) -> None:
    """Write ``build.json``."""
    write_text(folder / PLAN_FILE, text_of(plan.to_json()))


def read_plan(folder: Path) -> BuildPlan:
    """Read ``build.json``.

    Raises:
        BadArtefact: it is missing, damaged or of another version.
    """
    value = read_json(folder / PLAN_FILE, error=BadArtefact, fix=_AGAIN)
    return BuildPlan.from_json(value)


def sha256_of_masks(matrices: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """A hash of where matrices' zeros are: each one's name, shape, and a bit a weight, row by row.

    Two exports have the same exactly if every matrix has its zeros at the same places, whatever the
    other weights are and in whatever precision they are stored.
    """
    digest = hashlib.sha256()
    for name, weight_NK in matrices:
        digest.update(f"{name} {'x'.join(map(str, weight_NK.shape))}\n".encode())
        digest.update(np.packbits(weight_NK != 0).tobytes())
    return digest.hexdigest()
