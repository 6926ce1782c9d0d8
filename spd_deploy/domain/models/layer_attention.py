"""The attention of layers, where layers differ: rotary positions, and windows."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerAttention:
    """Rotary positions (Su et al. 2021), and how far a token sees.

    Queries and keys are rotated by angles that grow with the position. The features d and d + D / 2
    of a head of width D rotate together, by the angle ``position / theta ** (2 d / D)``.

    Attributes:
        theta: base of the angles.
        window: the largest distance of a token that is seen; None for the whole text.
    """

    theta: float
    window: int | None = None

    def frequencies(self, head_size: int) -> tuple[float, ...]:
        """The angle of position 1 for each pair of features, ``[D / 2]``."""
        return tuple(
            1.0 / self.theta ** (feature / head_size) for feature in range(0, head_size, 2)
        )
