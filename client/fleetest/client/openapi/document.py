"""An OpenAPI 3 document: read, and looked up in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import yaml

from fleetest.common.errors import InvalidRequest

__all__ = ["METHODS", "Document", "Operation", "read_document"]

METHODS: Final = ("post", "get", "head", "options", "put", "patch", "delete")
"""In the order in which they make sense one after another."""

MAX_DOCUMENT_BYTES: Final = 16 << 20
_MOST_REFERENCES: Final = 50
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    What can be asked for at a path.

    Args:
        fields: as the document has them.
        parameters: by where they are and what they are called; those of the path included.
    """

    path: str
    method: str
    fields: Mapping[str, Any]
    parameters: Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document, whatever it holds: what is not as it should be counts as not there."""

    content: Mapping[str, Any]

    def resolved(self, value: Any, pointer: str = "") -> tuple[Any, str]:
        """
        What a reference within the document leads to, and the JSON pointer of that.

        Args:
            pointer: of the value itself.
        """
        for _ in range(_MOST_REFERENCES):
            reference = value.get("$ref") if isinstance(value, Mapping) else None
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            pointer = reference[1:]
            value = self._at(pointer)
        return value, pointer

    def mapping(self, value: Any) -> Mapping[str, Any]:
        """The mapping that a value is or refers to; else an empty one."""
        found = self.resolved(value)[0]
        return found if isinstance(found, Mapping) else {}

    def operations(self) -> Iterator[Operation]:
        """In the order of the document, and of `METHODS`."""
        for path, value in self.mapping(self.content.get("paths")).items():
            item = self.mapping(value)
            common = self._parameters(item)
            for method in METHODS:
                if isinstance(fields := item.get(method), Mapping):
                    parameters = common | self._parameters(fields)
                    yield Operation(path=path, method=method, fields=fields, parameters=parameters)

    def _parameters(self, fields: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
        given = fields.get("parameters")
        found = [self.mapping(each) for each in given] if isinstance(given, list) else []
        return {(str(each["in"]), str(each["name"])): each for each in found if "in" in each and "name" in each}

    def _at(self, pointer: str) -> Any:
        value: Any = self.content
        for part in pointer.removeprefix("/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, Mapping):
                value = value.get(key)
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        return value


def read_document(path: Path) -> Document:
    """
    Read a document, JSON or YAML.

    Raises:
        InvalidRequest: it cannot be read, or is not OpenAPI 3.
    """
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise InvalidRequest(f"{path} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
        content = _as_json(yaml.load(path.read_bytes(), Loader=_LOADER))  # noqa: S506 - one of the safe loaders
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is neither JSON nor YAML: {error}") from error
    version = str(content.get("openapi", "")) if isinstance(content, dict) else ""
    if not version.startswith("3."):
        found = "Swagger 2" if isinstance(content, dict) and "swagger" in content else "no OpenAPI document"
        hint = "Version 3.0 or 3.1 is read, which the key `openapi` names; converters from Swagger 2 exist."
        raise InvalidRequest(f"{path} is {found}", hint=hint)
    return Document(content=content)


def _as_json(value: Any) -> Any:
    """YAML knows dates, and keys that are numbers; JSON does not."""
    match value:
        case dict():
            return {str(key): _as_json(each) for key, each in value.items()}
        case list():
            return [_as_json(each) for each in value]
        case date():
            return value.isoformat()
        case _:
            return value
