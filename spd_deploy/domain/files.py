"""Files that appear whole or not at all.

Every output of this project is written through :func:`replacing`, so a full disk, a crash or a
``Ctrl-C`` leaves either the new file or what was there before, never a half.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import NotWritten, SpdError

_CHUNK_BYTES = 1 << 20
# What is written to see whether anything can be: more than a file system keeps in its directory.
_PROBE_BYTES = 1 << 14
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEPT = "what was there before is kept"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside ``path``; it becomes ``path`` only if the block succeeds.

    The block may make a file or a folder there. A folder that stood at ``path`` is set aside
    first and put back if the new one cannot take its place.

    Raises:
        NotWritten: the operating system refused (full disk, no permission, read-only).
    """
    with refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            draft = Path(scratch) / path.name
            with _named(draft, path):
                yield draft
            move_into_place(draft, path, aside=Path(scratch) / "previous")


@contextlib.contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses in the block into an error that names ``path``.

    Raises:
        NotWritten: no space, no permission, a read-only disk.
    """
    try:
        yield
    except OSError as err:
        raise not_written(path, err) from err


@contextlib.contextmanager
def _named(draft: Path, path: Path) -> Iterator[None]:
    """Name ``path`` in an error of its draft, whose own name says nothing to the user."""
    try:
        yield
    except NotWritten as err:
        what = err.what.replace(str(draft), str(path))
        raise NotWritten(what, got=err.got, fix=err.fix) from err


def not_written(path: Path, err: BaseException) -> NotWritten:
    """The error for an output that the operating system refused, with the remedy for its reason."""
    number = _errno_of(err)
    reason = os.strerror(number) if number else str(err)
    return NotWritten(f"could not write {path}", got=reason, fix=f"{_remedy(number)}; {_KEPT}")


def _errno_of(err: BaseException) -> int | None:
    """The number of a system's error; safetensors has it in its message alone."""
    if isinstance(err, OSError) and err.errno:
        return err.errno
    found = re.search(r"os error (\d+)", str(err))
    return int(found[1]) if found else None


def _remedy(number: int | None) -> str:
    """The remedy for an error of the operating system."""
    if number in FULL:
        return "free some space, or choose another --output"
    if number == errno.EROFS:
        return "that disk is mounted read-only: choose another --output"
    if number in (errno.EACCES, errno.EPERM):
        return "choose an --output that you may write to"
    return "choose another --output"


def refuse_unwritable(folder: Path, output: Path) -> None:
    """Refuse an ``output`` in a ``folder`` that cannot be written to, before time is spent on it.

    The folder need not exist yet; then the nearest one above it must take a file.

    Raises:
        NotWritten: with the reason.
    """
    with refusals_named(output):
        nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path``, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to ``path``, whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, error: type[SpdError], fix: str) -> dict[str, Any]:
    """Read a JSON object; raises ``error`` where the file is missing, unreadable or no object."""
    try:
        content = path.read_bytes()
    except OSError as err:
        raise error(f"cannot read {path}", got=err.strerror, fix=fix) from err
    return json_object(content, path, error=error, fix=fix)


def json_object(content: bytes, path: Path, *, error: type[SpdError], fix: str) -> dict[str, Any]:
    """The JSON object that was read from ``path``; raises ``error`` where it is none."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise error(f"{path} is not valid JSON", got=err, fix=fix) from err
    if not isinstance(value, dict):
        raise error(f"{path} is not a JSON object", got=type(value).__name__, fix=fix)
    return value


def read_toml(path: Path, *, error: type[SpdError], fix: str) -> dict[str, Any]:
    """Read a TOML file; raises ``error`` where it is missing, unreadable or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise error(f"cannot read {path}", got=err.strerror, fix=fix) from err
    except ValueError as err:  # broken UTF-8 too
        raise error(f"{path} is not TOML", got=err, fix=fix) from err


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse a ``path`` that cannot become an output.

    Raises:
        NotWritten: something is there already and ``overwrite`` is False, or nothing can be
            written there.
    """
    taken = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if taken and not overwrite:
        raise NotWritten(
            f"{path} already exists", fix="choose another --output, or replace it with --overwrite"
        )
    if path.is_mount():  # it cannot be replaced by a folder that was made beside it
        raise NotWritten(
            f"{path} is where a disk is mounted, and cannot be replaced",
            fix=f"name a folder in it, such as {path / 'out'}",
        )
    refuse_unwritable(path.parent, path)


def refuse_existing_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a ``path`` that cannot become a file; a folder is never replaced by one.

    Raises:
        NotWritten: as :func:`refuse_existing`, or a folder is there.
    """
    if path.is_dir():
        raise NotWritten(f"{path} is a folder", fix=f"name a file, such as one in {path}")
    refuse_existing(path, overwrite=overwrite)


def refuse_foreign(path: Path, *, overwrite: bool, what: str, ours: Callable[[str], bool]) -> None:
    """Refuse a place for an output of which only an earlier one is ever replaced.

    Args:
        path: becomes the output's folder.
        overwrite: replace an earlier one.
        what: the output is, such as ``report``.
        ours: whether an earlier one has a file of this name.

    Raises:
        NotWritten: something is there already that may not be replaced: without ``overwrite``
            anything, with it whatever is more than an earlier one.
    """
    refuse_existing(path, overwrite=overwrite)
    inside = [file.name for file in path.iterdir()] if path.is_dir() else []
    foreign = [name for name in inside if not ours(name)]
    if foreign or (path.exists() and not path.is_dir()):
        raise NotWritten(
            f"{path} is not an earlier {what}, so it is not replaced",
            got=f"{min(foreign)!r} in it" if foreign else "a file",
            fix="choose another --output",
        )


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files below a folder, in bytes; links to one file count once."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    sizes = {(found.st_dev, found.st_ino): found.st_size for found in (p.stat() for p in files)}
    return sum(sizes.values())


def move_into_place(draft: Path, path: Path, *, aside: Path) -> None:
    """Put ``draft`` at ``path``; a folder there is set aside and comes back on failure."""
    for file in [draft] if draft.is_file() else draft.rglob("*"):
        if file.is_file():
            _settle(file)
    if not path.is_dir():
        os.replace(draft, path)
        return
    os.replace(path, aside)
    try:
        os.replace(draft, path)
    except OSError:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _settle(file: Path) -> None:
    """Bring the bytes to the disk, and give the file the mode that the user's umask asks for.

    Some libraries write files that only their owner can read.
    """
    umask = os.umask(0)
    os.umask(umask)
    file.chmod(0o666 & ~umask)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def cache_folder() -> Path:
    """The folder of files that can be made again, in the user's cache by the XDG convention.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spd"
