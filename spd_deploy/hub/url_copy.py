"""A folder at a URL, copied into the user's cache through ``fsspec``: whole, or not at all.

An artefact names its files and their hashes in the manifest, which is asked for each time: if it is
the one of an earlier copy, nothing else is read. Of a checkpoint the small files and what the
server says of the large ones stand for its content.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadArtefact, BadCheckpoint, BadModel, Unavailable, first_line
from spd_deploy.domain.files import cache_folder, read_json, sha256_of, write_text
from spd_deploy.domain.folders import CONFIG_FILE, MANIFEST_FILE, SPD_FILE
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.stored_weights import INDEX_FILE, WEIGHTS_FILE, sha256_of_weights
from spd_deploy.hub.address import UrlAddress
from spd_deploy.hub.cache import new_folder
from spd_deploy.hub.file_systems import RemoteFolder, open_folder
from spd_deploy.hub.licenses import license_in
from spd_deploy.hub.model_files import CHECKPOINT_FILES

_CURRENT = "current"
_COPY_AGAIN = "copy the model there again, whole"


def fetch_from_url(address: UrlAddress, note: Callable[[str], None]) -> tuple[Path, Origin]:
    """The folder of a copy, and where it is from.

    Args:
        address: the folder to copy.
        note: gets a line when a copy is made, or an earlier one is used without an answer.

    Raises:
        BadModel: there is no model, or no right to read it.
        BadArtefact, BadCheckpoint: a file is not the one that the model's own record names.
        Unavailable: no answer and no earlier copy, or a library is not installed.
        NotWritten: there is no room for a copy.
    """
    place = cache_folder() / "copies" / hashlib.sha256(address.url.encode()).hexdigest()[:16]
    remote = open_folder(address)
    try:
        small = _small_files(remote)
        files = _all_files(remote, small)
    except (BadModel, BadArtefact):
        raise
    except Exception as err:  # any error of the protocol's own library
        folder = _earlier(place, address)
        if folder is None:
            raise Unavailable(
                f"{address} does not answer", got=first_line(err), fix="check the address"
            ) from err
        note(f"{address} does not answer ({first_line(err)}): the copy in {folder} is used")
        return folder, _origin(address, folder)
    key = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    folder = place / key / address.name
    if not folder.is_dir():
        note(f"copying {address} into {folder}")
        with new_folder(folder) as draft:
            _copy(remote, small, files, draft)
            _verify(draft, files, address)
    write_text(place / _CURRENT, key)
    return folder, _origin(address, folder)


def _small_files(remote: RemoteFolder) -> dict[str, bytes]:
    """The files that say which others there are: a manifest, or the small ones of a checkpoint."""
    if (manifest := remote.content(MANIFEST_FILE)) is not None:
        return {MANIFEST_FILE: manifest}
    if (config := remote.content(CONFIG_FILE)) is None:
        raise BadModel(
            f"{remote.address} holds no model",
            got=f"neither {MANIFEST_FILE} nor {CONFIG_FILE} in it",
            fix="name the folder of an artefact or of a checkpoint",
        )
    rest = (name for name in (*CHECKPOINT_FILES, INDEX_FILE) if name != CONFIG_FILE)
    found = {name: remote.content(name) for name in rest}
    return {CONFIG_FILE: config, **{n: content for n, content in found.items() if content}}


def _all_files(remote: RemoteFolder, small: Mapping[str, bytes]) -> dict[str, str]:
    """Every file by name, with its SHA-256 or what the server says of it."""
    known = {name: hashlib.sha256(content).hexdigest() for name, content in small.items()}
    if MANIFEST_FILE in small:
        listed = _listed(small[MANIFEST_FILE], "files", remote.address)
        return {**known, **{_name_inside(n, remote.address): str(sha) for n, sha in listed.items()}}
    weights = [WEIGHTS_FILE]
    if INDEX_FILE in small and not remote.has(WEIGHTS_FILE):
        shards = _listed(small[INDEX_FILE], "weight_map", remote.address).values()
        weights = sorted({_name_inside(str(name), remote.address) for name in shards})
    elif not remote.has(WEIGHTS_FILE):
        raise BadModel(
            f"{remote.address} has no safetensors of a whole model",
            got=f"neither {WEIGHTS_FILE} nor {INDEX_FILE}",
            fix="store it with save_pretrained of Transformers",
        )
    return {**known, **{name: remote.state(name) for name in weights}}


def _listed(content: bytes, field: str, address: UrlAddress) -> Mapping[str, Any]:
    """The object in a field of a JSON file, which names files.

    Raises:
        BadModel: it has none.
    """
    try:
        found = json.loads(content)[field]
    except (ValueError, KeyError, TypeError) as err:
        raise BadModel(f"{address} is damaged", got=f"no {field!r}", fix=_COPY_AGAIN) from err
    if not isinstance(found, dict):
        raise BadModel(f"{address} is damaged", got=f"{field!r} is no object", fix=_COPY_AGAIN)
    return found


def _name_inside(name: str, address: UrlAddress) -> str:
    """A file's name, if it is one in the folder itself.

    Raises:
        BadArtefact: it leads elsewhere.
    """
    if not name or Path(name).name != name or "/" in name or "\\" in name:
        raise BadArtefact(f"{address} names a file outside of it", got=name, fix=_COPY_AGAIN)
    return name


def _copy(
    remote: RemoteFolder, small: Mapping[str, bytes], files: Mapping[str, str], draft: Path
) -> None:
    """Write every file into a new folder."""
    for name in files:
        if name in small:
            (draft / name).write_bytes(small[name])
            continue
        try:
            remote.copy(name, draft / name)
        except Exception as err:
            raise Unavailable(
                f"{remote.address} did not give {name}", got=first_line(err), fix=_COPY_AGAIN
            ) from err


def _verify(draft: Path, files: Mapping[str, str], address: UrlAddress) -> None:
    """Compare the copied files with what the model itself says of them.

    Raises:
        BadArtefact, BadCheckpoint: one is another file, or was cut short.
    """
    if MANIFEST_FILE in files:
        for name, expected in files.items():
            if (found := sha256_of(draft / name)) != expected:
                raise BadArtefact(
                    f"{name} of {address} is not the file that its {MANIFEST_FILE} lists",
                    got=f"SHA-256 {found[:12]}, expected {expected[:12]}",
                    fix=_COPY_AGAIN,
                )
    elif SPD_FILE in files:
        record = read_json(draft / SPD_FILE, error=BadCheckpoint, fix=_COPY_AGAIN)
        found, expected = sha256_of_weights(draft), str(record.get("weights_sha256"))
        if found != expected:
            raise BadCheckpoint(
                f"the weights of {address} are not those that its {SPD_FILE} describes",
                got=f"SHA-256 {found[:12]}, expected {expected[:12]}",
                fix=_COPY_AGAIN,
            )


def _earlier(place: Path, address: UrlAddress) -> Path | None:
    """The latest copy of an address; None where there is none."""
    current = place / _CURRENT
    if not current.is_file():
        return None
    folder = place / current.read_text(encoding="utf-8").strip() / address.name
    return folder if folder.is_dir() else None


def _origin(address: UrlAddress, folder: Path) -> Origin:
    """The origin of a copy."""
    return Origin(address=address.shown, license=license_in(folder))
