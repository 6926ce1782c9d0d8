"""Versioned JSON documents: frozen values written as JSON, and read back strictly.

Reports, maps, tunings and manifests are such. What is read has the schema that this version knows,
no field unknown, none missing, each of its own type.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

from spd_deploy.domain.errors import SpdError

Value = TypeVar("Value")

# The field of a document that holds the hash of all its other fields.
_OWN_HASH = "sha256"


def text_of(document: Mapping[str, Any]) -> str:
    """The document as indented JSON; a list of numbers, such as samples, on one line."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[-+\d.e,\s]+\]", lambda match: " ".join(match[0].split()), text) + "\n"


def refuse_schema(
    document: Mapping[str, Any], schema: int, *, what: object, error: type[SpdError], fix: str
) -> None:
    """Refuse a document of another version; raises ``error``."""
    if document.get("schema") != schema:
        raise error(
            f"{what} has a schema this version does not read", got=document.get("schema"), fix=fix
        )


def with_own_hash(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the SHA-256 of its content in it, after its first field."""
    content = {name: part for name, part in document.items() if name != _OWN_HASH}
    (first, *others) = content.items()
    return dict([first, (_OWN_HASH, _hash_of(content)), *others])


def without_own_hash(
    document: Mapping[str, Any], *, what: object, error: type[SpdError], fix: str
) -> dict[str, Any]:
    """The document's content, if it has the SHA-256 that stands in it.

    The hash is of the values, however they are laid out as JSON. Raises ``error`` where it differs
    or is missing.
    """
    content = {name: part for name, part in document.items() if name != _OWN_HASH}
    expected, found = document.get(_OWN_HASH), _hash_of(content)
    if expected != found:
        raise error(
            f"{what} was changed after it was written",
            got=f"SHA-256 {found[:12]}, expected {str(expected)[:12]}",
            fix=fix,
        )
    return content


def _hash_of(content: Mapping[str, Any]) -> str:
    """The SHA-256 of values, spelled in one way."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def value_of(
    kind: type[Value],
    fields: Mapping[str, Any],
    *,
    what: object,
    error: type[SpdError],
    fix: str,
    defaults: bool = True,
) -> Value:
    """The dataclass ``kind`` that ``fields`` make up, and its parts likewise.

    A list stands for a tuple. Otherwise no type passes for another. ``error`` is raised with the
    path of a field that is unknown, missing or of the wrong type. Without ``defaults`` a field that
    has a default must be there too, so that an older file does not change its meaning.
    """
    from pydantic import ValidationError

    # Before what is missing: a misspelled field is both.
    known = {field.name for field in dataclass_fields(cast("Any", kind))}
    if unknown := [name for name in fields if name not in known]:
        raise error(f"{what} has an unknown field", got=unknown[0], fix=fix)
    text = json.dumps(fields, default=str)  # a date of TOML is no string
    try:
        value: Value = _reader_of(cast("Any", kind)).validate_json(text, strict=True)
    except ValidationError as err:
        reason, got = _reason_of_fault(err.errors()[0], what)
        raise error(reason, got=got, fix=fix) from err
    except error:
        raise
    except SpdError as err:  # a part that refuses its values
        raise error(f"{what} is damaged", got=err, fix=fix) from err
    for fault, path in _faults(value, fields, defaults=defaults):
        raise error(f"{what} {fault}", got=path, fix=fix)
    return value


def _reason_of_fault(fault: Any, what: object) -> tuple[str, object]:
    """The first fault that pydantic found: what is wrong, and what was there."""
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"{what} lacks a field", where
    return f"{what} is damaged", f"{where}: {fault['msg']}"


def _faults(
    value: object, document: Any, *, defaults: bool, path: str = ""
) -> Iterator[tuple[str, str]]:
    """The faults that pydantic lets through, each with the path of its field.

    These are unknown fields, numbers that are not finite, and, without ``defaults``, fields that
    were left out.
    """
    if isinstance(value, float) and not math.isfinite(value):
        yield "holds a number that is not finite", path
    above = f"{path}." if path else ""
    parts: list[tuple[str, object, Any]] = []
    if is_dataclass(value):
        names = {field.name for field in dataclass_fields(value)}
        yield from (("has an unknown field", f"{above}{n}") for n in sorted(set(document) - names))
        if not defaults:
            yield from (("lacks a field", f"{above}{n}") for n in sorted(names - set(document)))
        parts = [(name, getattr(value, name), document[name]) for name in names & set(document)]
    elif isinstance(value, Mapping):
        parts = [(str(name), part, document[name]) for name, part in value.items()]
    elif isinstance(value, tuple | list):
        both = zip(value, document, strict=True)
        parts = [(str(i), part, inner) for i, (part, inner) in enumerate(both)]
    for name, part, inner in parts:
        yield from _faults(part, inner, defaults=defaults, path=f"{above}{name}")


@cache
def _reader_of(kind: Any) -> Any:
    """The reader of a dataclass from JSON; making one takes longer than reading by it."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def versioned(
    kind: type[Value],
    document: Mapping[str, Any],
    schema: int,
    *,
    what: object,
    error: type[SpdError],
    fix: str,
    other: str | None = None,
) -> Value:
    """The dataclass ``kind`` in a document of this ``schema``; raises ``error`` where it is none.

    ``other`` is what to do about another version, where that is not ``fix``.
    """
    refuse_schema(document, schema, what=what, error=error, fix=other or fix)
    fields = {name: part for name, part in document.items() if name != "schema"}
    return value_of(kind, fields, what=what, error=error, fix=fix)
