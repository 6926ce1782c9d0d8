"""Frozen values from JSON, strictly: no field unknown, none missing, each of its own type."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast, get_type_hints

from spd_deploy.domain.errors import BadSetting

Value = TypeVar("Value")

_FIX = "compare it with the recipe in a spd.json that this version wrote"


def strictly(kind: type[Value], value: object, *, place: str = "the recipe") -> Value:
    """``value`` as the dataclass ``kind``, and its parts likewise.

    Raises:
        BadSetting: naming the field that is unknown, missing or of the wrong type.
    """
    if not isinstance(value, Mapping):
        raise BadSetting(f"{place} is no object", got=type(value).__name__, fix=_FIX)
    hints = get_type_hints(kind)
    names = [field.name for field in fields(cast("Any", kind))]
    if unknown := sorted(set(value) - set(names)):
        raise BadSetting(f"{place} has an unknown field", got=unknown[0], fix=_FIX)
    if missing := [name for name in names if name not in value]:
        raise BadSetting(f"{place} lacks a field", got=missing[0], fix=_FIX)
    return kind(
        **{name: _read(hints[name], value[name], place=f"{place}, {name}") for name in names}
    )


def _read(kind: Any, value: object, *, place: str) -> object:
    """One field."""
    from pydantic import TypeAdapter, ValidationError

    if is_dataclass(kind) and isinstance(kind, type):
        return strictly(kind, value, place=place)
    try:
        # JSON has no tuples: a list will do for one. Otherwise no type passes for another.
        return TypeAdapter(kind).validate_python(value, strict=not isinstance(value, list))
    except ValidationError as err:
        raise BadSetting(
            f"{place}: {err.errors()[0]['msg'].lower()}", got=repr(value), fix=_FIX
        ) from err
