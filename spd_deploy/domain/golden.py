"""Golden inputs of an artefact, with the logits that a session must give for them to be trusted.

What rounds little must give the checkpoint's own. A quantised graph goes its own way, on random
inputs far: it must give what itself gave when it was exported, whatever runtime it is in. Its
logits are those of each row alone, since a dynamic range is of the whole batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import BadArtefact, SpdError
from spd_deploy.domain.text import IDS, MASK, TYPES, Batch

GOLDEN_FILE = "golden.safetensors"
_OWN = "logits:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """Fixed inputs with the logits ``[B, C]`` that the checkpoint gave for them.

    Attributes:
        own_BC: the logits of graphs that are not held to the checkpoint's, by the graph's file.
    """

    batch: Batch
    logits_BC: NDArray[np.float32]
    own_BC: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def write_golden(file: Path, golden: Golden) -> None:
    """Save the self-test's inputs and logits as safetensors."""
    from safetensors.numpy import save_file

    save_file(
        {
            **golden.batch.named(),
            "logits": golden.logits_BC,
            **{f"{_OWN}{name}": logits_BC for name, logits_BC in golden.own_BC.items()},
        },
        file,
    )


def read_golden(file: Path) -> Golden:
    """Read what :func:`write_golden` wrote.

    Raises:
        BadArtefact: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
        batch = Batch(ids_BS=arrays[IDS], mask_BS=arrays[MASK], types_BS=arrays[TYPES])
        own_BC = {k.removeprefix(_OWN): v for k, v in arrays.items() if k.startswith(_OWN)}
        return Golden(batch=batch, logits_BC=arrays["logits"], own_BC=own_BC)
    except (OSError, KeyError, SafetensorError, SpdError) as err:
        raise BadArtefact(f"{file} is damaged", got=repr(err), fix="export it again") from err
