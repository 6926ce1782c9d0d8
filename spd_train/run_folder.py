"""The output folder of a run: claimed, found again, given back."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadCheckpoint, BadSetting, NotWritten
from spd_deploy.domain.files import read_json, refuse_unwritable, write_json
from spd_deploy.domain.folders import COMMAND, RUN_FILE
from spd_deploy.domain.stored_weights import has_weights, sha256_of_weights
from spd_train.training.state import STATE_FILE

_NO_RUN = "there is no run to resume; leave --resume out"


def begin(
    output: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    command: Mapping[str, Any] | None = None,
) -> Checkpoint | None:
    """Claim the output folder; a run that is finished already is returned.

    Args:
        output: becomes the run's folder.
        settings: what decides the outcome; a resumed run must have the same.
        resume: go on with the run that is there.
        command: how the run was begun on the command line, kept beside the settings.

    Raises:
        NotWritten: something is there, and it is not to be resumed.
        BadCheckpoint: there is nothing to resume.
        BadSetting: what is to be resumed was another run.
    """
    refuse_taken(output, resume=resume)
    file = output / RUN_FILE
    if not resume:
        write_json(file, {**settings, COMMAND: dict(command or {})})
        return None
    before = read_json(file, error=BadCheckpoint, fix=_NO_RUN)
    _refuse_differences(before, settings)
    return open_checkpoint(output) if (output / SPD_FILE).exists() else None


def refuse_taken(output: Path, *, resume: bool) -> None:
    """What can be refused of the folder before data and models are read.

    Raises:
        NotWritten: something is there, and it is not to be resumed.
        BadCheckpoint: there is nothing to resume.
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
    """The error for a folder in which no run was begun."""
    return BadCheckpoint("nothing to resume", got=f"no {RUN_FILE} in {output}", fix=_NO_RUN)


def give_back(output: Path) -> None:
    """Remove a folder in which nothing was trained yet, so that the next try finds it free."""
    if not any(p.name in (STATE_FILE, SPD_FILE) for p in output.rglob("*")):
        shutil.rmtree(output, ignore_errors=True)


def identity_of(reference: str | None) -> str | None:
    """A model by the hash of its weights, so that it may be moved; by name on the hub."""
    found = local_sha256(reference)
    return f"sha256:{found}" if found else reference


def local_sha256(reference: str | None) -> str | None:
    """The SHA-256 of a local model's weights; None for a name on the hub."""
    if reference is None or not has_weights(Path(reference)):
        return None
    return sha256_of_weights(Path(reference))


def _refuse_differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> None:
    """A resumed run with other settings would be neither the one nor the other."""
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            _refuse_differences(old, value, f"{place}{name}.")
        elif old != value:
            raise BadSetting(
                f"the run to be resumed had another {place}{name}",
                got=f"{value}, it had {old}",
                fix="use the same command as before, or another --output",
            )
