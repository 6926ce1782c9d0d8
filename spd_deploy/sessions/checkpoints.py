"""A checkpoint that is opened to be run: what was verified is what is loaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.verified import errors_naming, no_room, private_folder

# The files that are read, by their endings: descriptions, tokenizers, weights.
_READ = (".json", ".safetensors", ".txt", ".model")


@contextmanager
def verified_checkpoint(folder: Path) -> Iterator[Checkpoint]:
    """A checkpoint in a private copy of its folder, to load it from; deleted afterwards.

    PyTorch maps weights into memory, so those of the folder itself could change under a model that
    runs. Errors that are raised meanwhile name the folder's own files.

    Raises:
        BadCheckpoint: nothing there, or damaged.
        BadModel: a model that is not handled.
        Unavailable: there is no room for the copy.
    """
    if not folder.is_dir() or not any(folder.glob("*.safetensors")):
        open_checkpoint(folder)  # which says what is amiss
    with private_folder() as private, errors_naming(folder, instead_of=private):
        for file in sorted(folder.iterdir()):
            if file.suffix in _READ and file.is_file():
                _copy(file, private / file.name)
        yield open_checkpoint(private)


def _copy(file: Path, target: Path) -> None:
    """Copy one file, with an error of ours where it cannot be read or does not fit."""
    try:
        source = file.open("rb")
    except OSError as err:
        raise BadModel(
            f"cannot read {file}", got=err.strerror, fix="make it readable for this user"
        ) from err
    try:
        with source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream)
    except OSError as err:
        raise no_room(err) from err
