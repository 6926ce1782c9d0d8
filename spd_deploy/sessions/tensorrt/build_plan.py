"""``build.json``: the plan by which an engine is built from an artefact's ONNX file.

``spd export --format trt`` writes it, the manifest holds its hash, and ``spd build`` reads it. It
depends neither on a GPU nor on a version of TensorRT. The result of a build is in ``engine.json``
(``sessions.tensorrt.engine_record``).
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
from spd_deploy.domain.shapes import Shape

PLAN_FILE = "build.json"
# 1: the first. 2: of a matrix ``onnx_node``, ``precision`` and ``reason`` were ``product``,
# ``typed`` and ``why``; ``largest_fp16_activation`` was ``largest_half``.
SCHEMA = 2

_AGAIN = "export it again"

TrtPrecision = Literal["fp32", "fp16", "int8"]
# The GPUs that may load an engine: TensorRT's hardware compatibility level.
HardwareCompatibility = Literal["same_gpu", "same_compute_capability", "ampere_plus"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a build, which ``spd build`` may override.

    Attributes:
        workspace_bytes: most scratch memory of a layer; None allows all of the GPU's memory.
        version_compatible: whether later versions of TensorRT can load it, at some cost in speed.
        hardware: the GPUs that can load it; all but ``same_gpu`` cost some speed.
        strict_nans: whether zero times NaN or infinity must be NaN, as in a dense product. The
            sparse builds and the dense builds that they are compared with share it.
    """

    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware: HardwareCompatibility = "same_gpu"
    strict_nans: bool = False

    def __post_init__(self) -> None:
        """Refuse a workspace of less than a byte."""
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise BadArtefact(
                "the workspace has no memory",
                got=f"{self.workspace_bytes} bytes",
                fix="leave it out to allow all of the GPU's memory",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedMatrix:
    """One encoder matrix, and whether a sparse tactic may run it.

    Attributes:
        onnx_node: the node of the graph that multiplies by it; empty where nothing is left of it.
        two_of_four: whether at most 2 of every 4 inputs of a stored row are non-zero.
        precision: in which the graph multiplies it.
        eligible: whether TensorRT may choose a sparse tactic for it.
        reason: why it is eligible or not, as a sentence.
    """

    name: str
    shape: tuple[int, int]
    onnx_node: str
    two_of_four: bool
    precision: TrtPrecision
    eligible: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPlan:
    """The content of ``build.json``.

    Attributes:
        buckets: the shapes, one optimization profile each (``sessions.tensorrt.shape_buckets``).
        precision: precision of the products in the graph.
        sparse_weights: whether to set SPARSE_WEIGHTS: true where a matrix is eligible.
        largest_fp16_activation: on the golden inputs, where fp16 ends at 65504; 0 where no
            activation is fp16.
        masks_sha256: hash of the positions of the matrices' zeros (:func:`sha256_of_masks`).
        options: defaults of ``spd build``.
    """

    buckets: tuple[Shape, ...]
    precision: TrtPrecision
    sparse_weights: bool
    masks_sha256: str
    largest_fp16_activation: float
    matrices: tuple[PlannedMatrix, ...]
    options: Options

    def __post_init__(self) -> None:
        """Refuse a plan without shapes, and ``sparse_weights`` that contradict the matrices."""
        if not self.buckets:
            raise BadArtefact("the build plan has no shapes", fix=_AGAIN)
        if self.sparse_weights != any(matrix.eligible for matrix in self.matrices):
            raise BadArtefact(
                "the build plan's sparse_weights contradicts its matrices", fix=_AGAIN
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
    """Write ``build.json`` into an artefact that is being exported."""
    write_text(folder / PLAN_FILE, text_of(plan.to_json()))


def read_plan(folder: Path) -> BuildPlan:
    """Read ``build.json``.

    Raises:
        BadArtefact: it is missing, damaged or of another version.
    """
    value = read_json(folder / PLAN_FILE, error=BadArtefact, fix=_AGAIN)
    return BuildPlan.from_json(value)


def sha256_of_masks(matrices: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """A hash of the positions of the matrices' zeros: name, shape, and one bit a weight.

    Two exports have the same hash exactly if every matrix has its zeros at the same positions. The
    values and the precision of the other weights do not matter.
    """
    digest = hashlib.sha256()
    for name, weight_NK in matrices:
        digest.update(f"{name} {'x'.join(map(str, weight_NK.shape))}\n".encode())
        digest.update(np.packbits(weight_NK != 0).tobytes())
    return digest.hexdigest()
