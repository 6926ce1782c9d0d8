"""Sources of a model's versions: a function, one folder, or a folder of versions.

A source is asked which versions there are, highest first; each is a :class:`ModelVersion` that can
be opened. It knows whether its files are all there, and has a fingerprint that changes with any of
them, so that a version is opened once and not while it is being copied.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serve.open_model import ServedModel
from spd_deploy.domain.folders import CONFIG_FILE, MANIFEST_FILE

ONLY_VERSION = "1"  # of a model that has no folders of versions

Fingerprint = tuple[tuple[str, int, int, int], ...]
# The versions that are complete, with the fingerprint of their files.
Look = tuple[tuple[str, Fingerprint | None], ...]
# Opens the model in a folder, under a name and a version.
OpenFolder = Callable[[Path, str, str], ServedModel]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A version that may be opened.

    Attributes:
        version: its number.
        fingerprint: differs whenever one of its files does; None where there are no files.
        lack: what is not there yet, in words; empty for a version that is complete.
        open: opens, verifies and warms it; runs in a thread.
    """

    version: str
    fingerprint: Fingerprint | None
    lack: str
    open: Callable[[], ServedModel]


class ModelSource(Protocol):
    """The versions of one model."""

    @property
    def name(self) -> str | None:
        """The model's name; None where only the open model tells it."""
        ...

    def candidates(self) -> Sequence[ModelVersion]:
        """The versions that there are now, highest first; reads the disk."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A function that opens the model, for a process that has no files to watch."""

    open: Callable[[], ServedModel]

    @property
    def name(self) -> None:
        """The open model tells its name."""
        return None

    def candidates(self) -> Sequence[ModelVersion]:
        """One version that never changes."""
        return [ModelVersion(version=ONLY_VERSION, fingerprint=None, lack="", open=self.open)]


@dataclass(frozen=True, slots=True)
class FolderSource:
    """One folder with an artefact or a checkpoint, which may be replaced by another."""

    name: str
    folder: Path
    open: OpenFolder

    def candidates(self) -> Sequence[ModelVersion]:
        """The version that is in the folder now."""
        return [candidate_in(self.folder, self.name, ONLY_VERSION, self.open)]


@dataclass(frozen=True, slots=True)
class VersionsSource:
    """A folder with a folder for each version, named by its number, as Triton has it."""

    name: str
    folder: Path
    open: OpenFolder

    def candidates(self) -> Sequence[ModelVersion]:
        """The versions that are there now, highest first."""
        return [
            candidate_in(folder, self.name, folder.name, self.open)
            for folder in version_folders(self.folder)
        ]


def version_folders(folder: Path) -> list[Path]:
    """The folders of versions, highest first; as in Triton ``01`` and ``0`` are none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    numbers = [n for n in names if n.isascii() and n.isdecimal() and not n.startswith("0")]
    return [folder / name for name in sorted(numbers, key=int, reverse=True)]


def candidate_in(folder: Path, name: str, version: str, open_folder: OpenFolder) -> ModelVersion:
    """The candidate that a folder holds now.

    Its files are those that links lead to at this moment: if a link is swapped while they are read,
    they still belong to one version.
    """
    real = real_folder(folder)
    return ModelVersion(
        version=version,
        fingerprint=fingerprint_of(real),
        lack=lack_of(real),
        open=lambda: open_folder(real, name, version),
    )


def real_folder(folder: Path) -> Path:
    """The folder in which the model's files really lie.

    In a Kubernetes volume each file is a link through ``..data``, which is swapped as a whole.
    """
    file = folder / MANIFEST_FILE
    target = file.resolve()
    return target.parent if file.is_file() and target.name == MANIFEST_FILE else folder.resolve()


def fingerprint_of(folder: Path) -> Fingerprint:
    """Path, inode, size and time of change of every file in the folder; empty without a folder."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    stat = entry.stat()
                    found.append((entry.path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError:  # a file or the folder went away meanwhile: it changes, and is looked at again
        return ()
    return tuple(sorted(found))


def lack_of(folder: Path) -> str:
    """The file that a folder lacks to be a whole artefact or checkpoint; empty for none.

    An artefact's manifest lists every file. That their content is whole is verified by hash when
    the version is opened.
    """
    manifest = folder / MANIFEST_FILE
    if manifest.is_file():
        try:
            files = list(json.loads(manifest.read_bytes())["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"{MANIFEST_FILE} is not whole"
        missing = [str(name) for name in files if not (folder / str(name)).is_file()]
        return f"no {missing[0]} in it" if missing else ""
    if (folder / CONFIG_FILE).is_file():
        return "" if any(folder.glob("model*.safetensors")) else "no weights in it"
    return "no artefact in it" if folder.is_dir() else "no such folder"
