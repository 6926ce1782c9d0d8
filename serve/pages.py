"""The two pages for people: the demo at ``/`` and the API's description at ``/docs``.

Each is one file that loads nothing from elsewhere, which its Content-Security-Policy enforces:
only the very style and script that are in the file may run.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from starlette.responses import HTMLResponse

_OTHER_ORIGINS = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
_NO_FRAMES = "form-action 'none'; frame-ancestors 'none'"
_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def demo_page() -> HTMLResponse:
    """The page that asks for a text and shows its answer."""
    return _response(_file("demo.html"))


def docs_page(openapi: Mapping[str, Any], *, base: str) -> HTMLResponse:
    """The OpenAPI description for people; ``base`` is the address its examples call."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _file("docs.html")
    )
    return _response(
        template.render(
            title=openapi["info"]["title"],
            description=openapi["info"]["description"],
            version=openapi["info"]["version"],
            routes=list(_routes(openapi)),
            schemas=list(_schemas(openapi)),
            base=base,
        )
    )


def type_of(schema: Mapping[str, Any]) -> str:
    """A schema in words: ``text``, ``list of Score``, ``number or null``."""
    names = {"string": "text", "boolean": "true or false", "object": "object"}
    match schema:
        case {"$ref": str() as ref}:
            return ref.rpartition("/")[2]
        case {"anyOf": list() as choices} | {"oneOf": list() as choices}:
            return " or ".join(dict.fromkeys(type_of(choice) for choice in choices))
        case {"enum": list() as values}:
            return " or ".join(map(str, values))
        case {"type": "array", "minItems": least, "maxItems": most, "items": items}:
            count = f"{most}" if least == most else f"{least} to {most}"
            return f"list of {count} {type_of(items)}"
        case {"type": "array", "items": items}:
            return f"list of {type_of(items)}"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"object of {type_of(values)}"
        case {"type": str() as kind}:
            return names.get(kind, kind)
        case _:
            return "anything"


def quoted(text: str) -> str:
    """The text as one word of a shell's command."""
    return "'" + text.replace("'", "'\\''") + "'"


def _response(html: str) -> HTMLResponse:
    """A page that may load nothing and run only what is in it."""
    policy = [_OTHER_ORIGINS]
    for kind, content in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        policy.append(f"{kind}-src 'sha256-{digest}'; ")
    headers = {
        "Content-Security-Policy": "".join([*policy, _NO_FRAMES]),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(html, headers=headers)


def _file(name: str) -> str:
    """A file of this package."""
    return (files("serve") / "html" / name).read_text(encoding="utf-8")


def _routes(openapi: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each operation as the template shows it."""
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            body = _schema_of(operation.get("requestBody", {}))
            yield {
                "method": method.upper(),
                "path": path,
                "description": operation.get("description", "").split("\n\n"),
                "bodies": _names(body),
                "example_path": _example_path(path, operation.get("parameters", [])),
                "example": quoted(_example(openapi, body)),
                "answers": [
                    {
                        "status": status,
                        "description": answer["description"],
                        "schemas": _names(_schema_of(answer)),
                    }
                    for status, answer in operation["responses"].items()
                ],
            }


def _schemas(openapi: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each schema as the template shows it."""
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        description, attributes = _parted(schema.get("description", ""))
        yield {
            "name": name,
            "description": description,
            "fields": [
                {
                    "name": key,
                    "type": type_of(value),
                    "text": _plain(value.get("description", attributes.get(key, ""))),
                }
                for key, value in schema.get("properties", {}).items()
            ],
        }


def _parted(docstring: str) -> tuple[str, dict[str, str]]:
    """The text about a class, and that of each field in its section ``Attributes:``."""
    about, _, section = docstring.partition("Attributes:")
    entries = re.findall(r"^ *(\w+): (.+(?:\n {8,}.+)*)", section, re.MULTILINE)
    return _plain(about), {name: " ".join(text.split()) for name, text in entries}


def _plain(text: str) -> str:
    """A description without the marks of code."""
    return text.replace("`", "").strip()


def _schema_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a body or an answer; empty where it has none."""
    found = part.get("content", {}).get("application/json", {}).get("schema", {})
    return dict(found)


def _names(schema: Any) -> list[str]:
    """Every schema that this one refers to directly."""
    text = json.dumps(schema)
    return list(dict.fromkeys(re.findall(r"#/components/schemas/(\w+)", text)))


def _example_path(path: str, parameters: Sequence[Mapping[str, Any]]) -> str:
    """The path with the value that each of its parameters may have."""
    for parameter in parameters:
        value = parameter["schema"].get("enum", [""])[0]
        path = path.replace(f"{{{parameter['name']}}}", quote(value, safe=""))
    return path


def _example(openapi: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """The example of the body, or of the first of several that it may be."""
    schemas = openapi["components"]["schemas"]
    schema: dict[str, Any] = next((schemas[name] for name in _names(body)), {})
    return json.dumps(next(iter(schema.get("examples", [])), {}))
