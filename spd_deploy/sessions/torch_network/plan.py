"""``network.json``: how a torch artefact's tensors make a network.

It names each matrix with the way it is run and what is left of it, and what shapes alone do not
tell: the activation, epsilon, the kinds of tokens, and the layers of the head. The tensors keep the
checkpoint's names: ``NAME.weight`` is ``[N, K]`` of a dense or 2:4 matrix and the values
``[G, R, J]`` of a block-sparse one, which also has ``NAME.index``, the blocks ``[G, U]`` it kept.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.files import read_json, write_json
from spd_deploy.domain.layers import Role
from spd_deploy.domain.model_config import Activation

PLAN_FILE = "network.json"
TENSORS_FILE = "model.safetensors"
SCHEMA = 1

Kind = Literal["dense", "blocks", "2:4"]
HeadActivation = Literal["tanh", "relu", "gelu", "none"]

_AGAIN = "export it again with this version"


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixPlan:
    """One matrix: ``outputs`` by ``inputs`` are left of it; ``columns`` is a block's width."""

    name: str
    layer: int
    role: Role
    kind: Kind
    outputs: int
    inputs: int
    columns: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadPlan:
    """One linear layer of the classifier's head, and the activation after it."""

    name: str
    activation: HeadActivation


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlan:
    """A whole classifier; ``token_types`` is 0 where it has no table of them."""

    number: Literal["fp32", "fp16", "bf16"]
    activation: Activation
    epsilon: float
    token_types: int
    projected: bool
    matrices: tuple[MatrixPlan, ...]
    head: tuple[HeadPlan, ...]

    @property
    def feature_major(self) -> bool:
        """Whether activations lie feature-major: one block-sparse matrix decides for all."""
        return any(matrix.kind == "blocks" for matrix in self.matrices)

    def of_layer(self, layer: int) -> dict[Role, MatrixPlan]:
        """The matrices of a layer."""
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
    """Read it from there.

    Raises:
        BadArtefact: it is missing or damaged.
    """
    return NetworkPlan.from_json(read_json(folder / PLAN_FILE, error=BadArtefact, fix=_AGAIN))
