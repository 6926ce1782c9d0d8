"""Errors as HTTP: one table from error class to status, one small JSON body for all of them.

    {"error": "...", "error_type": "Overloaded", "code": "SPD_QUEUE_FULL", "request_id": "..."}

``error`` and ``error_type`` are fields of Text Embeddings Inference, with its names of the types.
``code`` identifies the error and is stable between versions. The body's size does not depend on the
request. A 5xx tells no detail of the server; the log has it, under the same request id.
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

PROTOCOL_ERROR = "refused"  # key of ``scope["state"]``: the error of a malformed HTTP request
CLIENT_CLOSED_REQUEST = 499  # nginx's status for metrics and the log; it is never sent
_MAX_MESSAGE = 300


class ClientDisconnected(Exception):
    """The client closed the connection before its answer was ready."""


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """The HTTP status, the TEI name and the stable code of an error class."""

    status: int
    error_type: str
    code: str


STATUS: Mapping[type[Refusal], ErrorKind] = {
    NotJson: ErrorKind(400, "Validation", "SPD_NOT_JSON"),
    EmptyText: ErrorKind(400, "Empty", "SPD_EMPTY_TEXT"),
    BodyTooLarge: ErrorKind(413, "Validation", "SPD_BODY_TOO_LARGE"),
    UnsupportedMedia: ErrorKind(415, "Validation", "SPD_UNSUPPORTED_MEDIA"),
    MalformedRequest: ErrorKind(422, "Validation", "SPD_MALFORMED"),
    TextTooLong: ErrorKind(422, "Validation", "SPD_TEXT_TOO_LONG"),
    TooManyInputs: ErrorKind(422, "Validation", "SPD_TOO_MANY_INPUTS"),
    Overloaded: ErrorKind(429, "Overloaded", "SPD_QUEUE_FULL"),
    EngineFailed: ErrorKind(500, "Backend", "SPD_ENGINE_FAILED"),
    NotReady: ErrorKind(503, "Unhealthy", "SPD_NOT_READY"),
}
INTERNAL = ErrorKind(500, "Backend", "SPD_INTERNAL")


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 or above."""

    error: str = Field(description="What is wrong, and what to do.")
    error_type: str = Field(description="The kind of error, as Text Embeddings Inference names it.")
    code: str = Field(description="Identifies the error; stable between versions.")
    request_id: str = Field(
        description="The request's id; also in the header X-Request-Id and in the log."
    )


def response_for(error: BaseException, request_id: str) -> Response:
    """The response to a request that ended in ``error``."""
    if isinstance(error, ClientDisconnected):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(error, HTTPException):
        return _response(
            _kind_of_status(error.status_code), error.detail, request_id, error.headers
        )
    kind = STATUS.get(type(error), INTERNAL) if isinstance(error, Refusal) else INTERNAL
    if not isinstance(error, SpdError) or kind is INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
        return _response(kind, "the server failed; read the reason in its log", request_id)
    return _response(kind, _message_of(error, kind), request_id, _headers_of(error))


async def on_error(request: Request, error: Exception) -> Response:
    """The app's exception handler."""
    if isinstance(error, HTTPException):
        error = _reworded(request, error)
    return response_for(error, request_id_of(request.scope))


def _reworded(request: Request, error: HTTPException) -> HTTPException:
    """Starlette's 404 and 405 with a message that says what exists."""
    path = request.url.path
    match error.status_code:
        case 404:
            return HTTPException(
                404, f"the path does not exist; got {path}; see /docs for the paths that do"
            )
        case 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            told = f"{path} does not take this method; got {request.method}; use {allowed}"
            return HTTPException(405, told, {"Allow": allowed})
        case _:
            return error


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The request's id, which the middleware has put into the scope."""
    return str(scope.get("state", {}).get("request_id", ""))


def error_responses(*errors: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these errors, by status."""
    told: dict[int, list[str]] = {}
    for error in errors:
        meaning = (error.__doc__ or "").partition(";")[0].replace("``", "").rstrip(".")
        told.setdefault(STATUS[error].status, []).append(f"{STATUS[error].code}: {meaning}.")
    return {
        status: {"model": ErrorBody, "description": "\n".join(lines)}
        for status, lines in sorted(told.items())
    }


def _message_of(error: SpdError, kind: ErrorKind) -> str:
    """The error in one line; a 5xx leaves out what was found, which may show internals."""
    return error.line(found=kind.status < 500)


def _response(
    kind: ErrorKind, message: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with the JSON body of an error."""
    body = ErrorBody(
        error=message[:_MAX_MESSAGE],
        error_type=kind.error_type,
        code=kind.code,
        request_id=request_id,
    )
    return JSONResponse(body.model_dump(), status_code=kind.status, headers=headers)


def _headers_of(error: SpdError) -> dict[str, str]:
    """Retry-After for errors that pass; a server that shuts down also closes the connection."""
    match error:
        case Overloaded():
            return {"Retry-After": str(error.retry_after_s)}
        case NotReady():
            return {"Retry-After": "1", "Connection": "close"}
        case _:
            return {}


def _kind_of_status(status: int) -> ErrorKind:
    """The kind of an error that Starlette or the connection raises by its status, such as 404."""
    try:
        name = HTTPStatus(status).name
    except ValueError:
        name = "PROTOCOL_ERROR"
    return ErrorKind(status, "Validation" if status < 500 else "Backend", f"SPD_{name}")
