"""An option of ``spd serve`` for each limit of the server, made from the fields of its settings.

Seconds are not named: the option of ``drain_timeout_s`` is ``--drain-timeout``.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from serve.settings import ServeSettings, described_settings
from spd_deploy.cli.options.common import Command, NameList, finite

# Options that are not called as their fields.
_NAMES = {"max_queue_items": "max_queue", "max_batch_s": "max_batch_time"}
# Limits that may be 0.
_FROM_ZERO = ("window_stride",)


def limit_options(command: Command) -> Command:
    """Give a command an option for every limit, in the order of the fields."""
    hints, texts = get_type_hints(ServeSettings), described_settings()
    for field in reversed(fields(ServeSettings)):
        command = _option_of(field, hints[field.name], texts.get(field.name, ""))(command)
    return command


def settings_from(options: dict[str, Any]) -> ServeSettings:
    """The limits that the options ask for; they are taken out of ``options``."""
    return ServeSettings(
        **{field.name: options.pop(parameter_of(field.name)) for field in fields(ServeSettings)}
    )


def parameter_of(name: str) -> str:
    """The option's name in Python of a field: seconds are not named in it."""
    return _NAMES.get(name, name.removesuffix("_s"))


def flag_of(name: str) -> str:
    """The option of a field, such as ``--drain-timeout``."""
    return "--" + parameter_of(name).replace("_", "-")


def _option_of(field: "Field[Any]", hint: Any, text: str) -> Callable[[Command], Command]:
    """The option of one field, by its type."""
    flag = flag_of(field.name)
    text = text[:1].upper() + text[1:]
    given: Mapping[str, Any] = {"default": field.default, "show_default": True, "help": text}
    if field.default is None or field.default == ():
        given = {"default": field.default, "help": f"{text} Default: none."}
    match _type_of(hint):
        case kind if kind is bool:
            return click.option(f"{flag}/{flag.replace('--', '--no-', 1)}", **given)
        case kind if kind is int:
            least = 0 if field.name in _FROM_ZERO else 1
            return click.option(flag, type=click.IntRange(least), **given)
        case kind if kind is float:
            kind = click.FloatRange(0, min_open=True)
            return click.option(flag, type=kind, callback=finite, **given)
        case kind if kind is str:
            return click.option(flag, **given)
        case kind if get_origin(kind) is Literal:
            return click.option(flag, type=click.Choice(get_args(kind)), **given)
        case kind if get_origin(kind) is tuple:
            return click.option(flag, type=NameList(), **given)
        case kind:
            raise TypeError(f"{field.name}: no option is known for {kind}")


def _type_of(hint: Any) -> Any:
    """The type of a field whose value may also be None."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    return hint
