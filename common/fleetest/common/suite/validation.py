"""Checks a node against a model, and turns what pydantic says into problems with their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fleetest.common.suite.fields import describe
from fleetest.common.suite.problems import Fault, Findings, Place, closest
from fleetest.common.suite.tree import Node, plain

__all__ = ["validated"]

_M = TypeVar("_M", bound=BaseModel)
_KEY: Final = "[key]"  # pydantic's mark for "the key, not the value"

_ABOUT_KEYS: Final = frozenset({"extra_forbidden", "missing"})
_MESSAGES: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false, not {found}",
    "dict_type": "must be a mapping, not {found}",
    "enum": "{found} is not one of {expected}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number, not {found}",
    "greater_than_equal": "must be at least {ge}, not {found}",
    "int_type": "must be a whole number, not {found}",
    "less_than_equal": "must be at most {le}, not {found}",
    "list_type": "must be a list, not {found}",
    "literal_error": "{found} is not one of {expected}",
    "model_type": "must be a mapping, not {found}",
    "too_long": "has more than {max_length} entries",
    "too_short": "must not be empty",
}


def validated(
    model: type[_M], node: Node, findings: Findings, *, subject: str = "", complete: bool = True
) -> _M | None:
    """
    The node as an instance of the model; `None` when it isn't one, and then `findings` says why.

    Args:
        subject: what the node is called, in messages about itself.
        complete: whether a missing key is a problem.
    """
    try:
        return model.model_validate(plain(node))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if complete or details["type"] != "missing":
                _report(details, model, node, findings, subject)
        return None


def _report(details: ErrorDetails, model: type[BaseModel], node: Node, findings: Findings, subject: str) -> None:
    location = details["loc"]
    faults = details.get("ctx", {}).get("faults") or [_translated(details, model)]
    for fault in faults:
        path = (*location, *fault.path)
        about_key = details["type"] in _ABOUT_KEYS or path[-1:] == (_KEY,)
        message = fault.message if about_key else f"{_named(path) or subject}: {fault.message}"
        findings.add(_find(node, path, details["type"]), message, fault.hint)


def _named(path: tuple[str | int, ...]) -> str:
    """The innermost key on the path."""
    return next((part[:60] for part in reversed(path) if isinstance(part, str)), "")


def _translated(details: ErrorDetails, model: type[BaseModel]) -> Fault:
    location, context = details["loc"], details.get("ctx", {})
    if details["type"] == "extra_forbidden":
        word = str(location[-1])
        return Fault(message=f"unknown key '{word[:60]}'", hint=closest(word, _known_keys(model, location[:-1])))
    if details["type"] == "missing":
        return Fault(message=f"key '{location[-1]}' is missing")
    template = _MESSAGES.get(details["type"])
    if template is None:
        return Fault(message=details["msg"])
    found = details["input"]
    expected = [word for word in re.findall(r"'([^']*)'", context.get("expected", "")) if word]
    hint = closest(found, expected) if isinstance(found, str) else ""
    values = {**context, "found": describe(found), "expected": ", ".join(expected)}
    return Fault(message=template.format_map(values), hint=hint)


def _find(node: Node, path: tuple[str | int, ...], error_type: str) -> Place:
    """
    The place at the end of the path, or as far along it as the document goes.

    A model may see more levels than the document has, as when it takes one text for a list of one.
    """
    key = node.place
    for part in path:
        if isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        elif isinstance(part, str) and part in node.entries:
            key, node = node.entries[part].key, node.entries[part].value
        elif part == _KEY:
            return key
        else:
            break
    return key if error_type == "extra_forbidden" else node.place


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    annotation: object = model
    for part in location:
        section = next(_sections(annotation), None)
        if section and part in (fields := _fields(section)):
            annotation = fields[part].annotation
    return [str(key) for section in _sections(annotation) for key in _fields(section)][:100]


def _fields(section: type[BaseModel]) -> dict[str | int, FieldInfo]:
    """By the keys that they have in a document."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in an annotation, outermost first."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _sections(annotation.model_fields["root"].annotation)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
