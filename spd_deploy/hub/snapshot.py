"""A model of the Hugging Face hub: its snapshot in the hub's own cache, under the model's name.

The cache is that of Transformers, so a model is fetched once for both.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from spd_deploy.domain.errors import BadModel, SpdError, Unavailable, first_line
from spd_deploy.domain.extras import require_modules
from spd_deploy.domain.files import cache_folder
from spd_deploy.domain.folders import CONFIG_FILE, did_you_mean
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.hub.address import HubAddress
from spd_deploy.hub.cache import new_folder
from spd_deploy.hub.licenses import license_in
from spd_deploy.hub.model_files import HUB_FILES
from spd_deploy.hub.reachable import bars_on_a_terminal, why_hub_is_unreachable

_SIGN_IN = "check the name; a private or gated model needs a token: hf auth login"


def fetch_from_hub(
    address: HubAddress, reference: str, note: Callable[[str], None]
) -> tuple[Path, Origin]:
    """The folder of a model of the hub, and what was read.

    Args:
        address: the model and its revision.
        reference: as the user named it, for errors.
        note: gets a line where the hub does not answer and its cache is used.

    Raises:
        BadModel: the hub has no such model or revision, or gives no right to read it.
        Unavailable: the hub does not answer and the model is not in its cache.
    """
    require_modules(f"reading {address}", "hub", "huggingface_hub")
    unreachable = why_hub_is_unreachable()
    snapshot = _snapshot(address, reference, unreachable)
    if unreachable is not None:
        why = f"the Hugging Face hub does not answer ({unreachable})"
        note(f"{why}: {address} is read from its cache")
    origin = Origin(
        address=address.url,
        revision=address.revision,
        commit=snapshot.name,
        license=license_in(snapshot),
    )
    return _under_its_name(snapshot, address), origin


def _snapshot(address: HubAddress, reference: str, unreachable: str | None) -> Path:
    """The folder of the snapshot, named by its commit."""
    from huggingface_hub import errors, snapshot_download

    try:
        with bars_on_a_terminal():
            folder = snapshot_download(
                address.repository,
                revision=address.revision,
                allow_patterns=[*HUB_FILES],
                ignore_patterns=["*/*"],
                local_files_only=unreachable is not None,
                library_name=PACKAGE,
            )
    except errors.LocalEntryNotFoundError as err:
        raise _not_here(
            address, reference, unreachable or first_line(err.__cause__ or err)
        ) from err
    except errors.RevisionNotFoundError as err:
        raise BadModel(
            f"{address.url} has no such revision", got=address.revision, fix="check --revision"
        ) from err
    except errors.GatedRepoError as err:
        fix = f"ask for access at its page, then: hf auth login ({address.url})"
        raise BadModel(f"{address.url} is gated", got=first_line(err), fix=fix) from err
    except errors.RepositoryNotFoundError as err:
        raise BadModel(
            f"{reference} is not a folder here, and the Hugging Face hub has no such model",
            got=address.repository,
            fix=did_you_mean(Path(reference)) or _SIGN_IN,
        ) from err
    except Exception as err:  # its transport is another library in each version
        raise Unavailable(
            f"the Hugging Face hub did not give {address}", got=first_line(err), fix="try again"
        ) from err
    if not (Path(folder) / CONFIG_FILE).exists():
        if unreachable is not None:
            raise _not_here(address, reference, unreachable)
        raise BadModel(
            f"{address} holds no model", got=f"no {CONFIG_FILE} in it", fix="name another one"
        )
    return Path(folder)


def _not_here(address: HubAddress, reference: str, reason: str) -> SpdError:
    """The error for a model that is not in the cache, while the hub does not answer."""
    return Unavailable(
        f"{reference} is not a folder here, and the Hugging Face hub does not answer",
        got=reason,
        fix=did_you_mean(Path(reference)) or "name a model's folder, or try with a network",
    )


def _under_its_name(snapshot: Path, address: HubAddress) -> Path:
    """A folder of links to the snapshot's files, since that is called after its commit.

    Reports and servers call a model by its folder. The snapshot itself serves where no link can be
    made.
    """
    files = {file.name: file.resolve() for file in snapshot.iterdir() if file.is_file()}
    try:
        place = cache_folder() / "hub" / address.repository.replace("/", "--") / snapshot.name
        folder = place / address.name
        if _links_of(folder) != files:
            shutil.rmtree(folder, ignore_errors=True)  # files of the hub's cache are gone
            with new_folder(folder) as draft:
                for name, target in files.items():
                    (draft / name).symlink_to(target)
    except (OSError, SpdError, RuntimeError):
        return snapshot
    return folder


def _links_of(folder: Path) -> dict[str, Path]:
    """The files that the links in a folder lead to; those that are gone are left out."""
    if not folder.is_dir():
        return {}
    return {file.name: file.resolve() for file in folder.iterdir() if file.is_file()}
