"""A reference to a model to a folder of this machine, which everything else reads."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.origin import Origin
from spd_deploy.hub.address import BareNames, HubAddress, UrlAddress, address_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedModel:
    """A model that is in a folder here.

    Attributes:
        folder: the folder as it was named, or that of a copy.
        name: what the model is called: the last part of its address or path.
        origin: where the copy is from; None for a folder that was named.
    """

    folder: Path
    name: str
    origin: Origin | None = None


def fetch_model(
    reference: str | os.PathLike[str],
    revision: str | None = None,
    *,
    names: BareNames = "none",
    note: Callable[[str], None] = _log.warning,
) -> FetchedModel:
    """The folder of a model, copied once if it is not on this machine.

    A copy appears whole or not at all. If the hub or the URL does not answer, an earlier copy is
    used and ``note`` gets a line.

    Args:
        reference: a folder, or an address as in ``spd_deploy.hub.address``.
        revision: branch, tag or commit of a model of the hub.
        names: which bare names are looked for on the hub.
        note: gets what the user should know of a copy.

    Raises:
        BadSetting: an address that is not well formed, or a revision where there are none.
        BadModel: there is no model, or no right to read it.
        BadArtefact: a copy is not what its manifest says.
        Unavailable: no answer and no copy, or a library is not installed.
    """
    address = address_of(reference, revision, names=names)
    if isinstance(address, HubAddress):
        from spd_deploy.hub.snapshot import fetch_from_hub

        spelled = os.fspath(reference)
        # A path of pathlib has one slash less than the address that was typed.
        shown = str(address) if ":" in spelled else spelled
        folder, origin = fetch_from_hub(address, shown, note)
        return FetchedModel(folder=folder, name=address.name, origin=origin)
    if isinstance(address, UrlAddress):
        from spd_deploy.hub.url_copy import fetch_from_url

        folder, origin = fetch_from_url(address, note)
        return FetchedModel(folder=folder, name=address.name, origin=origin)
    return FetchedModel(folder=Path(reference), name=Path(reference).resolve().name)
