"""``--config FILE``: the options of a command in a TOML file, read strictly.

    port = 9000
    max-body-bytes = 500000
    cors-origins = ["https://app.example.org"]

A key is an option without its dashes in front. A file gives defaults: an environment variable or an
option on the command line overrides it.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from spd_deploy.cli.options.common import Command, NameList, Share
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import read_toml

_FIX = "correct the file"


def config_option(command: str) -> Callable[[Command], Command]:
    """The option ``--config`` of a command, whose other options the file may give."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_use_config,
        help=f"TOML file with options of {command}: a key is an option without its dashes in "
        "front, such as max-body-bytes. Variables and options override it. Default: no file.",
    )


def options_from(file: Path, ctx: click.Context) -> dict[str, Any]:
    """The values in ``file`` under the names that the command uses.

    Raises:
        BadSetting: the file is missing or not TOML, or a key is unknown or its value wrong; with
            the line.
    """
    given = read_toml(file, error=BadSetting, fix="check the path and the file")
    lines = file.read_text(encoding="utf-8").splitlines()
    options = dict(_options_of(ctx.command))
    found = {}
    for key, value in given.items():
        where = f"{file}, line {_line_of(key, lines)}"
        if key not in options:
            raise BadSetting(f"{where}: unknown key", got=key, fix=_advice(key, options))
        option = options[key]
        _refuse_value(option, key, value, where, ctx)
        found[option.name or ""] = _several(value) if option.multiple else value
    return found


def _use_config(ctx: click.Context, param: click.Parameter, file: Path | None) -> None:
    """Make the file's values the command's defaults."""
    if file is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **options_from(file, ctx)}


def _options_of(command: click.Command) -> Iterator[tuple[str, click.Option]]:
    """The options that a file may give, by their keys."""
    for one in command.params:
        if isinstance(one, click.Option) and one.name != "config":
            yield one.opts[0].removeprefix("--"), one


def _refuse_value(
    option: click.Option, key: str, value: Any, where: str, ctx: click.Context
) -> None:
    """Refuse a value of another type than the option's, or one that the option refuses.

    Raises:
        BadSetting: with the place, the key and the value.
    """
    wanted = _wanted(option)
    if type(value) not in _TOML_TYPES[wanted]:
        raise BadSetting(f"{where}: {key} must be {wanted}", got=repr(value), fix=_FIX)
    try:
        for one in _several(value) if option.multiple else [value]:
            converted = option.type.convert(one, option, ctx)
            if option.callback is not None:
                option.callback(ctx, option, converted)
    except click.BadParameter as err:
        raise BadSetting(f"{where}: {key}: {err.message}", fix=_FIX) from err


def _several(value: Any) -> list[Any]:
    """The values of an option that may be repeated."""
    return value if isinstance(value, list) else [value]


def _wanted(option: click.Option) -> str:
    """The type of an option's value in words."""
    if option.multiple:
        return "a list of strings"
    match option.type:
        case click.types.BoolParamType():
            return "true or false"
        case click.IntRange() | click.types.IntParamType():
            return "a whole number"
        case click.FloatRange() | click.types.FloatParamType():
            return "a number"
        case Share():
            return "off, all or a share"
        case NameList():
            return "a list of strings"
        case _:
            return "a string"


_TOML_TYPES: Mapping[str, tuple[type, ...]] = {
    "true or false": (bool,),
    "a whole number": (int,),
    "a number": (int, float),
    "a list of strings": (list, str),
    "off, all or a share": (str, int, float),
    "a string": (str,),
}


def _line_of(key: str, lines: list[str]) -> int:
    """The line of a key or of its table, counted from 1."""
    form = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((i for i, line in enumerate(lines, 1) if form.match(line)), 1)


def _advice(key: str, options: Mapping[str, Any]) -> str:
    """The remedy for an unknown key."""
    close = difflib.get_close_matches(key.replace("_", "-").lstrip("-"), options, 1)
    return f"did you mean {close[0]}?" if close else "see spd serve --help for the options"
