"""Errors as HTTP: one table from error class to status, and one small JSON body.

    {"error": "...", "error_type": "Overloaded", "code": "SPD_QUEUE_FULL", "request_id": "..."}

``error`` and ``error_type`` are fields of Text Embeddings Inference, with its names of the types.
The Open Inference Protocol and KServe ask for ``error`` alone. A protocol that documents another
body, or another status of an error, says so in an :class:`ErrorFormat`.

``code`` identifies the error and is stable between versions. The body's size does not depend on the
request. A 5xx tells no detail of the server; the log has it, under the same request id.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from serve.exhausted import exhausted_by, no_more
from serve.log_rarely import Rarely
from serve.retry_after import SOON_S
from spd_deploy.domain.errors import (
    BodyTooLarge,
    DeadlineExceeded,
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
    Unauthenticated,
    UnknownModel,
    UnsupportedMedia,
)

_log = logging.getLogger(__name__)
_rarely = Rarely(_log)

ERROR_FORMAT = "error_format"  # key of ``scope["state"]``: the ErrorFormat of the answer
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
    Unauthenticated: ErrorKind(401, "Unauthorized", "SPD_UNAUTHENTICATED"),
    UnknownModel: ErrorKind(404, "Validation", "SPD_UNKNOWN_MODEL"),
    BodyTooLarge: ErrorKind(413, "Validation", "SPD_BODY_TOO_LARGE"),
    UnsupportedMedia: ErrorKind(415, "Validation", "SPD_UNSUPPORTED_MEDIA"),
    MalformedRequest: ErrorKind(422, "Validation", "SPD_MALFORMED"),
    TextTooLong: ErrorKind(422, "Validation", "SPD_TEXT_TOO_LONG"),
    TooManyInputs: ErrorKind(422, "Validation", "SPD_TOO_MANY_INPUTS"),
    Overloaded: ErrorKind(429, "Overloaded", "SPD_QUEUE_FULL"),
    EngineFailed: ErrorKind(500, "Backend", "SPD_ENGINE_FAILED"),
    NotReady: ErrorKind(503, "Unhealthy", "SPD_NOT_READY"),
    DeadlineExceeded: ErrorKind(504, "Overloaded", "SPD_DEADLINE_EXCEEDED"),
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


def _own_body(kind: ErrorKind, message: str, request_id: str) -> dict[str, Any]:
    """The body of an error, an :class:`ErrorBody`."""
    return {
        "error": message,
        "error_type": kind.error_type,
        "code": kind.code,
        "request_id": request_id,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorFormat:
    """How a protocol shows errors.

    Attributes:
        model: the body of an error, for the description.
        body: makes it from the kind of error, the message and the request id.
        statuses: the statuses that differ from those of :data:`STATUS`.
    """

    model: type[BaseModel] = ErrorBody
    body: Callable[[ErrorKind, str, str], dict[str, Any]] = _own_body
    statuses: Mapping[type[Refusal], int] = field(default_factory=dict)

    def kind_of(self, error: type[BaseException]) -> ErrorKind:
        """The kind of an error class; of all but refusals it is :data:`INTERNAL`."""
        kind = STATUS.get(error, INTERNAL) if issubclass(error, Refusal) else INTERNAL
        status = self.statuses.get(error) if issubclass(error, Refusal) else None
        return kind if status is None else replace(kind, status=status)


OWN_FORMAT = ErrorFormat()
# Protocols that know 400 where the native one has 422.
BAD_REQUEST: Mapping[type[Refusal], int] = {
    refusal: 400 for refusal, kind in STATUS.items() if kind.status == 422
}


def response_for(
    error: BaseException, request_id: str, errors: ErrorFormat = OWN_FORMAT
) -> Response:
    """The response to a request that ended in ``error``."""
    if isinstance(error, ClientDisconnected):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(error, HTTPException):
        kind = _kind_of_status(error.status_code)
        return _response(errors, kind, error.detail, request_id, error.headers)
    error = _refusal_where_exhausted(error)
    kind, message = told(error, request_id, errors)
    headers = _headers_of(error) if isinstance(error, SpdError) else None
    return _response(errors, kind, message, request_id, headers)


def told(
    error: BaseException, request_id: str, errors: ErrorFormat = OWN_FORMAT
) -> tuple[ErrorKind, str]:
    """The kind of an error and what the client is told; a bug of the server goes to the log."""
    error = _refusal_where_exhausted(error)
    kind = errors.kind_of(type(error))
    if not isinstance(error, SpdError) or kind is INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
        return kind, "the server failed; read the reason in its log"
    return kind, message_of(error)


def kind_of(error: BaseException, errors: ErrorFormat = OWN_FORMAT) -> ErrorKind:
    """The kind of an error, for the log."""
    if isinstance(error, ClientDisconnected):
        return ErrorKind(CLIENT_CLOSED_REQUEST, "", "SPD_CLIENT_CLOSED_REQUEST")
    if isinstance(error, HTTPException):
        return _kind_of_status(error.status_code)
    return errors.kind_of(type(error) if exhausted_by(error) is None else NotReady)


def _refusal_where_exhausted(error: BaseException) -> BaseException:
    """A 503 for what the machine has none left of, logged once a minute; else the error."""
    what = exhausted_by(error)
    if what is None:
        return error
    _rarely.error(what, f"requests are refused: the process has no {what} left")
    return no_more(what)


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The request's id, which the middleware has put into the scope."""
    return str(scope.get("state", {}).get("request_id", ""))


def format_of(scope: Mapping[str, Any]) -> ErrorFormat:
    """The form of errors of the request's protocol; our own where the path is unknown."""
    found: ErrorFormat = scope["state"].get(ERROR_FORMAT, OWN_FORMAT)
    return found


def error_responses(
    errors: ErrorFormat, *refusals: type[Refusal]
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these refusals, by status."""
    told: dict[int, list[str]] = {}
    for refusal in refusals:
        kind = errors.kind_of(refusal)
        meaning = (refusal.__doc__ or "").partition(";")[0].replace("``", "").rstrip(".")
        told.setdefault(kind.status, []).append(f"{kind.code}: {meaning}.")
    return {
        status: {"model": errors.model, "description": "\n".join(lines)}
        for status, lines in sorted(told.items())
    }


def message_of(error: SpdError) -> str:
    """The error in one line; one of the server leaves out what was found: it may show internals."""
    return error.line(found=OWN_FORMAT.kind_of(type(error)).status < 500)


def _response(
    errors: ErrorFormat,
    kind: ErrorKind,
    message: str,
    request_id: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response with the JSON body of an error."""
    body = errors.body(kind, message[:_MAX_MESSAGE], request_id)
    return JSONResponse(body, status_code=kind.status, headers=headers)


def _headers_of(error: SpdError) -> dict[str, str]:
    """The headers of an error: how to give a key, or when to try again.

    A server that shuts down also closes the connection.
    """
    match error:
        case Unauthenticated():
            return {"WWW-Authenticate": 'Bearer realm="spd"'}
        case Overloaded():
            return {"Retry-After": str(error.retry_after_s)}
        case NotReady():
            return {"Retry-After": str(SOON_S), "Connection": "close"}
        case _:
            return {}


def _kind_of_status(status: int) -> ErrorKind:
    """The kind of an error that Starlette or the connection raises by its status, such as 404."""
    try:
        name = HTTPStatus(status).name
    except ValueError:
        name = "PROTOCOL_ERROR"
    return ErrorKind(status, "Validation" if status < 500 else "Backend", f"SPD_{name}")
