"""Model repositories of real tiny artefacts and of fakes, and models that open them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from serve.model_source import FolderSource, ModelSource, VersionsSource
from serve.open_model import ServedModel, open_served
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.folders import MANIFEST_FILE
from tests.serve.fakes import FakeSession, fake_served


def opened(folder: Path, name: str, version: str) -> ServedModel:
    """An artefact, opened, verified and warm."""
    return open_served(folder, name=name, version=version, threads=1)


def folder_source(name: str, folder: Path) -> ModelSource:
    """A model in one folder."""
    return FolderSource(name, folder, opened)


def versions_source(folder: Path) -> ModelSource:
    """A model with a folder for each version."""
    return VersionsSource(folder.name, folder, opened)


def put(artefact: Path, version: Path) -> Path:
    """Make an artefact a version, in one step as the documentation tells."""
    draft = version.with_name(f".{version.name}")
    shutil.copytree(artefact, draft)
    return draft.rename(version)


class FakeVersions:
    """Versions that are fakes: a folder needs a manifest, and may say that it does not open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sessions: dict[str, FakeSession] = {}
        self.opened: list[str] = []

    @property
    def source(self) -> ModelSource:
        """The model of these versions."""
        return VersionsSource(self.folder.name, self.folder, self.open)

    def put(self, version: str, *, broken: bool = False, task: str = "sst2") -> Path:
        """Write a version."""
        folder = self.folder / version
        folder.mkdir(parents=True, exist_ok=True)
        written = {"files": {}, "broken": broken, "task": task}
        (folder / MANIFEST_FILE).write_text(json.dumps(written), encoding="utf-8")
        return folder

    def open(self, folder: Path, name: str, version: str) -> ServedModel:
        """Open a version, as far as a fake can be opened."""
        self.opened.append(version)
        written = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if written["broken"]:
            raise BadArtefact(f"version {version} is damaged", fix="export it again")
        session = self.sessions[version] = FakeSession()
        served = fake_served(self.folder.parent, session, task=written["task"])
        return replace(served, name=name, version=version)
