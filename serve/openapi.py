"""The app's OpenAPI description: bodies, responses, and every error.

The handlers read their bodies themselves, more strictly than FastAPI would, so FastAPI does not
know them. :class:`DocumentedApp` adds their schemas, with the limits and the examples of the model
that is open.
"""

import copy
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic.json_schema import models_json_schema
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.access import Access
from serve.http_errors import error_responses
from serve.protocol import Endpoint, HttpProtocol
from serve.protocols.input_spec import InputSpec
from spd_deploy.domain.errors import Unauthenticated

_REF = "#/components/schemas/{model}"
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


class DocumentedApp(FastAPI):
    """A FastAPI app whose OpenAPI description includes the bodies that handlers read themselves.

    FastAPI describes the endpoints and never answers them; the middleware does. They are handed to
    it when the description is first asked for, which the start does not wait for.
    """

    def __init__(
        self,
        *,
        protocols: Sequence[HttpProtocol],
        input_spec: Callable[[], InputSpec],
        access: Access,
        **options: Any,
    ) -> None:
        """``input_spec`` gives the open model's input; ``options`` are FastAPI's own."""
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, **options)
        self._protocols, self._input_spec, self._access = protocols, input_spec, access
        self._undescribed = list(protocols)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the middleware; FastAPI would ask its own tracing about it first.

        Requests would then have two spans, and wait a few hundredths of a millisecond.
        """
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description, with the limits and examples of the model that is open now."""
        while self._undescribed:
            self.include_router(_described(self._undescribed.pop(0)))
        described = copy.deepcopy(super().openapi())
        endpoints = [one for protocol in self._protocols for one in protocol.endpoints()]
        bodies = {model: None for endpoint in endpoints for model in endpoint.body}
        _, found = models_json_schema(
            [(model, "validation") for model in bodies], ref_template=_REF
        )
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(found["$defs"])
        spec = self._input_spec()
        for protocol in self._protocols:
            protocol.specialise(schemas, spec)
        for endpoint in endpoints:
            if endpoint.reranks and not spec.reranks:
                described["paths"].pop(endpoint.path, None)
        for protocol in self._protocols:
            for endpoint in protocol.endpoints():
                if self._access.needs_key(endpoint.audience):
                    _ask_for_key(described, endpoint, protocol)
        _name_the_model(described, spec)
        _drop_unused(described)
        return described


def _ask_for_key(described: dict[str, Any], endpoint: Endpoint, protocol: HttpProtocol) -> None:
    """Say that the endpoint needs an API key, and how a request without one is refused."""
    described["components"]["securitySchemes"] = _SCHEMES
    operation = described["paths"].get(endpoint.path, {}).get(endpoint.method.lower())
    if operation is None:
        return
    operation["security"] = [{name: []} for name in _SCHEMES]
    for status, answer in error_responses(protocol.errors, Unauthenticated).items():
        model = answer["model"].__name__
        content = {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}
        operation["responses"][str(status)] = {
            "description": answer["description"],
            "content": content,
        }
        _, found = models_json_schema([(answer["model"], "serialization")], ref_template=_REF)
        described["components"]["schemas"].update(found["$defs"])


def _name_the_model(described: dict[str, Any], spec: InputSpec) -> None:
    """Give the parameters of paths the values that they may have."""
    for operations in described["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                parameter["schema"]["enum"] = spec.path_values[parameter["name"]]


def _drop_unused(described: dict[str, Any]) -> None:
    """Drop the schemas that no path refers to, directly or through others."""
    schemas = described["components"]["schemas"]
    used: set[str] = set()
    new = _references(described["paths"])
    while new := new - used:
        used |= new
        new = set().union(*(_references(schemas[name]) for name in new))
    described["components"]["schemas"] = {name: schemas[name] for name in schemas if name in used}


def _references(part: Any) -> set[str]:
    """The names of the schemas that a part of the description refers to."""
    return set(re.findall(r"#/components/schemas/([\w.-]+)", json.dumps(part)))


def _described(protocol: HttpProtocol) -> APIRouter:
    """The endpoints of a protocol as FastAPI describes them."""
    router = APIRouter()
    for endpoint in protocol.endpoints():
        if endpoint.described:
            router.add_api_route(
                endpoint.path,
                endpoint.handler,
                methods=[endpoint.method],
                responses=error_responses(protocol.errors, *endpoint.refusals),
                openapi_extra=_read_from_request(endpoint),
                **_reply(endpoint),
            )
    return router


def _reply(endpoint: Endpoint) -> dict[str, Any]:
    """FastAPI's option for the reply: a model of JSON, or a response of another media type."""
    reply = endpoint.reply
    if isinstance(reply, type) and issubclass(reply, Response):
        return {"response_class": reply}
    return {"response_model": reply}


def _read_from_request(endpoint: Endpoint) -> dict[str, Any]:
    """The body and the parameters of the path, which FastAPI does not see."""
    extra: dict[str, Any] = {}
    if endpoint.body:
        refs = [{"$ref": _REF.format(model=model.__name__)} for model in endpoint.body]
        schema = refs[0] if len(refs) == 1 else {"oneOf": refs}
        extra["requestBody"] = {
            "required": endpoint.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    if names := re.findall(r"{(\w+)}", endpoint.path):
        extra["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    return extra
