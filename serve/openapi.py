"""The app's own description of itself, which must be true: bodies, answers, and every error.

The routes read their bodies themselves, more strictly than the framework would, so the framework
does not know them: :class:`Described` adds their schemas to ``/openapi.json``.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REF = "#/components/schemas/{model}"


def body(model: type[BaseModel]) -> dict[str, Any]:
    """What an operation's description says of its body."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class Described(FastAPI):
    """A FastAPI app whose description includes the bodies its routes read themselves."""

    def __init__(self, *, bodies: list[type[BaseModel]], **options: Any) -> None:
        """``options`` are FastAPI's own."""
        super().__init__(**options)
        self._bodies = bodies

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description."""
        described = super().openapi()
        _, found = models_json_schema(
            [(model, "validation") for model in self._bodies], ref_template=_REF
        )
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(found["$defs"])
        return described
