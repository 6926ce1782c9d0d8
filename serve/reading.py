"""A request's body to a JSON value, as strictly as JSON itself: bytes enter here.

Each way to be wrong has its own error: not ``application/json``, too long, not UTF-8, not JSON. A
name that appears twice in an object, or ``NaN``, is refused too, since readers of JSON disagree on
what they mean. The body is never kept beyond its limit, whatever its headers promised.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from email.message import Message
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from serve.http_errors import ClientLeft
from spd_deploy.domain.errors import (
    BodyTooLarge,
    EmptyText,
    MalformedRequest,
    NotJson,
    TooManyInputs,
    UnsupportedMedia,
)

# Below this a body parses faster than a thread can be asked to do it.
_LONG_BYTES = 32_768
_MAX_NAME = 40
# What people call UTF-8, and the encoding that it contains, without dashes and underscores.
_CHARSETS = ("utf8", "ascii", "usascii")
# What pydantic says in words of Python's, in words of JSON's.
_FAULTS = {
    "model_type": "Input should be an object",
    "extra_forbidden": "Unknown field",
    "list_type": "Input should be a list",
}

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A body read literally: no unknown field, no conversion between types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


async def read_json(request: Request, *, max_bytes: int) -> Any:
    """The request's body as a JSON value; a long one is parsed outside the event loop.

    Raises:
        Refusal: it is not ``application/json``, too long, not UTF-8 or not JSON.
        ClientLeft: the client closed the connection while sending it.
    """
    refuse_other_media(request.headers)
    body = await _read(request, max_bytes)
    return parse(body) if len(body) < _LONG_BYTES else await asyncio.to_thread(parse, body)


def refuse_other_media(headers: Mapping[str, str]) -> None:
    """Only uncompressed JSON in UTF-8 is read: ``application/json``, or ``application/..+json``.

    Raises:
        UnsupportedMedia: the headers name another media type, charset or coding.
    """
    content_type = Message()
    content_type["Content-Type"] = headers.get("content-type", "")
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
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise UnsupportedMedia("compressed bodies are not read", fix="send it uncompressed")


def parse(body: bytes) -> Any:
    """One JSON value, read strictly.

    Raises:
        NotJson: invalid UTF-8, a byte order mark, no JSON, or nested too deep.
        MalformedRequest: an object that says the same name twice.
    """
    _refuse_other_encodings(body)
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as err:
        raise NotJson("the body is not valid UTF-8", fix="encode the text as UTF-8") from err
    except RecursionError as err:
        raise NotJson("the body is nested too deep", fix="send a plain object") from err
    except ValueError as err:
        where = f" at character {err.pos}" if isinstance(err, json.JSONDecodeError) else ""
        raise NotJson(
            f"the body is not valid JSON{where}", fix="check it with a validator"
        ) from err


def inputs_of(value: Any) -> Any:
    """The field that every form of request calls ``inputs``; None where there is none."""
    return value.get("inputs") if isinstance(value, dict) else None


def refuse_count(inputs: Any, *, max_inputs: int) -> None:
    """Count the texts before looking at any of them; what is no list is left to validation.

    Raises:
        EmptyText: there is none.
        TooManyInputs: more than ``max_inputs``.
    """
    if not isinstance(inputs, list):
        return
    if not inputs:
        raise EmptyText('"inputs" is empty', fix="send at least one text")
    if len(inputs) > max_inputs:
        raise TooManyInputs(
            "too many inputs in one request",
            got=f"{len(inputs)}, {max_inputs} allowed",
            fix="send them in several requests",
        )


def validated(model: type[Model], value: Any) -> Model:
    """``value`` as ``model``, or its first fault.

    Raises:
        MalformedRequest: a field is missing, unknown or of the wrong type.
    """
    try:
        return model.model_validate(value)
    except ValidationError as err:
        first = err.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(_printable(part) for part in first["loc"][:4])
        raise MalformedRequest(
            f"{where or 'the body'}: {_FAULTS.get(first['type'], first['msg'])}",
            fix="see /docs for the request's form",
        ) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    """The body's bytes, refused as soon as they are known to be too many."""
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and int(promised[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
    except ClientDisconnect as err:
        raise ClientLeft from err
    return bytes(body)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {max_bytes} bytes", fix="send fewer or shorter texts at a time"
    )


def _refuse_other_encodings(body: bytes) -> None:
    """Name a byte order mark, or UTF-16 and UTF-32 without one, instead of a fault in the JSON."""
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
    """A JSON object, each of whose names must appear once."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedRequest("an object says the same name twice", fix="say each name once")
    return value


def _refuse_constant(name: str) -> NoReturn:
    """``NaN`` and ``Infinity`` are Python's, not JSON's."""
    raise NotJson(f"{name} is not JSON", fix="send a number or null")


def _printable(part: str | int) -> str:
    """A field's name as it can safely be shown: short, and ASCII."""
    return str(part).encode("ascii", "backslashreplace").decode("ascii")[:_MAX_NAME]
