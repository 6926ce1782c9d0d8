"""Folders behind a protocol, through ``fsspec`` and the protocol's own library."""

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadModel, BadSetting, Unavailable, first_line
from spd_deploy.domain.extras import require_modules
from spd_deploy.hub.address import UrlAddress

_CONNECT_S, _READ_S = 10.0, 60.0
_FORBIDDEN = (401, 403)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFolder:
    """A folder at an address, read through a file system of ``fsspec``."""

    address: UrlAddress
    system: Any

    def content(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none.

        Raises:
            BadModel: there is no right to read it.
        """
        try:
            return bytes(self.system.cat_file(self.address.of(name)))
        except FileNotFoundError:
            return None
        except Exception as err:
            self._refuse_forbidden(err)
            raise

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return bool(self.system.exists(self.address.of(name)))

    def state(self, name: str) -> str:
        """Size, tag and time of a file by its server; they differ where the file does."""
        facts = self.system.info(self.address.of(name))
        return str(sorted((key, str(value)) for key, value in facts.items()))

    def copy(self, name: str, target: Path) -> None:
        """Copy a file; one that is shorter than the server says is an error."""
        url = self.address.of(name)
        self.system.get_file(url, str(target))
        with suppress(FileNotFoundError):
            size = self.system.info(url).get("size")
            if size is not None and target.stat().st_size != size:
                raise OSError(f"{target.stat().st_size} of {size} bytes")

    def _refuse_forbidden(self, err: Exception) -> None:
        """Say what is to be done where there is no right to read."""
        if isinstance(err, PermissionError) or getattr(err, "status", None) in _FORBIDDEN:
            raise BadModel(
                f"{self.address} may not be read",
                got=first_line(err),
                fix=f"give the credentials as the library for {self.address.protocol}:// takes "
                "them, mostly in the environment",
            ) from err


def open_folder(address: UrlAddress) -> RemoteFolder:
    """The folder at an address.

    Raises:
        BadSetting: no such protocol.
        Unavailable: fsspec or the library of the protocol is not installed.
    """
    require_modules(f"reading {address}", "hub", "fsspec")
    from fsspec import filesystem
    from fsspec.registry import known_implementations, registry

    protocol = address.protocol
    if protocol not in known_implementations and protocol not in registry:
        raise BadSetting(
            f"{protocol}:// is no kind of address that is known",
            got=str(address),
            fix="name a folder, or an address such as hf://, s3://, gs:// or https://",
        )
    try:
        if protocol not in registry:
            import_module(known_implementations[protocol]["class"].rpartition(".")[0])
        system = filesystem(protocol, **_options(protocol))
    except ImportError as err:
        package = (err.name or first_line(err)).partition(".")[0]
        raise Unavailable(
            f"reading {protocol}:// needs a package that is not installed: {package}",
            fix=f"pip install {package}",
        ) from err
    return RemoteFolder(address=address, system=system)


def _options(protocol: str) -> dict[str, Any]:
    """Options of a file system; HTTP limits the time to connect and that between bytes."""
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
