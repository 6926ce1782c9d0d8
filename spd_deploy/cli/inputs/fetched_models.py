"""The models that options name, as folders of this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.origin import Origin
from spd_deploy.hub.address import BareNames
from spd_deploy.hub.fetch import fetch_model

# The options that name models, and which bare names of the hub each takes.
_ROLES: Mapping[str, BareNames] = {"model": "any", "teacher": "owned"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedOptions:
    """Options whose models are in folders here.

    Attributes:
        options: the options, with folders.
        pinned: the same, with addresses that name the same files when the run is resumed.
        origins: where models were read, by option.
    """

    options: Mapping[str, Any]
    pinned: Mapping[str, Any]
    origins: Mapping[str, Origin]


def with_fetched_models(options: Mapping[str, Any], note: Callable[[str], None]) -> FetchedOptions:
    """Fetch ``--model`` at ``--revision`` and ``--teacher``, where they are no folders here.

    Args:
        options: the options of ``spd train`` or ``spd distil``.
        note: gets what the user should know of a copy.

    Raises:
        SpdError: as :func:`spd_deploy.hub.fetch.fetch_model`.
    """
    local, pinned = dict(options), {**options, "revision": None}
    origins = {}
    for role, names in _ROLES.items():
        if (reference := options.get(role)) is None:
            continue
        revision = options["revision"] if role == "model" else None
        found = fetch_model(reference, revision, names=names, note=note)
        if found.origin is not None:
            local[role], pinned[role] = str(found.folder), found.origin.pinned
            if found.origin.commit is None:  # a URL keeps its query, which an origin has not
                pinned[role] = reference
            origins[role] = found.origin
    return FetchedOptions(options=local, pinned=pinned, origins=origins)
