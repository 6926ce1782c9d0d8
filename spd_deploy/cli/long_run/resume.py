"""``spd train --resume --output DIR``: a run stores the options that it was started with.

``run.json`` holds these options, with absolute paths. An option that is given again replaces the
stored one. ``spd_train.run_folder`` then refuses settings that differ from the run's.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from spd_deploy.cli.options.common import Shapes
from spd_deploy.domain.errors import BadCheckpoint, BadSetting
from spd_deploy.domain.files import read_json
from spd_deploy.domain.folders import COMMAND, RUN_FILE, verb_of
from spd_train.family_folders import folders_of_members
from spd_train.seeds import folders_of_seeds

resume_option = click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in --output after a stop. The run knows its other options.",
)
# A finished run that is resumed with these options alone is shown without reading its data.
SHOWING_OPTIONS = {"output", "resume", "as_json", "threads"}
# Options of a single command, which are not stored.
_NOT_STORED = ("output", "resume", "as_json")
_PATHS = ("data_dir", "model", "teacher", "recipe", "latency_table", "class_weights")
_FILES = ("more_texts", "texts")


def options_given(context: click.Context) -> set[str]:
    """The parameter names of the options that the user typed."""
    return {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def command_of(options: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The options of a command for ``run.json``.

    Args:
        options: all options by parameter name.
        given: the names of those that were given.

    Returns:
        The given options as JSON values, without those that do not concern the run.
    """
    return {
        name: _stored(name, value)
        for name, value in options.items()
        if name in given and name not in _NOT_STORED and value is not None
    }


def run_to_resume(output: Path, verb: str = "train") -> dict[str, Any]:
    """The ``run.json`` in ``output``, or that of the first of several seeds or speed-ups.

    Args:
        output: folder of the run.
        verb: the command that resumes it, which must have started it.

    Raises:
        BadCheckpoint: there is no such file, or it is damaged.
        BadSetting: another command started the run.
    """
    from spd_train.run_folder import no_run_in

    parts = folders_of_seeds(output) or folders_of_members(output)
    folder = parts[0] if parts and not (output / RUN_FILE).exists() else output
    if not (folder / RUN_FILE).exists():
        raise no_run_in(output)
    run = read_json(folder / RUN_FILE, error=BadCheckpoint, fix="train again")
    if (own := verb_of(folder)) != verb:
        raise BadSetting(
            f"the run in {output} is one of spd {own}",
            got=f"spd {verb} --resume",
            fix=f"use spd {own} --resume",
        )
    command = run.get(COMMAND) or {}  # older versions stored none
    if folder == output:  # one seed or speed-up of several is resumed on its own
        alone = {"seeds"}
        if len(command.get("speedups") or ()) != 1:
            alone |= {"speedups", "max_drop", "compare_layers"}
        command = {name: value for name, value in command.items() if name not in alone}
    return {**run, COMMAND: command}


def resumed_options(
    options: Mapping[str, Any], given: Collection[str], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The options given now, completed by those that the run was started with.

    Args:
        options: all options by parameter name.
        given: the names of those that were given now.
        run: the run's ``run.json``.

    Raises:
        BadSetting: ``--seeds`` is given for a run of one seed.
    """
    command = run[COMMAND]
    if command and "seeds" in given and "seeds" not in command:
        raise BadSetting(
            "the run that is resumed has one seed",
            got=f"--seeds {options['seeds']}",
            fix="leave --seeds out, or choose another --output",
        )
    stored = {n: _read(n, v) for n, v in command.items() if n in options and n not in given}
    if command and "seed" not in given:
        stored["seed"] = run["recipe"]["seed"]
    return {**options, **stored}


def has_run(output: Path) -> bool:
    """Whether ``output`` holds a run, or a run of one of several seeds or speed-ups."""
    parts = (output, *folders_of_seeds(output), *folders_of_members(output))
    return any((p / RUN_FILE).exists() for p in parts)


def _stored(name: str, value: Any) -> Any:
    """An option's value as JSON; an existing path becomes absolute."""
    if name in _PATHS and os.path.exists(value):
        return os.path.abspath(value)
    if name == "shapes":
        return [str(shape) for shape in value]
    if name in _FILES:
        return [os.path.abspath(file) for file in value]
    return list(value) if isinstance(value, tuple) else str(value) if name in _PATHS else value


def _read(name: str, value: Any) -> Any:
    """The inverse of :func:`_stored`."""
    if name in ("data_dir", "latency_table"):
        return Path(value)
    if name == "shapes":
        return Shapes().convert(value, None, None)
    if name in _FILES:
        return tuple(map(Path, value))
    return tuple(value) if isinstance(value, list) else value
