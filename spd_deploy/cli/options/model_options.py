"""The options of ``spd serve`` that say which models it has, and when they are replaced."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from spd_deploy.cli.options.common import Command

_log = logging.getLogger(__name__)

_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.argument("artefact", nargs=-1, metavar="[NAME=]ARTEFACT..."),
    click.option(
        "--model-repository",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of models in Triton's layout: NAME/VERSION/artefact. The highest version of "
        "each is served. Use it in the place of ARTEFACT to replace models while the server runs. "
        "Default: none.",
    ),
    click.option(
        "--watch/--no-watch",
        default=False,
        help="Replace a model when its files have changed: the new one is opened and verified "
        "beside the old one, which answers until then. Models that are added to the repository "
        "are served too, and removed ones are unloaded. Default: only SIGHUP and clients that may "
        "control models do that.",
    ),
    click.option(
        "--shadow",
        multiple=True,
        metavar="NAME=OTHER@SHARE",
        help="Run a share of the requests of model NAME on model OTHER too, after they are "
        "answered, and count in the metrics how often and how far the two differ. May be repeated. "
        "Default: none.",
    ),
)


def model_options(command: Command) -> Command:
    """The argument ARTEFACT and the options of this module."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def named_paths(
    artefacts: Sequence[str], say: Callable[[str], None] = _log.warning
) -> list[tuple[str, Path]]:
    """Each artefact with the name under which it is served; copied here if it is elsewhere.

    Args:
        artefacts: ``PATH``, ``ADDRESS``, ``NAME=PATH`` or ``NAME=ADDRESS``.
        say: gets what an operator should know of a copy.
    """
    from serve.repository import named_path
    from spd_deploy.hub.fetch import fetch_model

    found = []
    for spelled in artefacts:
        name, path = named_path(spelled)
        fetched = fetch_model(path, note=say)
        is_named = path != Path(spelled)
        of_copy = fetched.origin is not None and not is_named
        found.append((fetched.name if of_copy else name, fetched.folder))
    return found
