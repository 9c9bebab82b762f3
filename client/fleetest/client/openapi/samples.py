"""A value that a schema allows, as far as that can be told without trying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetest.client.openapi.document import Document

__all__ = ["sample", "sample_of_parameter"]

_DEEPEST: Final = 6
_OF_FORMAT: Final[Mapping[str, str]] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "somebody@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "uri": "https://example.com/",
    "uuid": "6f2d6c4e-5a0a-4b52-9a3c-1f0f4c3a7d11",
}


def sample(schema: Any, document: Document, depth: int = 0) -> Any:
    """The example that it gives, else the simplest value; deep down, `None`."""
    fields = document.mapping(schema)
    for key in ("example", "const", "default"):
        if key in fields:
            return fields[key]
    for key in ("examples", "enum"):
        if isinstance(fields.get(key), list) and fields[key]:
            return fields[key][0]
    if depth >= _DEEPEST:
        return None
    for key in ("oneOf", "anyOf"):
        if isinstance(fields.get(key), list) and fields[key]:
            return sample(fields[key][0], document, depth + 1)
    if isinstance(fields.get("allOf"), list):
        parts = [sample(each, document, depth + 1) for each in fields["allOf"]]
        merged = [each for each in parts if isinstance(each, dict)]
        return {key: value for each in merged for key, value in each.items()} if merged else next(iter(parts), None)
    return _of_type(fields, document, depth)


def sample_of_parameter(parameter: Mapping[str, Any], document: Document) -> Any:
    """The example of a parameter, else of its schema."""
    if "example" in parameter:
        return parameter["example"]
    for example in document.mapping(parameter.get("examples")).values():
        if "value" in (fields := document.mapping(example)):
            return fields["value"]
    return sample(parameter.get("schema"), document)


def _of_type(fields: Mapping[str, Any], document: Document, depth: int) -> Any:
    kind = fields.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in fields:
        return _of_object(fields, document, depth)
    if kind == "array":
        return [sample(fields.get("items"), document, depth + 1)]
    if kind in {"integer", "number"}:
        lowest = fields.get("minimum")
        return lowest if isinstance(lowest, int | float) else 1
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    text = _OF_FORMAT.get(str(fields.get("format")), "text")
    shortest = fields.get("minLength")
    return text.ljust(min(shortest, 1000), "x") if isinstance(shortest, int) else text


def _of_object(fields: Mapping[str, Any], document: Document, depth: int) -> dict[str, Any]:
    """What must be there, and near the top what may be."""
    required = fields.get("required")
    names = required if isinstance(required, list) else []
    return {
        name: sample(value, document, depth + 1)
        for name, value in document.mapping(fields.get("properties")).items()
        if (name in names or depth == 0) and document.mapping(value).get("readOnly") is not True
    }
