"""Which rows a model was trained on: enough to know them again, without keeping a text.

The record travels with the task inside checkpoints and artefacts, so that whoever scores a model
later measures on the dev rows, and reports which rows were trained on.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

# The smallest so many hashes of the rows are kept (bottom-k sampling; Cohen and Kelly, 2007). Of
# any other set, the share below the largest of them that is among them estimates how many of its
# rows were trained on; it is exact where no more rows than these were.
_KEPT = 512
_HASH_BYTES = 8
_DIGITS = 2 * _HASH_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRows:
    """A record of training rows.

    Attributes:
        sha256: of all labelled rows of the training file in their order, dev rows included.
        held_out: share of them that was set apart to measure on; 0 where there was a dev file.
        hashes: the smallest hashes of the texts that were trained on, in hexadecimal digits.
    """

    sha256: str
    held_out: float
    hashes: str

    def __post_init__(self) -> None:
        """Refuse what no training wrote.

        Raises:
            ValueError: a share that is none, or hashes that are none.
        """
        if not 0 <= self.held_out < 1 or len(self.hashes) % _DIGITS:
            raise ValueError("not a record of training rows")

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str | None]], *, sha256: str, held_out: float) -> Self:
        """The record of the texts (with a second one, or None) that are trained on."""
        smallest = sorted({_hash(*text) for text in texts})[:_KEPT]
        return cls(sha256=sha256, held_out=held_out, hashes="".join(smallest))

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self | None:
        """The record in a JSON object; None where there is none, as in older checkpoints.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return None if value is None else cls(**value)

    def seen(self, texts: Collection[tuple[str, str | None]]) -> int:
        """About how many of the texts were trained on; exact for small training sets."""
        starts = range(0, len(self.hashes), _DIGITS)
        known = {self.hashes[i : i + _DIGITS] for i in starts}
        if not known:
            return 0
        found = [_hash(*text) for text in texts]
        if len(known) < _KEPT:
            return sum(h in known for h in found)
        comparable = [h for h in found if h <= max(known)]
        share = sum(h in known for h in comparable) / max(1, len(comparable))
        return round(share * len(found))


def _hash(text: str, pair: str | None) -> str:
    """A short hash of one text or pair; spaces around it are no difference."""
    value = json.dumps([text.strip(), None if pair is None else pair.strip()])
    return hashlib.blake2b(value.encode(), digest_size=_HASH_BYTES).hexdigest()
