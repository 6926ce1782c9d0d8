"""Counts the structure of a JSON body before it is parsed.

A parser makes an object of every key, list and number. A megabyte of ``[],`` costs it seconds, and
Python's interpreter lock is held meanwhile, so that no thread helps. Counting bytes takes
milliseconds. Texts may hold any bytes, so those inside of strings are left out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import MalformedRequest, NotJson

_MAX_DEPTH = 500
_QUOTE, _COMMA, _COLON = b'",:'
_OPENING, _CLOSING = b"[{", b"]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """The structure of a body outside of its strings.

    Attributes:
        nodes: keys, lists and objects.
        values: elements of lists and objects, and lists and objects themselves.
        depth: how deep lists and objects are nested.
    """

    nodes: int
    values: int
    depth: int


def refuse_structure(body: bytes, *, max_nodes: int, max_values: int) -> None:
    """Refuse a body whose structure would take long to parse and to check.

    Raises:
        NotJson: it is nested deeper than any parser reads.
        MalformedRequest: it has more keys, lists and objects, or more values, than allowed.
    """
    if not _may_exceed(body, min(max_nodes, _MAX_DEPTH), max_values):
        return
    found = structure_of(body)
    if found.depth > _MAX_DEPTH:
        raise NotJson("the body is nested too deep", fix="send a plain object")
    for what, got, most in (
        ("keys, lists and objects", found.nodes, max_nodes),
        ("values", found.values, max_values),
    ):
        if got > most:
            raise MalformedRequest(
                f"the body has too many {what}",
                got=f"{got}, {most} allowed",
                fix="send fewer inputs in a request, and no fields that /docs does not list",
            )


def structure_of(body: bytes) -> Structure:
    """The structure of valid JSON; of anything else, a guess that the parser will refuse."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    bytes_N = np.frombuffer(unescaped, np.uint8)
    # A byte is inside of a string after an odd number of quotes; the sum may overflow.
    inside_N = np.cumsum(bytes_N == _QUOTE, dtype=np.uint8) & 1
    outside = bytes_N[inside_N == 0]
    counts = np.bincount(outside, minlength=256)
    opened = int(sum(counts[one] for one in _OPENING))
    return Structure(
        nodes=opened + int(counts[_COLON]),
        values=opened + int(counts[_COMMA]),
        depth=_depth_of(outside),
    )


def _depth_of(outside: NDArray[np.uint8]) -> int:
    """The largest number of lists and objects that are open at once."""
    step = np.isin(outside, list(_OPENING)).astype(np.int32)
    step -= np.isin(outside, list(_CLOSING))
    return int(np.cumsum(step[step != 0], dtype=np.int32).max(initial=0))


def _may_exceed(body: bytes, max_nodes: int, max_values: int) -> bool:
    """Whether the body has so many of these bytes, in strings or not; a text rarely does."""
    if len(body) <= max_nodes:
        return False
    opened = sum(body.count(one) for one in (b"[", b"{"))
    return opened + body.count(b":") > max_nodes or opened + body.count(b",") > max_values
