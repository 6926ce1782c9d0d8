"""A torch artefact's tensors by name; a missing or misshapen one is a ``BadArtefact``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.errors import BadArtefact

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "export it again"


class Tensors:
    """The tensors by name, on the device where the network runs."""

    def __init__(self, found: Mapping[str, "Tensor"]) -> None:
        self._found = found

    def get(self, name: str, *shape: int) -> "Tensor":
        """The tensor of this name, checked to have ``shape`` if one is given.

        Raises:
            BadArtefact: it is missing or has another shape.
        """
        tensor = self._found.get(name)
        if tensor is None or (shape and tuple(tensor.shape) != shape):
            raise BadArtefact(
                f"the artefact has no tensor {name}" + (f" of shape {shape}" if shape else ""),
                got="none" if tensor is None else f"shape {tuple(tensor.shape)}",
                fix=_AGAIN,
            )
        return tensor


def read_tensors(file: Path, device: str) -> Tensors:
    """Load a safetensors file onto a device.

    Raises:
        BadArtefact: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return Tensors(load_file(file, device=device))
    except (OSError, SafetensorError) as err:
        raise BadArtefact(f"{file} is damaged", got=err, fix=_AGAIN) from err
