"""Documents are read strictly: no field unknown, none missing, each finite and of its own type."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import BadReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    """A part."""

    number: float
    optional: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    """A document with parts in a list and in a mapping."""

    text: str
    parts: tuple[Inner, ...] = ()
    named: Mapping[str, Inner] = field(default_factory=dict)


INNER = st.builds(Inner, number=st.floats(allow_nan=False, allow_infinity=False))
OUTER = st.builds(
    Outer,
    text=st.text(),
    parts=st.lists(INNER, max_size=3).map(tuple),
    named=st.dictionaries(st.text(max_size=3), INNER, max_size=3),
)


def read(document: Mapping[str, Any], *, defaults: bool = True) -> Outer:
    return value_of(Outer, document, what="it", error=BadReport, fix="mend it", defaults=defaults)


@given(OUTER)
def test_what_was_written_is_read(value: Outer) -> None:
    """Reading the JSON of a value gives the value, with and without defaults."""
    document = json.loads(json.dumps(asdict(value)))

    assert read(document) == value
    assert read(document, defaults=False) == value


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "it lacks a field; got text"),
        ({"text": "x", "parts": [{}]}, "it lacks a field; got parts.0.number"),
        ({"text": "x", "extra": 1}, "it has an unknown field; got extra"),
        ({"text": "x", "parts": [{"number": 1.0, "extra": 1}]}, "field; got parts.0.extra"),
        ({"text": "x", "named": {"a": {"number": 1.0, "b": 2}}}, "field; got named.a.b"),
        ({"text": "x", "parts": [{"number": float("nan")}]}, "not finite; got parts.0.number"),
        ({"text": "x", "named": {"a": {"number": float("inf")}}}, "not finite; got named.a.number"),
        ({"text": 1}, "it is damaged; got text: "),
        ({"text": "x", "parts": [{"number": True}]}, "it is damaged; got parts.0.number: "),
        ({"text": "x", "parts": {}}, "it is damaged; got parts: "),
    ],
)
def test_a_fault_is_named_by_its_path(document: dict[str, Any], told: str) -> None:
    """The error says what is wrong, and at which field, however deep it lies."""
    with pytest.raises(BadReport, match=told):
        read(document)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"text": "x"}, "named"),
        (
            {"text": "x", "named": {}, "parts": [{"number": 1.0}]},
            "parts.0.optional",
        ),
    ],
)
def test_a_default_is_no_value_where_all_fields_must_be_there(
    document: dict[str, Any], path: str
) -> None:
    """A field that was left out is named, though it has a default."""
    assert read(document)
    with pytest.raises(BadReport, match=f"lacks a field; got {path}"):
        read(document, defaults=False)
