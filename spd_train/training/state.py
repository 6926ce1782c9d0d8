"""The saved state of a training, from which a resumed run continues with the same bits.

It is one safetensors file, replaced atomically: the trained parameters, the moments of the
optimiser, and the extra tensors of the training (its masks). The header of the file holds the next
step and a fingerprint of the run. Random state is not saved, since all randomness is a function of
seed and step. Nothing is unpickled.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import not_written, replacing
from spd_train.state_dict import with_prefix

STATE_FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_state(
    file: Path,
    *,
    step: int,
    fingerprint: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor],
) -> None:
    """Write the state as it is before ``step``.

    Args:
        file: the file, which is replaced.
        step: the next step, from 0.
        fingerprint: hash of the run's settings.
        parameters: the trained parameters by name.
        optimizer: AdamW over these parameters.
        extra: further tensors of the training.

    Raises:
        NotWritten: the file cannot be written.
    """
    tensors = {f"parameter/{name}": value.detach().cpu() for name, value in parameters.items()}
    for name, parameter in parameters.items():
        for moment in _MOMENTS:
            if parameter in optimizer.state:
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].cpu()
    tensors |= {f"extra/{name}": value.cpu() for name, value in extra.items()}
    with replacing(file) as draft:
        try:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()},
                draft,
                metadata={"step": str(step), "fingerprint": fingerprint},
            )
        except Exception as err:  # safetensors wraps the system's errors in its own
            raise not_written(file, err) from err


def load_state(
    file: Path,
    *,
    fingerprint: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, dict[str, Tensor]]:
    """Load a saved state into the parameters and the optimiser.

    Returns:
        The next step, and the extra tensors.

    Raises:
        BadCheckpoint: the file is damaged or belongs to another run.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if header["fingerprint"] != fingerprint:
            raise BadCheckpoint(
                f"{file} belongs to a run with other settings or data",
                fix="use the same command as before, or another --output",
            )
        _fill(parameters, optimizer, tensors)
        return int(header["step"]), with_prefix("extra/", tensors)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as err:
        raise BadCheckpoint(
            f"{file} is damaged", got=repr(err), fix="remove the folder and train again"
        ) from err


def _fill(
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """Copy saved parameters and moments into the parameters and the optimiser."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            if f"step/{name}" in tensors:
                optimizer.state[parameter] = {
                    moment: _beside(parameter, moment, tensors[f"{moment}/{name}"])
                    for moment in _MOMENTS
                }


def _beside(parameter: nn.Parameter, moment: str, value: Tensor) -> Tensor:
    """A moment on the device of its parameter; AdamW keeps its step counter on the CPU."""
    return value if moment == "step" else value.to(parameter.device)
