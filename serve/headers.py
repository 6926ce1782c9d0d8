"""Reads single headers of a request.

Starlette's ``Headers`` decodes all names for each header asked for, and raises and catches an
exception for each that is missing; on every request that adds up.
"""

from collections.abc import Mapping
from typing import Any


def header_of(scope: Mapping[str, Any], name: bytes, default: str = "") -> str:
    """The first header of this name, which is in lower case; ``default`` where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return default
