"""Which models a server has: named artefacts, or a model repository in Triton's layout.

    repository/NAME/VERSION/    an artefact; the highest version is served

Hidden files, such as the ``..data`` of a Kubernetes volume, are no models.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from serve.model_source import (
    FolderSource,
    ModelSource,
    OpenFolder,
    VersionsSource,
    lack_of,
    real_folder,
    version_folders,
)
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.folders import refuse_no_model

_MAX_NAME = 100
_LAYOUT = "its layout is NAME/VERSION/artefact, such as reviews/1/manifest.json"


def named_path(spelled: str) -> tuple[str, Path]:
    """``NAME=PATH``, or a path whose folder gives the name.

    A path that exists is one, even with ``=`` in it.

    Raises:
        BadSetting: the name or the path is empty, or the name cannot be part of a URL.
    """
    name, equals, path = spelled.partition("=")
    if not equals or "/" in name or Path(spelled).exists():
        return Path(spelled).resolve().name, Path(spelled)
    refuse_bad_name(name)
    if not path:
        raise BadSetting("a model has no path", got=spelled, fix="write NAME=PATH")
    return name, Path(path)


def sources_of(
    named: Iterable[tuple[str, Path]], repository: Path | None, open_folder: OpenFolder
) -> list[ModelSource]:
    """The models that a server is asked to have, in order; those of a repository by name.

    Raises:
        SpdError: there is none, a name is there twice, or a folder has no model.
    """
    fixed = list(named)
    if repository is not None and fixed:
        raise BadSetting(
            "artefacts and --model-repository exclude each other",
            got=f"{fixed[0][1]} and {repository}",
            fix="put the artefacts into the repository as NAME/1, or leave it out",
        )
    if repository is not None:
        found: list[ModelSource] = [
            VersionsSource(folder.name, folder, open_folder) for folder in models_in(repository)
        ]
        names = [folder.name or "" for folder in found]
    else:
        if not fixed:
            raise BadSetting(
                "no model to serve", fix="name an artefact, or a folder with --model-repository"
            )
        for _, folder in fixed:
            refuse_no_model(folder, wanted="either")
        found = [FolderSource(name, folder, open_folder) for name, folder in fixed]
        names = [name for name, _ in fixed]
    refuse_like_names(names)
    return found


class Repository:
    """A model repository, whose models may come and go."""

    def __init__(self, folder: Path, open_folder: OpenFolder) -> None:
        self._folder, self._open_folder = folder, open_folder

    def sources(self) -> dict[str, ModelSource]:
        """The models that there are now, by name; reads the disk.

        Folders whose names no model can have are passed over.

        Raises:
            BadSetting: the folder cannot be read.
        """
        return {
            folder.name: VersionsSource(folder.name, folder, self._open_folder)
            for folder in _folders_in(self._folder)
            if is_name(folder.name)
        }


def models_in(repository: Path) -> list[Path]:
    """The folders of models in a repository, by name.

    Raises:
        BadSetting: it is no folder, holds no model, or one of its models has no whole version.
    """
    folders = _folders_in(repository)
    if not folders:
        raise BadSetting("the model repository is empty", got=repository, fix=_LAYOUT)
    for folder in folders:
        refuse_bad_name(folder.name)
        _refuse_no_version(folder)
    return folders


def _folders_in(repository: Path) -> list[Path]:
    """The folders that may be models, by name.

    Raises:
        BadSetting: the repository cannot be read.
    """
    try:
        with os.scandir(repository) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as err:
        _refuse_address(repository)
        raise BadSetting(
            "--model-repository is not a folder that can be read",
            got=f"{repository}: {os.strerror(err.errno or 0)}",
            fix=_LAYOUT,
        ) from err
    return [repository / name for name in names if name != "lost+found"]


def _refuse_address(repository: Path) -> None:
    """Refuse an address; a path has lost one of its two slashes."""
    scheme, colon, rest = str(repository).partition(":/")
    if colon and re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]+", scheme):
        raise BadSetting(
            "--model-repository is a folder of this machine, and not an address",
            got=f"{scheme}://{rest.lstrip('/')}",
            fix="name each model by its address, as in spd serve NAME=s3://BUCKET/PATH, or mount "
            "the storage as a folder",
        )


def _refuse_no_version(folder: Path) -> None:
    """Refuse a model without a version that is complete."""
    versions = version_folders(folder)
    if not versions:
        raise BadSetting(f"model {folder.name} has no version", got=folder, fix=_LAYOUT)
    lacks = {version: lack_of(real_folder(version)) for version in versions}
    if all(lacks.values()):
        raise BadSetting(
            f"version {versions[0].name} of model {folder.name} is not an artefact",
            got=f"{lacks[versions[0]]}: {versions[0]}",
            fix=_LAYOUT,
        )


def refuse_bad_name(name: str) -> None:
    """Refuse a model's name that cannot be a part of a URL's path.

    Raises:
        BadSetting: it is empty, hidden, too long, or has a slash or a control character.
    """
    if not name or name.startswith(".") or not name.isprintable() or "/" in name:
        raise BadSetting(
            "not a name for a model",
            got=repr(name),
            fix="use letters, digits, dots, dashes and underscores, not a dot first",
        )
    if len(name) > _MAX_NAME:
        raise BadSetting(
            "the model's name is too long",
            got=f"{len(name)} characters",
            fix=f"use {_MAX_NAME} at most",
        )


def is_name(name: str) -> bool:
    """Whether a model may have this name."""
    try:
        refuse_bad_name(name)
    except BadSetting:
        return False
    return True


def refuse_like_names(names: Sequence[str]) -> None:
    """Refuse two models whose names are the same, or the same but for case.

    Raises:
        BadSetting: with the two names.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(name.casefold())
        if other is not None:
            raise BadSetting(
                "two models have the same name" if name == other else "two names differ by case",
                got=name if name == other else f"{other} and {name}",
                fix="give each a name of its own: NAME=PATH",
            )
        seen[name.casefold()] = name
