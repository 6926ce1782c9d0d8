"""How many heads and neurons each layer of an encoder keeps: a structured model's sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class Structures:
    """Heads and neurons that are kept, layer by layer; 0 removes a layer's whole sublayer.

    Attributes:
        heads: attention heads of each layer.
        neurons: neurons of each layer's feed-forward part.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse negative numbers, and layers that have one part only."""
        if len(self.heads) != len(self.neurons) or min(chain(self.heads, self.neurons)) < 0:
            raise BadSetting(
                "each layer needs a number of heads and a number of neurons, 0 or more",
                got=f"{list(self.heads)} heads and {list(self.neurons)} neurons",
                fix="give as many of both as the model has layers",
            )

    @classmethod
    def all_of(cls, encoder: Encoder) -> Self:
        """All heads and neurons of every layer, as the dense model has them."""
        return cls(
            heads=(encoder.heads,) * encoder.layers,
            neurons=(encoder.intermediate,) * encoder.layers,
        )

    def layers(self) -> Iterator[tuple[int, int]]:
        """Heads and neurons of each layer."""
        return zip(self.heads, self.neurons, strict=True)

    def __str__(self) -> str:
        """Both numbers of each layer, such as ``12h 1536n, 4h 320n``."""
        return ", ".join(f"{heads}h {neurons}n" for heads, neurons in self.layers())
