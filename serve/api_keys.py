"""API keys: who may send requests, from a file that is read again when it changes.

    # one key a line; a name before a colon tells clients apart in the request log
    web-frontend:Zk3v9pQ1sX7mT2wB
    4f0c8f6d9a1b4c5e8d7f

Two keys may have one name, so that a client can change its key without a gap. Only the keys'
digests are kept.
"""

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from serve.file_stamp import stamp_of
from spd_deploy.domain.errors import BadSetting

_log = logging.getLogger(__name__)
MIN_CHARACTERS = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[!-~]+")  # what a header can hold
_FIX = "write one key a line, or name:key"
_MAKE = "make one with: openssl rand -hex 32"


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The known keys: the SHA-256 of each, with its client's name."""

    digests: tuple[tuple[bytes, str], ...]

    def client_of(self, given: str) -> str | None:
        """The name of the client with this key, or None.

        The key is compared with every known one, and each time in full, so that the time tells
        nothing of how much of it is right.
        """
        digest, client = _digest(given), None
        for known, name in self.digests:
            if hmac.compare_digest(known, digest):
                client = name
        return client


class KeyFile:
    """The keys in a file, as of its last change."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            BadSetting: it is missing, holds no key, or has a line that is none.
        """
        self.path = path
        self._stamp = stamp_of(path)
        self.keys = read_keys(path)
        self._warn_of_readers()

    def refresh(self) -> None:
        """Read the file again if it changed."""
        if stamp_of(self.path) != self._stamp:
            self.reload()

    def reload(self) -> None:
        """Read the file; if it cannot be used, log why, and go on with the keys of before."""
        self._stamp = stamp_of(self.path)
        try:
            self.keys = read_keys(self.path)
        except BadSetting as err:
            _log.error("the API keys stay as they were: %s", err)
            return
        _log.warning("API keys were read from %s: %d", self.path, len(self.keys.digests))
        self._warn_of_readers()

    def _warn_of_readers(self) -> None:
        """Warn if every user of the machine may read the keys."""
        if self.path.stat().st_mode & stat.S_IROTH:
            _log.warning(
                "every user of this machine can read the API keys in %s; chmod 600 it", self.path
            )


def read_keys(path: Path) -> ApiKeys:
    """The keys in a file.

    Raises:
        BadSetting: it is missing, holds no key, or has a line that is none; the key is not shown.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        got = err.strerror if isinstance(err, OSError) else "bytes that are not UTF-8"
        raise BadSetting(f"cannot read the API keys in {path}", got=got, fix=_FIX) from err
    digests = tuple(_keys_in(lines, path))
    if not digests:
        raise BadSetting(f"{path} holds no API key", fix=f"{_FIX}; {_MAKE}")
    return ApiKeys(digests)


def _keys_in(lines: Iterable[str], path: Path) -> Iterator[tuple[bytes, str]]:
    """The digest and the name of each line's key."""
    seen: dict[bytes, int] = {}
    for i, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, colon, key = text.rpartition(":")
        fault = _fault_of(name if colon else None, key)
        digest = _digest(key)
        if fault is None and digest in seen:
            fault = f"the key stands in line {seen[digest]} already"
        if fault is not None:
            raise BadSetting(f"{path}, line {i}: {fault}", fix=f"{_FIX}; {_MAKE}")
        seen[digest] = i
        yield digest, name or f"key-{digest.hex()[:8]}"


def _fault_of(name: str | None, key: str) -> str | None:
    """The fault of a line, without its key."""
    if name is not None and not _NAME.fullmatch(name):
        return "the name has other characters than letters, digits, dot, dash and underscore"
    if not _KEY.fullmatch(key):
        return "the key has other characters than printable ASCII"
    if len(key) < MIN_CHARACTERS:
        return f"the key has fewer than {MIN_CHARACTERS} characters"
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
