"""The lines of a text file, decompressed and decoded as they are read: a file may exceed memory."""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from spd_deploy.domain.errors import BadData, first_line
from spd_deploy.domain.extras import require_extras
from spd_train.data.formats import check_path, refuse_others

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What is looked at before the first row is read, to tell what the file really is.
_HEAD_BYTES = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Prefixed(io.RawIOBase):
    """A stream from which some bytes were read already, with those bytes in front of it again."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """True, as ``io.BufferedReader`` asks for."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """The bytes in front first, then those of the stream; 0 at its end."""
        view = memoryview(buffer).cast("B")
        # What a pipe has now, and not first all that it is asked for.
        read = getattr(self._rest, "read1", self._rest.read)
        found = self._head[: len(view)] if self._head else read(len(view))
        self._head = self._head[len(found) :]
        view[: len(found)] = found
        return len(found)


def lines_of(
    file: Path, *, newline: Literal["", "\n"], stream: BinaryIO | None = None
) -> Iterator[str]:
    """The lines of a text file without a byte-order mark; bytes that are not UTF-8 are surrogates.

    Args:
        file: names the file, its kind and its compression.
        newline: what ends a line: a line feed alone, or any of Python's line ends.
        stream: what is read in the place of the file, such as standard input.

    Raises:
        BadData: the file cannot be read, is empty, is damaged, or is of another kind than its name
            says.
    """
    with contextlib.ExitStack() as opened, _named(file):
        packed = stream or opened.enter_context(file.open("rb"))
        plain = _unpacked(file, packed)
        head = plain.read(_HEAD_BYTES) if stream is None else _first_bytes(plain)
        head = head.removeprefix(_BYTE_ORDER_MARK)
        if not head.strip():
            raise BadData(f"{file} is empty", fix="check how the file was written")
        refuse_others(file, head)
        text = io.BufferedReader(Prefixed(head, plain), _HEAD_BYTES)
        yield from io.TextIOWrapper(text, "utf-8", "surrogateescape", newline=newline)


def _first_bytes(stream: BinaryIO) -> bytes:
    """The first bytes of a pipe: a line at least, but for the bracket that opens an array."""
    read = getattr(stream, "read1", stream.read)
    head = b""
    while head.strip() in (b"", b"[", _BYTE_ORDER_MARK) and (more := read(_HEAD_BYTES)):
        head += more
    return head


@contextlib.contextmanager
def opened_file(file: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, whose position says how much of it was read.

    Raises:
        BadData: no such file, or it cannot be read.
    """
    with contextlib.ExitStack() as opened:
        with _named(file):
            stream = opened.enter_context(file.open("rb"))
        yield stream


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn what reading raises into an error that names the file."""
    try:
        yield
    except FileNotFoundError as err:
        raise BadData(f"cannot read {file}", got="no such file", fix=check_path(file)) from err
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as err:
        raise _damaged(file, err) from err
    except OSError as err:
        if file.suffix.lower() in (".bz2", ".zst") and err.errno is None:
            raise _damaged(file, err) from err
        got = err.strerror or first_line(err)
        raise BadData(f"cannot read {file}", got=got, fix="check the path and the file") from err


def _damaged(file: Path, err: Exception) -> BadData:
    """The error for a compressed file that is not what its name says, or not whole."""
    return BadData(
        f"{file} does not decompress", got=first_line(err), fix="write or copy the file again"
    )


def _unpacked(file: Path, packed: BinaryIO) -> BinaryIO:
    """The bytes of the stream, decompressed if the file's suffix says that it is compressed."""
    openers: Mapping[str, Callable[[BinaryIO], object]] = {
        ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
        ".zst": _zstandard,
    }
    opener = openers.get(file.suffix.lower())
    return packed if opener is None else cast("BinaryIO", opener(packed))


def _zstandard(packed: BinaryIO) -> object:
    """Decompress Zstandard, which the standard library has from Python 3.14 on."""
    require_extras("reading Zstandard (.zst)", "parquet", otherwise="compress it with gzip (.gz)")
    import pyarrow

    # It closes what it reads from, which may be another's, such as standard input.
    return pyarrow.CompressedInputStream(Prefixed(b"", packed), "zstd")
