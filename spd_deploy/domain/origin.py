"""Where a model was read from, if that was not a folder of this machine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

_HUB = "hf://"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The address of a model, and what was read there.

    Attributes:
        address: ``hf://OWNER/NAME``, or a URL without its password and its query.
        revision: the branch, tag or commit that was named on the hub; None for its main branch.
        commit: the commit of the hub that was read; None for a URL.
        license: what the model's own README.md says; None where it says nothing.
    """

    address: str
    revision: str | None = None
    commit: str | None = None
    license: str | None = None

    @property
    def pinned(self) -> str:
        """The address that names the same files later: on the hub with the commit."""
        return self.address if self.commit is None else f"{self.address}@{self.commit}"

    @property
    def repository(self) -> str | None:
        """``OWNER/NAME`` on the hub; None for a URL."""
        on_hub = self.address.startswith(_HUB)
        return self.address.removeprefix(_HUB) if on_hub else None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**value)
