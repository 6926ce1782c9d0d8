"""Arguments of a function as the options of a command that does the work: train, prune, export.

A parameter is named as its option, with underscores: ``max_drop`` is ``--max-drop``. Which values
are allowed is declared once, as the types of the click options.
"""

import contextlib
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from spd_deploy.domain.errors import BadSetting, OptionConflict


def parameter_name(parameter: click.Parameter) -> str:
    """The name in Python: that of the long option (``--max-drop``), or of the argument."""
    long = [name for name in parameter.opts if name.startswith("--")]
    return (long[0] if long else parameter.opts[0]).lstrip("-").replace("-", "_").lower()


def checked(command: click.Command, values: Mapping[str, object]) -> dict[str, Any]:
    """The values under their names in Python, each converted by the type of its option.

    Raises:
        BadSetting: a value that the command line would refuse too.
    """
    context = click.Context(command, info_name=command.name)
    by_name = {parameter_name(one): one for one in command.params}
    return {name: _checked(context, by_name[name], value) for name, value in values.items()}


def as_options(command: click.Command, values: Mapping[str, object]) -> dict[str, Any]:
    """The values, and the defaults of all other options, under the names that the command uses.

    Raises:
        BadSetting: a value that the command line would refuse too.
    """
    names = {parameter_name(one): one.name or "" for one in command.params}
    given = {names[name]: value for name, value in checked(command, values).items()}
    return {**defaults_of(command), **given}


def defaults_of(command: click.Command) -> dict[str, Any]:
    """The default of every option and argument, under the names that the command uses."""
    context = command.make_context(command.name, [], resilient_parsing=True)
    return {one.name or "": context.params.get(one.name or "") for one in command.params}


def options_given(command: click.Command, values: Mapping[str, object]) -> set[str]:
    """The names, as the command uses them, of the options whose value is not the default."""
    before, now = defaults_of(command), as_options(command, values)
    return {name for name, value in now.items() if value != before[name]}


@contextlib.contextmanager
def no_usage_errors(command: click.Command) -> Iterator[None]:
    """Turn click's errors about options into ours.

    Raises:
        OptionConflict: where the block raised a usage error.
    """
    try:
        yield
    except click.UsageError as err:
        raise OptionConflict(err.message, fix=_help(command)) from err


def _checked(context: click.Context, parameter: click.Parameter, value: object) -> Any:
    """One value; None stands for an option that was left out."""
    if value is None and not parameter.required:
        return None
    try:
        found = _converted(context, parameter, _plain(value))
        if parameter.callback is not None:
            found = parameter.callback(context, parameter, found)
    except click.BadParameter as err:
        raise BadSetting(
            f"{parameter_name(parameter)}: {err.message.rstrip('.')}", fix=_help(context.command)
        ) from err
    except (TypeError, ValueError) as err:
        raise BadSetting(
            f"{parameter_name(parameter)} must be {_wanted(parameter)}",
            got=repr(value),
            fix=_help(context.command),
        ) from err
    return found


def _converted(context: click.Context, parameter: click.Parameter, value: object) -> Any:
    """The value in the option's type; several values of an option that may be repeated."""
    kind = parameter.type
    if parameter.multiple or parameter.nargs == -1:
        many = [value] if isinstance(value, str) else _items(value)
        return tuple(kind.convert(_scalar(kind, one), parameter, context) for one in many)
    # These import this package for their defaults.
    from spd_deploy.cli.options.common import NameList, Shapes, Sizes
    from spd_deploy.cli.options.speed_options import Factors

    if isinstance(kind, NameList | Shapes | Factors):
        return kind.convert(value, parameter, context)
    if isinstance(kind, Sizes) and not isinstance(value, str):
        numbers = _items(value) if isinstance(value, Iterable) else [value]
        value = Sizes.spelled([operator.index(one) for one in numbers])  # type: ignore[arg-type]
        return kind.convert(value, parameter, context)
    return kind.convert(_scalar(kind, value), parameter, context)


def _scalar(kind: click.ParamType[Any], value: object) -> object:
    """The value, if it is one of the kind of Python that the option's type stands for.

    Raises:
        TypeError: click would turn 1.5 into 1, and anything into text.
    """
    value = _plain(value)
    match kind:
        case click.types.BoolParamType() if not isinstance(value, bool):
            raise TypeError
        case _ if isinstance(value, bool) and not isinstance(kind, click.types.BoolParamType):
            raise TypeError
        case click.types.IntParamType():
            return operator.index(value)  # type: ignore[arg-type]
        case click.types.FloatParamType():
            return float(value)  # type: ignore[arg-type]
        case click.types.BoolParamType():
            return value
        case _ if not isinstance(value, str):
            raise TypeError
        case _:
            return value


def _wanted(parameter: click.Parameter) -> str:
    """The values that an option takes, in words of Python."""
    match parameter.type:
        case click.types.BoolParamType():
            kind = "True or False"
        case click.types.IntParamType():
            kind = "a whole number"
        case click.types.FloatParamType():
            kind = "a number"
        case click.Path():
            kind = "a path"
        case click.Choice() | click.types.StringParamType():
            kind = "a string"
        case _:
            kind = "a list of whole numbers"
    return f"{kind}, or several" if parameter.multiple else kind


def _plain(value: object) -> object:
    """A path as text; all else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _items(value: object) -> list[object]:
    """The items of a list or of another iterable.

    Raises:
        TypeError: it is none.
    """
    return list(value)  # type: ignore[call-overload, no-any-return]


def _help(command: click.Command) -> str:
    """The command that explains the options."""
    return f"see spd {command.name} --help"
