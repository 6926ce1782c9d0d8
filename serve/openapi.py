"""The app's own description of itself, which must be true: bodies, answers, and every error.

The routes read their bodies themselves, more strictly than the framework would, so the framework
does not know them: :class:`Described` adds their schemas to ``/openapi.json``, with the bounds and
the examples of the model that is served.
"""

import copy
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.protocols import native, tei
from serve.protocols.form import Form

_REF = "#/components/schemas/{model}"


def body(model: type[BaseModel]) -> dict[str, Any]:
    """What an operation's description says of its body."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class Described(FastAPI):
    """A FastAPI app whose description includes the bodies its routes read themselves."""

    def __init__(
        self, *, bodies: list[type[BaseModel]], form: Callable[[], Form], **options: Any
    ) -> None:
        """``form`` tells what the model takes at the moment; ``options`` are FastAPI's own."""
        super().__init__(**options)
        self._bodies, self._form = bodies, form

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description of the model that is served now."""
        described = copy.deepcopy(super().openapi())
        _, found = models_json_schema(
            [(model, "validation") for model in self._bodies], ref_template=_REF
        )
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(found["$defs"])
        form = self._form()
        for fit in (native.fit, tei.fit):
            fit(schemas, form)
        return described
