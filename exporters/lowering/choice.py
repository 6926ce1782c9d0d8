"""The lowering that was chosen for one matrix, with the reason that ``spd inspect`` shows."""

from dataclasses import dataclass

from exporters.lowering.lowering import Lowering
from spd_deploy.domain.shapes import Measured


@dataclass(frozen=True, kw_only=True, slots=True)
class LoweringChoice:
    """The lowering of one matrix.

    Attributes:
        lowering: how the matrix is stored and multiplied.
        reason: why this lowering was chosen, as a sentence for the reader of the manifest.
        measured: the times of this lowering and of the dense one; empty where none were taken.
    """

    lowering: Lowering
    reason: str
    measured: tuple[Measured, ...] = ()
