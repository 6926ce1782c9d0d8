"""References to models: a folder, a model of the Hugging Face hub, or a URL.

hf://OWNER/NAME[@REVISION]      a model of the hub; so is https://huggingface.co/OWNER/NAME
OWNER/NAME[@REVISION]           the same, where names of the hub are taken without hf://
s3://, gs://, https://, ...     a folder that fsspec reads
all else                        a folder of this machine
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.folders import did_you_mean

# Which bare names are looked for on the hub: none, as a stranger may own a name that looks like a
# mistyped folder; those with an owner; or also NAME alone, as old encoders are called.
BareNames = Literal["none", "owned", "any"]

# A path of Python's pathlib writes the two slashes as one. A drive of Windows has one letter.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})?")
_HUB_HOSTS = ("huggingface.co", "hf.co")
_MAX_REPOSITORY = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class HubAddress:
    """A model of the hub: ``OWNER/NAME``, and the revision that is wanted of it."""

    repository: str
    revision: str | None = None

    @property
    def url(self) -> str:
        """The address without its revision."""
        return f"hf://{self.repository}"

    @property
    def name(self) -> str:
        """The name without its owner."""
        return self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        return self.url if self.revision is None else f"{self.url}@{self.revision}"


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlAddress:
    """A folder that a library for its protocol reads."""

    url: str

    @property
    def protocol(self) -> str:
        """The part before the colon, such as ``s3``."""
        return self.url.partition(":")[0]

    @property
    def shown(self) -> str:
        """The URL without a password or a signature, which nothing may print or store."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return urlsplit(self.url).path.rstrip("/").rpartition("/")[2] or "model"

    def of(self, file: str) -> str:
        """The URL of a file in the folder."""
        before, query, after = self.url.partition("?")
        return f"{before.rstrip('/')}/{file}{query}{after}"

    def __str__(self) -> str:
        return self.shown


def address_of(
    reference: str | os.PathLike[str], revision: str | None = None, *, names: BareNames = "none"
) -> HubAddress | UrlAddress | None:
    """The address that a reference is; None for a folder of this machine.

    Args:
        reference: as the user named it.
        revision: of ``--revision``.
        names: which bare names may be models of the hub.

    Raises:
        BadSetting: an address that is not well formed, or a revision where there are none.
    """
    text = os.fspath(reference)
    found = _address(text, names)
    if revision is None:
        return found
    if not isinstance(found, HubAddress):
        raise BadSetting(
            "only a model of the Hugging Face hub has revisions",
            got=f"--revision {revision} with {text}",
            fix="name the model as hf://OWNER/NAME, or leave --revision out",
        )
    if found.revision not in (None, revision):
        raise BadSetting(
            "two revisions are named",
            got=f"{found.revision} and --revision {revision}",
            fix="leave one of them out",
        )
    return HubAddress(repository=found.repository, revision=_revision(revision, text))


def _address(text: str, names: BareNames) -> HubAddress | UrlAddress | None:
    """The address, without the option ``--revision``."""
    if (match := _SCHEME.fullmatch(text)) and not Path(text).exists():
        return _with_scheme(match[1].lower(), match[2], text)
    if names == "none" or Path(text).exists():
        return None
    repository, at, revision = text.partition("@")
    if not _REPOSITORY.fullmatch(repository) or not _may_be_a_name(repository, names):
        return None
    return _hub(repository, revision if at else None, text)


def _may_be_a_name(repository: str, names: BareNames) -> bool:
    """Whether a bare name may be one of the hub: not if it is nearly the path of a folder here."""
    owner, slash, _ = repository.partition("/")
    if not slash:
        return names == "any"
    return not Path(owner).is_dir() and did_you_mean(Path(repository), wanted="either") is None


def _with_scheme(scheme: str, rest: str, text: str) -> HubAddress | UrlAddress | None:
    """The address that begins with a scheme; None for a file of this machine."""
    if scheme == "hf":
        repository, at, revision = rest.partition("@")
        return _hub(repository.rstrip("/"), revision if at else None, text)
    host, _, path = rest.partition("/")
    if scheme in ("http", "https") and host in _HUB_HOSTS:
        repository, tree, revision = path.rstrip("/").partition("/tree/")
        return _hub(repository, revision if tree else None, text)
    if not rest.strip("/"):
        raise BadSetting("an address without a path", got=text, fix=f"write {scheme}://BUCKET/PATH")
    # file:///a/b has a path from the root; the others begin with a bucket or a host.
    return UrlAddress(url=f"{scheme}://{'/' if scheme == 'file' else ''}{rest}")


def _hub(repository: str, revision: str | None, text: str) -> HubAddress:
    """An address on the hub, whose two parts are known to be well formed.

    Raises:
        BadSetting: one of them is not.
    """
    too_long = len(repository) > _MAX_REPOSITORY
    if not _REPOSITORY.fullmatch(repository) or "--" in repository or too_long:
        raise BadSetting(
            "not the name of a model on the Hugging Face hub",
            got=text,
            fix="write hf://OWNER/NAME, or hf://OWNER/NAME@REVISION",
        )
    return HubAddress(
        repository=repository, revision=None if revision is None else _revision(revision, text)
    )


def _revision(revision: str, text: str) -> str:
    """A branch, tag or commit that git could have.

    Raises:
        BadSetting: it is empty, or has a character that no name of git has.
    """
    if not re.fullmatch(r"[\w.+-]+(?:/[\w.+-]+)*", revision) or ".." in revision:
        raise BadSetting(
            "not a branch, tag or commit",
            got=f"{revision!r} of {text}",
            fix="write NAME@REVISION, such as OWNER/NAME@v1.0",
        )
    return revision
