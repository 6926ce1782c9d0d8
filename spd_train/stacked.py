"""State dicts of models of which Transformers stores several matrices as one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spd_deploy.domain.models.known import ARCHITECTURES, BASE_OF
from spd_deploy.domain.tensor_names import parts_of


def apart(state: Mapping[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """The state with a tensor for each matrix, from one as Transformers has it."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        names = parts_of(name, model_type)
        found |= dict(zip(names, value.chunk(len(names)), strict=True))
    return found


def stacked(state: Mapping[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """The inverse of :func:`apart`: the state as Transformers has it."""
    known = ARCHITECTURES.get(BASE_OF.get(model_type, ""))
    found = dict(state)
    for module, parts in ({} if known is None else known.stacked).items():
        for name in [n for n in found if f".{parts[0]}." in n]:
            names = [name.replace(f".{parts[0]}.", f".{part}.") for part in parts]
            together = torch.cat([found.pop(part) for part in names])
            found[name.replace(f".{parts[0]}.", f".{module}.")] = together
    return found
