"""Artefacts that OpenVINO can read too."""

import shutil
from dataclasses import replace
from pathlib import Path

from spd_deploy.domain.artefact import Artefact, hashes_of, open_artefact, save_manifest
from spd_deploy.domain.runtime_choice import Runtime


def with_portable(artefact: Artefact, folder: Path, *, runtime: Runtime | None = None) -> Artefact:
    """A copy in ``folder`` with ``runtime`` in its manifest."""
    shutil.copytree(artefact.folder, folder)
    manifest = artefact.manifest
    runtime = runtime or manifest.runtime
    save_manifest(folder, replace(manifest, files=hashes_of(folder), runtime=runtime))
    return open_artefact(folder)
