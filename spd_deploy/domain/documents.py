"""Versioned JSON documents: frozen values written as JSON, and read back strictly.

Reports, maps, tunings and manifests are such. What is read has the schema that this version knows,
no field unknown, none missing, each of its own type.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from spd_deploy.domain.errors import SpdError

Value = TypeVar("Value")


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


def value_of(
    kind: type[Value], fields: Mapping[str, Any], *, what: object, error: type[SpdError], fix: str
) -> Value:
    """The dataclass ``kind`` that ``fields`` make up; raises ``error`` with the field amiss."""
    from pydantic import TypeAdapter, ValidationError

    try:
        # As JSON, where a list stands for a tuple; otherwise no type passes for another.
        return TypeAdapter(kind).validate_json(json.dumps(fields), strict=True)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise error(f"{what} is damaged", got=f"{where}: {first['msg']}", fix=fix) from err
    except error:
        raise
    except SpdError as err:  # a part that refuses its values
        raise error(f"{what} is damaged", got=err, fix=fix) from err


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
