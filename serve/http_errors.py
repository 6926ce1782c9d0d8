"""Errors as HTTP: one table from error class to status, one small JSON body for all of them.

    {"error": "...", "error_type": "Overloaded", "code": "SPD_QUEUE_FULL", "request_id": "..."}

``error`` and ``error_type`` are Text Embeddings Inference's, with its names of the types; ``code``
is stable and says which of our errors it is. A body's size does not depend on the request, and an
error on our side tells nothing of its inside: the log has it, under the same request id.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spd_deploy.domain.errors import (
    BodyTooLarge,
    EmptyText,
    EngineFailed,
    MalformedRequest,
    NotJson,
    NotReady,
    Overloaded,
    Refusal,
    SpdError,
    TextTooLong,
    TooManyInputs,
    UnsupportedMedia,
)

_log = logging.getLogger(__name__)

REFUSED = "refused"  # where a request's state holds why it is not HTTP that can be answered
CLIENT_LEFT = 499  # nginx's number for it; never sent, since nobody is there
_MAX_MESSAGE = 300


class ClientLeft(Exception):
    """The client closed the connection before its answer was ready."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a class of errors looks to a client."""

    status: int
    error_type: str
    code: str


STATUS: Mapping[type[Refusal], Kind] = {
    NotJson: Kind(400, "Validation", "SPD_NOT_JSON"),
    EmptyText: Kind(400, "Empty", "SPD_EMPTY_TEXT"),
    BodyTooLarge: Kind(413, "Validation", "SPD_BODY_TOO_LARGE"),
    UnsupportedMedia: Kind(415, "Validation", "SPD_UNSUPPORTED_MEDIA"),
    MalformedRequest: Kind(422, "Validation", "SPD_MALFORMED"),
    TextTooLong: Kind(422, "Validation", "SPD_TEXT_TOO_LONG"),
    TooManyInputs: Kind(422, "Validation", "SPD_TOO_MANY_INPUTS"),
    Overloaded: Kind(429, "Overloaded", "SPD_QUEUE_FULL"),
    EngineFailed: Kind(500, "Backend", "SPD_ENGINE_FAILED"),
    NotReady: Kind(503, "Unhealthy", "SPD_NOT_READY"),
}
INTERNAL = Kind(500, "Backend", "SPD_INTERNAL")


class ErrorBody(BaseModel):
    """What every status of 400 and above carries."""

    error: str = Field(description="What is wrong and what to do about it.")
    error_type: str = Field(description="The kind of error, in the names of TEI.")
    code: str = Field(description="Which error it is; stable between versions.")
    request_id: str = Field(description="Also in the header X-Request-Id and in the log.")


def response_for(error: BaseException, request_id: str) -> Response:
    """The answer to a request that ended in ``error``."""
    if isinstance(error, ClientLeft):
        return Response(status_code=CLIENT_LEFT)
    if isinstance(error, HTTPException):
        return _response(
            _kind_of_status(error.status_code), error.detail, request_id, error.headers
        )
    kind = STATUS.get(type(error), INTERNAL) if isinstance(error, Refusal) else INTERNAL
    if not isinstance(error, SpdError) or kind is INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
        return _response(kind, "the server failed; its log says why", request_id)
    return _response(kind, _told(error, kind), request_id, _advice(error))


async def on_error(request: Request, error: Exception) -> Response:
    """The app's handler for every exception that has an answer."""
    if isinstance(error, HTTPException):
        error = _of_path(request, error)
    return response_for(error, request_id_of(request.scope))


def _of_path(request: Request, error: HTTPException) -> HTTPException:
    """The framework's own refusals of a path or a method, in our words."""
    path = request.url.path
    match error.status_code:
        case 404:
            return HTTPException(404, f"no such path; got {path}; /docs lists those there are")
        case 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            told = f"{path} does not take this method; got {request.method}; use {allowed}"
            return HTTPException(405, told, {"Allow": allowed})
        case _:
            return error


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id that the middleware gave the request."""
    return str(scope.get("state", {}).get("request_id", ""))


def refusals(*errors: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """The part of an OpenAPI description that says how these errors are answered."""
    told: dict[int, list[str]] = {}
    for error in errors:
        meaning = (error.__doc__ or "").partition(";")[0].replace("``", "").rstrip(".")
        told.setdefault(STATUS[error].status, []).append(f"{STATUS[error].code}: {meaning}.")
    return {
        status: {"model": ErrorBody, "description": "\n".join(lines)}
        for status, lines in sorted(told.items())
    }


def _told(error: SpdError, kind: Kind) -> str:
    """The error in one line; what was got is left out where it comes from our inside."""
    shown = [
        error.what,
        *([f"got {error.got}"] if error.got and kind.status < 500 else []),
        error.fix,
    ]
    return "; ".join(" ".join(part.split()) for part in shown)


def _response(
    kind: Kind, message: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The JSON body."""
    body = ErrorBody(
        error=message[:_MAX_MESSAGE],
        error_type=kind.error_type,
        code=kind.code,
        request_id=request_id,
    )
    return JSONResponse(body.model_dump(), status_code=kind.status, headers=headers)


def _advice(error: SpdError) -> dict[str, str]:
    """When to come again, where it is worth it; a server that ends asks for a new connection."""
    match error:
        case Overloaded():
            return {"Retry-After": str(error.retry_after_s)}
        case NotReady():
            return {"Retry-After": "1", "Connection": "close"}
        case _:
            return {}


def _kind_of_status(status: int) -> Kind:
    """How the framework's own refusals (404, 405) look."""
    try:
        name = HTTPStatus(status).name
    except ValueError:
        name = "REFUSED"
    return Kind(status, "Validation" if status < 500 else "Backend", f"SPD_{name}")
