"""Artefacts that OpenVINO can read too."""

import shutil
from dataclasses import replace
from pathlib import Path

from spd_deploy.domain.artefact import Artefact, hashes_of, open_artefact, save_manifest
from spd_deploy.domain.runtimes import Runtime
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE


def with_portable(artefact: Artefact, folder: Path, *, runtime: Runtime | None = None) -> Artefact:
    """A copy in ``folder`` that has a portable file, and ``runtime`` in its manifest.

    Where the export wrote no such file, it is the model itself: its operators are standard ones.
    """
    shutil.copytree(artefact.folder, folder)
    if not (folder / PORTABLE_FILE).exists():
        shutil.copyfile(folder / MODEL_FILE, folder / PORTABLE_FILE)
    manifest = artefact.manifest
    runtime = runtime or manifest.runtime
    save_manifest(folder, replace(manifest, files=hashes_of(folder), runtime=runtime))
    return open_artefact(folder)
