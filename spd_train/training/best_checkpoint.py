"""The best checkpoint of a training, chosen on rows that were held out from train.

Its parameters lie beside the state in a safetensors file of their own, whose header says of which
step they are and what they scored. A resumed run finds them there; since it repeats what it did
before, it comes to the same choice.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import not_written, replacing

BEST_FILE = "best.safetensors"


def worth(scores: Mapping[str, float] | None, metrics: Sequence[str]) -> float | None:
    """What a checkpoint is chosen by: the mean of the task's metrics, as GLUE averages them.

    F1 alone would choose a model that nearly always says yes; F1 with accuracy does not.
    """
    return fmean(scores[name] for name in metrics) if scores else None


class BestCheckpoint:
    """Keeps the parameters that scored best so far."""

    def __init__(self, folder: Path, *, fingerprint: str, begun: bool) -> None:
        """Continue the choice in ``folder``, or begin anew where the training was not ``begun``."""
        self.file = folder / BEST_FILE
        self.fingerprint = fingerprint
        if not begun:
            self.file.unlink(missing_ok=True)

    def offer(self, step: int, value: float | None, parameters: Mapping[str, Tensor]) -> bool:
        """Keep the parameters as of after ``step`` if none scored higher; says whether it did.

        A score that is undefined is never kept. Of equal scores the later one is.
        """
        before = self._header()
        if value is None or not math.isfinite(value):
            return False
        if before is not None and value < float(before["value"]):
            return False
        tensors = {n: p.detach().cpu().contiguous() for n, p in parameters.items()}
        header = {"step": str(step), "value": repr(value), "fingerprint": self.fingerprint}
        with replacing(self.file) as draft:
            try:
                save_file(tensors, draft, metadata=header)
            except Exception as err:  # safetensors wraps the system's errors in its own
                raise not_written(self.file, err) from err
        return True

    def take(self, parameters: Mapping[str, nn.Parameter]) -> int | None:
        """Put the best parameters in place; returns their step, None where none was ever kept."""
        header = self._header()
        if header is None:
            return None
        with safe_open(self.file, framework="pt") as stored, torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored.get_tensor(name))
        return int(header["step"])

    def _header(self) -> dict[str, str] | None:
        """What is known of the best so far."""
        if not self.file.exists():
            return None
        try:
            with safe_open(self.file, framework="pt") as stored:
                header: dict[str, str] = stored.metadata() or {}
        except (OSError, SafetensorError) as err:
            raise BadCheckpoint(
                f"{self.file} is damaged", got=err, fix="remove the folder and train again"
            ) from err
        if header.get("fingerprint") != self.fingerprint:
            raise BadCheckpoint(
                f"{self.file} belongs to a run with other settings or data",
                fix="use the same command as before, or another --output",
            )
        return header
