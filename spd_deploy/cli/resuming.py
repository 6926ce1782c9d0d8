"""``spd train --resume --output DIR`` alone: a run knows the command that began it.

The options that were given stand in ``run.json``, with paths that hold from any folder. Options
given again win over them; whether the run agrees is judged as ever (``spd_train.claiming``).
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.errors import BadCheckpoint, BadSetting
from spd_deploy.domain.files import read_json
from spd_deploy.domain.folders import COMMAND, RUN_FILE
from spd_train.seeds import folders_of_seeds

# Options that say how a command behaves, and nothing of the run.
_OF_THE_CALL = ("output", "resume", "as_json")
_PATHS = ("data_dir", "model", "teacher", "recipe_name")


def options_given(context: click.Context) -> set[str]:
    """The names of the options that the user typed."""
    return {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def command_of(options: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """What ``run.json`` keeps of a command: each option that was given, as a JSON value."""
    return {
        name: _stored(name, value)
        for name, value in options.items()
        if name in given and name not in _OF_THE_CALL and value is not None
    }


def run_to_resume(output: Path) -> dict[str, Any]:
    """The ``run.json`` in ``output``, or that of its first seed.

    Raises:
        BadCheckpoint: there is none, or it is damaged.
    """
    from spd_train.claiming import no_run_in

    seeds = folders_of_seeds(output)
    folder = seeds[0] if seeds and not (output / RUN_FILE).exists() else output
    if not (folder / RUN_FILE).exists():
        raise no_run_in(output)
    found = read_json(folder / RUN_FILE, error=BadCheckpoint, fix="train again")
    command = found.get(COMMAND) or {}  # an older version kept none
    if folder == output:  # of one of several seeds the run is resumed alone
        command = {name: value for name, value in command.items() if name != "seeds"}
    return {**found, COMMAND: command}


def resumed_options(
    options: Mapping[str, Any], given: Collection[str], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a resumed run: those given now, and of the others those it began with.

    Raises:
        BadSetting: several seeds are asked of a run of one.
    """
    command = run[COMMAND]
    if command and "seeds" in given and "seeds" not in command:
        raise BadSetting(
            "the run to be resumed has one seed",
            got=f"--seeds {options['seeds']}",
            fix="leave --seeds out, or choose another --output",
        )
    before = {n: _read(n, v) for n, v in command.items() if n in options and n not in given}
    if command and "seed" not in given:
        before["seed"] = run["recipe"]["seed"]
    return {**options, **before}


def has_run(output: Path) -> bool:
    """Whether a run, or one of several seeds, was begun in ``output``."""
    return any((p / RUN_FILE).exists() for p in (output, *folders_of_seeds(output)))


def is_finished(output: Path) -> bool:
    """Whether the run of one seed in ``output`` came to its end."""
    return (output / SPD_FILE).exists()


def _stored(name: str, value: Any) -> Any:
    """An option's value for JSON; what lies on this disk by its whole path."""
    if name in _PATHS and os.path.exists(value):
        return os.path.abspath(value)
    return list(value) if isinstance(value, tuple) else str(value) if name in _PATHS else value


def _read(name: str, value: Any) -> Any:
    """The inverse of :func:`_stored`."""
    if name == "data_dir":
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
