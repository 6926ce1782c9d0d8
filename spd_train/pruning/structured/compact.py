"""Students that compute only the heads and neurons that are left, so that steps get faster.

Only the rows and columns that the masks keep take part in a pass. The result is that of the masked
matrices.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from spd_train.grafting import GraftedNetwork
from spd_train.student_linear import StudentLinear


class CompactStudents:
    """The students of a network, made compact by their masks."""

    def __init__(self, network: GraftedNetwork) -> None:
        """Take the students' matrices; nothing is removed yet."""
        self.encoder = network.encoder
        self.masks: Mapping[str, Tensor] = {}
        self._linears = network.student_linears()

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Compute from now on what the masks keep.

        Of a layer without heads one head is computed, since attention needs one. Its matrices are
        zero.
        """
        self.masks = masks
        for *producers, reader in self.encoder.coupled():
            if reader.name not in masks:
                for matrix in (*producers, reader):
                    self._linears[matrix.name].rows = self._linears[matrix.name].columns = None
                continue
            kept = masks[reader.name].any(0).nonzero()[:, 0]
            width = self.encoder.unit_width(reader.role)
            if not len(kept):
                kept = torch.arange(width, device=kept.device)
            for matrix in producers:
                self._linears[matrix.name].rows = kept
            self._linears[reader.name].columns = kept


@contextlib.contextmanager
def computing_all(network: nn.Module) -> Iterator[None]:
    """Compute everything inside the block, so that inputs and outputs have their full width."""
    compact = [m for m in network.modules() if isinstance(m, StudentLinear)]
    try:
        for module in compact:
            module.whole = True
        yield
    finally:
        for module in compact:
            module.whole = False
