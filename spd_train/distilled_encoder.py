"""``distil.json``: what a sparse pretrained encoder is, and that its run is finished."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.documents import refuse_schema
from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import read_json, write_json
from spd_deploy.domain.folders import DISTIL_FILE
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.patterns import Pattern, parse_pattern
from spd_deploy.domain.versions import versions_of

_SCHEMA = 1
_FIX = "distil again into another --output"


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilledEncoder:
    """A sparse encoder without a head.

    Attributes:
        folder: a Hugging Face folder that ``AutoModel`` loads.
        pattern: pattern and sparsity of its matrices.
        density: share of non-zeros over all prunable matrices.
        explained_variance: share of the dense encoder's hidden variance that it explains, the mean
            over the layers, on texts that it was not trained on.
        texts: number of texts that it was trained on.
        held_out: number of texts that it was scored on; 0 if those were texts of the training.
        recipe: how it was trained.
        pretrained: SHA-256 of the dense encoder.
        origin: where that was read, if not from a folder that was named.
    """

    folder: Path
    pattern: Pattern
    density: float
    explained_variance: float
    texts: int
    held_out: int
    recipe: Mapping[str, Any] = field(repr=False)
    pretrained: str | None = None
    origin: Origin | None = None

    @property
    def sentence(self) -> str:
        """How close it is to the dense encoder, as a sentence for the user."""
        seen = f"{self.held_out} texts that it was not trained on"
        where = seen if self.held_out else "texts that it was trained on"
        return (
            f"explains {100 * self.explained_variance:.1f} % of the dense encoder's hidden "
            f"variance on {where}"
        )

    def to_json(self) -> dict[str, Any]:
        """All but the folder, as JSON values."""
        return {
            "schema": _SCHEMA,
            "pattern": str(self.pattern),
            "sparsity": self.pattern.sparsity,
            "density": self.density,
            "explained_variance": self.explained_variance,
            "texts": self.texts,
            "held_out": self.held_out,
            "recipe": dict(self.recipe),
            "pretrained": self.pretrained,
            "origin": None if self.origin is None else self.origin.to_json(),
            "versions": versions_of("torch", "transformers", "tokenizers"),
        }

    def save(self) -> None:
        """Write ``distil.json``, which marks the run as finished."""
        write_json(self.folder / DISTIL_FILE, self.to_json())


def open_distilled(folder: Path) -> DistilledEncoder:
    """The encoder that a finished run left in ``folder``.

    Raises:
        BadCheckpoint: ``distil.json`` is damaged, or of another version.
    """
    file = folder / DISTIL_FILE
    value = read_json(file, error=BadCheckpoint, fix=_FIX)
    refuse_schema(value, _SCHEMA, what=file, error=BadCheckpoint, fix=_FIX)
    try:
        return DistilledEncoder(
            folder=folder,
            pattern=parse_pattern(value["pattern"], value["sparsity"]),
            density=float(value["density"]),
            explained_variance=float(value["explained_variance"]),
            texts=int(value["texts"]),
            held_out=int(value["held_out"]),
            recipe=value["recipe"],
            pretrained=value["pretrained"],
            origin=Origin.from_json(found) if (found := value.get("origin")) else None,
        )
    except (KeyError, TypeError, ValueError) as err:
        raise BadCheckpoint(f"{file} is damaged", got=repr(err), fix=_FIX) from err
