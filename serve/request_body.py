"""Reads a request's body into a JSON value, strictly.

Each fault has its own error: not ``application/json``, too long, not UTF-8, not JSON. A key that
appears twice in an object, and ``NaN``, are refused too, since JSON parsers disagree on them. No
more than the limit is kept of a body, whatever its headers say.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from email.message import Message
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from serve.headers import header_of
from serve.http_errors import ClientDisconnected
from serve.json_structure import refuse_structure
from serve.request_record import body_arrived
from serve.settings import BodyLimits
from spd_deploy.domain.errors import (
    BodyTooLarge,
    EmptyText,
    MalformedRequest,
    NotJson,
    TooManyInputs,
    UnsupportedMedia,
)

# A shorter body is parsed faster than it could be handed to a thread.
_LONG_BYTES = 32_768
_MAX_NAME = 40
# Names of UTF-8 and of ASCII, its subset, without dashes and underscores.
_CHARSETS = ("utf8", "ascii", "usascii")
_SEE_DOCS = "see /docs for the fields of the request"
# pydantic's messages in JSON's terms instead of Python's.
_FAULTS = {
    "model_type": "Input should be an object",
    "extra_forbidden": "Unknown field",
    "list_type": "Input should be a list",
}

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A model that refuses unknown fields and converts no types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


async def read_json(request: Request, limits: BodyLimits) -> Any:
    """The request's body as a JSON value; a long one is parsed outside the event loop.

    Raises:
        Refusal: the body is not ``application/json``, too long, not UTF-8 or not JSON.
        ClientDisconnected: the client closed the connection while sending it.
    """
    refuse_other_media(request.scope)
    return await parsed(await read_body(request, max_bytes=limits.max_bytes), limits)


async def parsed(body: bytes, limits: BodyLimits) -> Any:
    """The JSON value of a body; a long one is parsed outside the event loop.

    Raises:
        Refusal: it is not UTF-8, not JSON, or has too much structure.
    """
    if len(body) < _LONG_BYTES:
        return parse(body, limits)
    return await asyncio.to_thread(parse, body, limits)


def refuse_other_media(scope: Mapping[str, Any]) -> None:
    """Refuse all but uncompressed UTF-8 of type ``application/json`` or ``application/..+json``.

    Raises:
        UnsupportedMedia: the headers name another media type, charset or content coding.
    """
    _refuse_other_type(header_of(scope, b"content-type"))
    refuse_compressed(scope)


def refuse_cross_site(scope: Mapping[str, Any]) -> None:
    """Refuse what a page of another site has a browser send; JSON's media type keeps it out else.

    Raises:
        UnsupportedMedia: a browser says that the request comes from another site.
    """
    if header_of(scope, b"sec-fetch-site", "none") not in ("none", "same-origin"):
        raise UnsupportedMedia(
            "requests from pages of other sites are not taken",
            fix="send the header Content-Type: application/json",
        )


def refuse_compressed(scope: Mapping[str, Any]) -> None:
    """Refuse a content coding.

    Raises:
        UnsupportedMedia: the headers name one.
    """
    if header_of(scope, b"content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise UnsupportedMedia(
            "compressed bodies are not supported", fix="send the body without Content-Encoding"
        )


def _refuse_other_type(said: str) -> None:
    """Refuse another media type or charset."""
    if said == "application/json":  # what clients send; parsing it takes longer than the JSON
        return
    content_type = Message()
    content_type["Content-Type"] = said
    kind = content_type.get_content_type()
    if kind != "application/json" and not re.fullmatch(r"application/[^/]+\+json", kind):
        raise UnsupportedMedia(
            "the body must be JSON", fix="send the header Content-Type: application/json"
        )
    says_one = content_type.get_param("charset")
    charset = content_type.get_content_charset("not ASCII") if says_one else "utf-8"
    if re.sub("[-_' ]", "", charset) not in _CHARSETS:
        raise UnsupportedMedia(
            "the body must be in UTF-8",
            got=f"charset {_printable(charset)}",
            fix="encode the text as UTF-8, and leave the charset out",
        )


def parse(body: bytes, limits: BodyLimits) -> Any:
    """Parse one JSON value strictly.

    Raises:
        NotJson: invalid UTF-8, a byte order mark, no JSON, or nested too deep.
        MalformedRequest: an object has the same key twice, or there are too many keys or values.
    """
    _refuse_other_encodings(body)
    refuse_structure(body, max_nodes=limits.max_nodes, max_values=limits.max_values)
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise NotJson("the body is not valid UTF-8", fix="encode the text as UTF-8") from err
    except RecursionError as err:
        raise NotJson("the body is nested too deep", fix="send a plain object") from err
    except ValueError as err:
        where = f" at character {err.pos}" if isinstance(err, json.JSONDecodeError) else ""
        raise NotJson(
            f"the body is not valid JSON{where}", fix="check the body with a JSON validator"
        ) from err


def field_of(value: Any, name: str) -> Any:
    """A field of a request that is not validated yet; None where it is missing."""
    return value.get(name) if isinstance(value, dict) else None


def name_in(value: Any) -> str | None:
    """The model that a body names, which is not validated yet; None where it names none."""
    name = field_of(value, "model")
    return name if isinstance(name, str) else None


def whole(value: Any) -> Any:
    """3.0 as 3: JSON has one type of number, but pydantic's strict mode has two."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def refuse_count(inputs: Any, *, max_inputs: int, field: str = "inputs") -> None:
    """Refuse too few or too many inputs before any is read; validation refuses all but a list.

    Raises:
        EmptyText: the list is empty.
        TooManyInputs: the list has more than ``max_inputs`` items.
    """
    if not isinstance(inputs, list):
        return
    if not inputs:
        raise EmptyText(f'"{field}" is empty', fix="send at least one text")
    if len(inputs) > max_inputs:
        raise TooManyInputs(
            "too many inputs in one request",
            got=f"{len(inputs)}, {max_inputs} allowed",
            fix="send them in several requests",
        )


def validated(model: type[Model], value: Any, *, example: str | None = None) -> Model:
    """``value`` as an instance of ``model``; ``example`` is a body that the refusal shows.

    Raises:
        MalformedRequest: a field is missing, unknown or of the wrong type; the first one is named.
    """
    try:
        return model.model_validate(value)
    except ValidationError as err:
        first = err.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(_printable(part) for part in first["loc"][:4])
        raise MalformedRequest(
            f"{where or 'the body'}: {_FAULTS.get(first['type'], first['msg'])}",
            fix=f"send {example}; see /docs for more" if example else _SEE_DOCS,
        ) from None


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """The body's bytes; a body over the limit is refused as soon as that is known.

    Raises:
        BodyTooLarge: it is over the limit.
        ClientDisconnected: the client closed the connection while sending it.
    """
    promised = header_of(request.scope, b"content-length")
    if promised.isdecimal() and int(promised[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    body_arrived()
    return bytes(body)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {max_bytes} bytes", fix="send fewer or shorter texts in a request"
    )


def _refuse_other_encodings(body: bytes) -> None:
    """Refuse a byte order mark, UTF-16 and UTF-32 by name, before the JSON parser fails on them."""
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return
    if encoding == "utf-8-sig":
        raise NotJson(
            "the body begins with a byte order mark",
            got="U+FEFF in UTF-8",
            fix="send the JSON without the mark; Python writes it in utf-8-sig, so use utf-8",
        )
    raise NotJson(
        "the body is not in UTF-8", got=encoding.upper(), fix="encode it as UTF-8, without a mark"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that appears twice is refused."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedRequest("an object has the same key twice", fix="send each key once")
    return value


def _refuse_constant(name: str) -> NoReturn:
    """Refuse ``NaN`` and ``Infinity``, which Python's parser accepts and JSON does not have."""
    raise NotJson(f"{name} is not JSON", fix="send a number or null")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _printable(part: str | int) -> str:
    """A field's name for a message: ASCII, at most 40 characters."""
    return str(part).encode("ascii", "backslashreplace").decode("ascii")[:_MAX_NAME]
