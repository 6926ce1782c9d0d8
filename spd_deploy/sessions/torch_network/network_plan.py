"""``network.json``: how the tensors of a torch artefact form a network.

It lists each matrix with its kind of product and its remaining size. It also has the facts that
shapes do not tell: the activation, epsilon, the number of token types, and the layers of the head.
Tensors keep the checkpoint's names. ``NAME.weight`` is ``[N, K]`` for a dense or 2:4 matrix. For a
block-sparse matrix it is the values ``[G, R, J]``, and ``NAME.index`` the kept blocks ``[G, U]``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.files import read_json, write_json
from spd_deploy.domain.model_config import Activation
from spd_deploy.domain.models.architecture import Role
from spd_deploy.domain.number_types import FloatType

PLAN_FILE = "network.json"
TENSORS_FILE = "model.safetensors"
# 1: the first. 2: ``precision`` was ``number``.
SCHEMA = 2

MatrixKind = Literal["dense", "blocks", "2:4"]
HeadActivation = Literal["tanh", "relu", "gelu", "none"]

_AGAIN = "export it again with this version"


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixPlan:
    """One matrix: its remaining ``outputs`` and ``inputs``; ``columns`` is a block's width."""

    name: str
    layer: int
    role: Role
    kind: MatrixKind
    outputs: int
    inputs: int
    columns: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadPlan:
    """One linear layer of the classifier's head, and the activation and the norm after it."""

    name: str
    activation: HeadActivation
    norm: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlan:
    """A whole classifier; ``token_types`` is 0 where it has no table of token types."""

    precision: FloatType
    activation: Activation
    epsilon: float
    token_types: int
    projected: bool
    matrices: tuple[MatrixPlan, ...]
    head: tuple[HeadPlan, ...]

    @property
    def feature_major(self) -> bool:
        """Whether activations are feature-major, which a single block-sparse matrix requires."""
        return any(matrix.kind == "blocks" for matrix in self.matrices)

    def of_layer(self, layer: int) -> dict[Role, MatrixPlan]:
        """The matrices of a layer by their role."""
        return {matrix.role: matrix for matrix in self.matrices if matrix.layer == layer}

    def to_json(self) -> dict[str, Any]:
        """The content of ``network.json``."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadArtefact: another schema, or a field that is missing, unknown or of the wrong kind.
        """
        return versioned(cls, value, SCHEMA, what=PLAN_FILE, error=BadArtefact, fix=_AGAIN)


def write_plan(folder: Path, plan: NetworkPlan) -> None:
    """Write ``network.json`` into a folder."""
    write_json(folder / PLAN_FILE, plan.to_json())


def read_plan(folder: Path) -> NetworkPlan:
    """Read ``network.json`` of a folder.

    Raises:
        BadArtefact: it is missing or damaged.
    """
    return NetworkPlan.from_json(read_json(folder / PLAN_FILE, error=BadArtefact, fix=_AGAIN))
