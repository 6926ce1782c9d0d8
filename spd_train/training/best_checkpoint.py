"""The best checkpoint of a training, chosen on the validation rows, which are taken from train.

Its parameters are in a safetensors file beside the saved state. The header of the file holds their
step and their score. A resumed run continues from that file and makes the same choice as a run
that was never stopped.
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


def selection_score(scores: Mapping[str, float] | None, metrics: Sequence[str]) -> float | None:
    """The mean of the task's metrics, by which the best checkpoint is chosen; None without scores.

    GLUE averages a task's metrics in the same way. F1 alone would choose a model that predicts the
    positive class for nearly every row; F1 and accuracy together do not.
    """
    return fmean(scores[name] for name in metrics) if scores else None


class BestCheckpoint:
    """Stores the parameters with the highest score so far in ``best.safetensors``."""

    def __init__(self, folder: Path, *, fingerprint: str, begun: bool) -> None:
        """Continue the choice in ``folder``; remove its file if the training has not ``begun``."""
        self.file = folder / BEST_FILE
        self.fingerprint = fingerprint
        if not begun:
            self.file.unlink(missing_ok=True)

    def offer(self, step: int, value: float | None, parameters: Mapping[str, Tensor]) -> bool:
        """Store the parameters if their score is the highest so far. Returns whether it did.

        Args:
            step: number of steps after which the model has these parameters.
            value: their score. None and NaN are never stored. Of equal scores the later is stored.
            parameters: the trained parameters by name.
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

    def load(self, parameters: Mapping[str, nn.Parameter]) -> int | None:
        """Copy the stored values into ``parameters``. Returns their step, None if none is stored.

        Raises:
            BadCheckpoint: the file is damaged or belongs to another run.
        """
        header = self._header()
        if header is None:
            return None
        with safe_open(self.file, framework="pt") as stored, torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored.get_tensor(name))
        return int(header["step"])

    def _header(self) -> dict[str, str] | None:
        """The header of the file, or None if there is no file."""
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
