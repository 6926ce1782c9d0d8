"""The output folder of a run: claimed by a new run, found by a resumed one, released on failure."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadCheckpoint, BadSetting, NotWritten
from spd_deploy.domain.files import read_json, refuse_unwritable, write_json
from spd_deploy.domain.folders import COMMAND, DISTIL_FILE, RUN_FILE, SPD_FILE, is_finished
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.stored_weights import has_weights, sha256_of_weights
from spd_train.training.best_checkpoint import BEST_FILE
from spd_train.training.state import STATE_FILE
from spd_train.training.trackers import TRACKERS_FILE

# The field of run.json that says where its models were read.
ORIGINS = "origins"
_NO_RUN = "there is no run to resume; leave --resume out"


def claim_folder(
    output: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    command: Mapping[str, Any] | None = None,
    origins: Mapping[str, Origin] | None = None,
) -> bool:
    """Claim the output folder for a run.

    Args:
        output: folder of the run.
        settings: all that decides the result; a resumed run must have the same.
        resume: continue the run that is in the folder.
        command: the options that started the run, stored beside the settings.
        origins: where models were read that are no folders of the user, stored likewise.

    Returns:
        Whether the run in the folder is finished already.

    Raises:
        NotWritten: the folder is not empty, and is not resumed.
        BadCheckpoint: there is no run to resume.
        BadSetting: the run in the folder has other settings.
    """
    refuse_taken(output, resume=resume)
    file = output / RUN_FILE
    if not resume:
        read = {role: origin.to_json() for role, origin in (origins or {}).items()}
        write_json(file, {**settings, ORIGINS: read, COMMAND: dict(command or {})})
        return False
    before = read_json(file, error=BadCheckpoint, fix=_NO_RUN)
    _refuse_differences(before, settings)
    return is_finished(output)


def refuse_taken(output: Path, *, resume: bool) -> None:
    """Refuse an output folder that cannot be used, before data and models are read.

    Raises:
        NotWritten: the folder is not empty and is not resumed, or cannot be written.
        BadCheckpoint: there is no run to resume.
    """
    if resume:
        if not (output / RUN_FILE).exists():
            raise no_run_in(output)
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise NotWritten(
            f"{output} already exists",
            fix="choose another --output, or continue the run there with --resume",
        )
    refuse_unwritable(output, output)


def no_run_in(output: Path) -> BadCheckpoint:
    """The error for a folder without a run."""
    return BadCheckpoint("nothing to resume", got=f"no {RUN_FILE} in {output}", fix=_NO_RUN)


def remove_state(folder: Path) -> None:
    """Remove what a resumed run would continue from, once the run is finished."""
    for name in (STATE_FILE, BEST_FILE, TRACKERS_FILE):
        (folder / name).unlink(missing_ok=True)


def release_folder(output: Path) -> None:
    """Remove a folder in which nothing was trained, so that the next try can use it."""
    if not any(p.name in (STATE_FILE, SPD_FILE, DISTIL_FILE) for p in output.rglob("*")):
        shutil.rmtree(output, ignore_errors=True)


def identity_of(reference: str | None) -> str | None:
    """The identity of a model: the hash of local weights, or the name of a hub model."""
    sha256 = local_sha256(reference)
    return f"sha256:{sha256}" if sha256 else reference


def local_sha256(reference: str | None) -> str | None:
    """The SHA-256 of a local model's weights; None for a hub model."""
    if reference is None or not has_weights(Path(reference)):
        return None
    return sha256_of_weights(Path(reference))


def _refuse_differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> None:
    """Refuse to resume a run with other settings than those it was started with."""
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            _refuse_differences(old, value, f"{path}{name}.")
        elif old != value:
            raise BadSetting(
                f"the run that is resumed had another {path}{name}",
                got=f"{value}, it had {old}",
                fix="use the same command as before, or another --output",
            )
