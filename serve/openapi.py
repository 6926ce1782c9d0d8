"""The app's OpenAPI description: bodies, responses, and every error.

The routes read their bodies themselves, more strictly than FastAPI would, so FastAPI does not know
them. :class:`DocumentedApp` adds their schemas to ``/openapi.json``, with the limits and the
examples of the model that is open.
"""

import copy
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.protocols import native, tei
from serve.protocols.input_spec import InputSpec

_REF = "#/components/schemas/{model}"


def request_body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI ``requestBody`` of an operation that reads ``model``."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class DocumentedApp(FastAPI):
    """A FastAPI app whose OpenAPI description includes the bodies that routes read themselves."""

    def __init__(
        self, *, bodies: list[type[BaseModel]], input_spec: Callable[[], InputSpec], **options: Any
    ) -> None:
        """``input_spec`` gives the open model's input; ``options`` are FastAPI's own."""
        super().__init__(**options)
        self._bodies, self._input_spec = bodies, input_spec

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description, with the limits and examples of the model that is open now."""
        described = copy.deepcopy(super().openapi())
        _, found = models_json_schema(
            [(model, "validation") for model in self._bodies], ref_template=_REF
        )
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(found["$defs"])
        spec = self._input_spec()
        for specialise in (native.specialise, tei.specialise):
            specialise(schemas, spec)
        return described
