"""Files with a known SHA-256, read so that what was verified is what is used.

A file that is hashed, and opened again by whoever parses it, can be another one by then. One that a
runtime maps into memory can change under it while it runs, or be cut short, which kills the
process. So small files are read once and hashed in memory. The files of a model are copied into a
folder of this process's own and hashed on the way; a runtime loads the copy, which is deleted as
soon as it is loaded: a system such as Linux keeps what is mapped.

A copy costs time and room on the disk; buffers in memory would cost memory, and OpenVINO has no way
to take them. Measured with ONNX Runtime, whose session of two threads is two instances, on 2 cores
of an AMD EPYC (Zen 4), 30 November 2026:

| | original, not safe | private copy | buffers in memory |
|---|---|---|---|
| BERT-base, 437 MB: processor time | 1.3 s | 2.0 s | 1.7 s |
| peak, and what stays, in RAM | 740, 694 MB | 740, 694 MB | 1500, 868 MB |
| MiniLM, 6 layers, 91 MB: processor time | 0.31 s | 0.40 s | 0.47 s |
| peak, and what stays, in RAM | 163, 120 MB | 164, 120 MB | 366, 201 MB |
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spd_deploy.domain.errors import BadArtefact, SpdError, Unavailable
from spd_deploy.domain.scratch import ANOTHER_TMPDIR

_CHUNK_BYTES = 1 << 20
_PREFIX = "spd-private-"
_AGAIN = "export it again"


def read_verified(file: Path, sha256: str) -> bytes:
    """The content of a file that has this hash; links are followed.

    Raises:
        BadArtefact: it is missing, was changed, or cannot be read.
    """
    content = b"".join(_chunks(file))
    _refuse_changed(file, hashlib.sha256(content).hexdigest(), sha256)
    return content


def verify(file: Path, sha256: str) -> None:
    """Refuse a file that has another hash.

    Raises:
        BadArtefact: as :func:`read_verified`.
    """
    _refuse_changed(file, _digest(file, None), sha256)


def copy_verified(file: Path, sha256: str, target: Path) -> None:
    """Copy a file that has this hash; the bytes that are hashed are the bytes that are written.

    Raises:
        BadArtefact: as :func:`read_verified`.
        Unavailable: there is no room for the copy.
    """
    try:
        with target.open("xb") as stream:
            found = _digest(file, stream)
    except OSError as err:
        raise no_room(err) from err
    _refuse_changed(file, found, sha256)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that no other user can read or write, deleted with all that is in it.

    It lies where the system keeps temporary files, which ``TMPDIR`` names.

    Raises:
        Unavailable: there is no place for it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    except OSError as err:
        raise no_room(err) from err
    with folder as path:
        yield Path(path)


@contextmanager
def errors_naming(folder: Path, *, instead_of: Path) -> Iterator[None]:
    """Errors name the files that the user knows, not their private copies."""
    try:
        yield
    except SpdError as err:

        def named(text: str) -> str:
            return text.replace(str(instead_of), str(folder))

        got = None if err.got is None else named(err.got)
        raise type(err)(named(err.what), got=got, fix=named(err.fix)) from err


def refuse_outside(folder: Path, file: Path, *, anchor: Path) -> None:
    """Refuse a file that a link leads out of a folder, where no hash says what it should hold.

    Links within the folder are followed, as Kubernetes makes them for each volume; so are links to
    the folder in which ``anchor`` really lies, as hub caches keep all files in one.

    Raises:
        BadArtefact: it lies elsewhere.
    """
    found = file.resolve()
    homes = (folder.resolve(), anchor.resolve().parent)
    if not any(found.is_relative_to(home) for home in homes):
        raise BadArtefact(
            f"{file} is a link to a file outside the artefact",
            got=found,
            fix="copy the file itself into the artefact's folder",
        )


def _digest(file: Path, into: IO[bytes] | None) -> str:
    """The SHA-256 of a file, whose bytes are written ``into`` another one as they are hashed."""
    digest = hashlib.sha256()
    for chunk in _chunks(file):
        digest.update(chunk)
        if into is not None:
            into.write(chunk)
    return digest.hexdigest()


def _chunks(file: Path) -> Iterator[bytes]:
    """A file's bytes, read once; what is no regular file, such as a device, is not opened."""
    if not file.is_file():
        raise BadArtefact(f"{file} is missing", got=_what_is_there(file), fix=_AGAIN)
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except OSError as err:
        raise BadArtefact(
            f"cannot read {file}", got=err.strerror, fix="make it readable for this user"
        ) from err


def _what_is_there(file: Path) -> str | None:
    """The kind of what is at a path that holds no regular file."""
    if file.is_symlink():
        return f"a link to {file.readlink()}"
    return "something that is not a file" if file.exists() else None


def _refuse_changed(file: Path, found: str, expected: str) -> None:
    """The file must have the hash that was taken when it was written."""
    if found != expected:
        raise BadArtefact(
            f"{file} was changed after the export",
            got=f"SHA-256 {found[:12]}, expected {expected[:12]}",
            fix=_AGAIN,
        )


def no_room(err: OSError) -> Unavailable:
    """The error for a system that has no place for temporary files."""
    return Unavailable(
        "no room for a private copy of the model's files, which is what runs",
        got=f"{err.strerror or err}" + (f" at {err.filename}" if err.filename else ""),
        fix=f"{ANOTHER_TMPDIR} for the model",
    )
