"""JSON Schemas of checks: inline, or in a file of the workspace, which may be a part of an OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import yaml
from jsonschema import FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from fleetest.worker.checks.files import Files
from fleetest.worker.checks.json_values import read_json

__all__ = ["JsonSchema"]

_MOST_ERRORS: Final = 20
_LONGEST_ERROR: Final = 500
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class JsonSchema:
    """
    A schema, ready to be used; draft 2020-12 unless it names another.

    Args:
        source: the schema itself, or the path of a file that holds it, with a JSON pointer into it after `#`.

    Raises:
        ValueError: there is no such file, or it is no schema.
    """

    def __init__(self, source: Any, files: Files) -> None:
        schema = source
        if isinstance(source, str):
            path, _, pointer = source.partition("#")
            where = files.find(path).as_uri()
            schema = {"$ref": f"{where}#{quote(pointer, safe='/~')}"}
        if not isinstance(schema, Mapping | bool):
            raise ValueError("a schema is a mapping, or the path of a file that holds one")  # noqa: TRY004 - as for every other problem
        self._validator = _validator(schema, files)

    def problems(self, value: Any) -> list[str]:
        """
        Where a value is not as the schema says; the first of them.

        Raises:
            ValueError: the schema refers to what isn't there.
        """
        try:
            errors = sorted(islice(self._validator.iter_errors(value), 1000), key=lambda error: error.json_path)
        except Unresolvable as error:
            raise ValueError(_why_not(error)) from error
        except RecursionError as error:
            raise ValueError("the schema refers to itself without end") from error
        shown = [_message(error) for error in errors[:_MOST_ERRORS]]
        more = len(errors) - len(shown)
        return [*shown, *([f"and {more} more"] if more > 0 else [])]


def _message(error: ValidationError | SchemaError) -> str:
    text = error.message
    return f"{error.json_path}: {text if len(text) <= _LONGEST_ERROR else text[:_LONGEST_ERROR] + ' …'}"


def _validator(schema: Any, files: Files) -> Validator:
    checker = validator_for(schema, default=Draft202012Validator)
    registry: Registry[Any] = Registry(retrieve=_retrieving(files))  # type: ignore[call-arg]
    try:
        checker.check_schema(schema)
        if isinstance(schema, Mapping) and set(schema) == {"$ref"}:
            found = registry.resolver().lookup(schema["$ref"]).contents
            checker.check_schema(found)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema: {_message(error)}") from error
    except Unresolvable as error:
        raise ValueError(_why_not(error)) from error
    except RecursionError as error:
        raise ValueError("the schema is nested too deeply") from error
    return checker(schema, registry=registry, format_checker=FormatChecker())


def _retrieving(files: Files) -> Any:
    @cache
    def retrieve(uri: str) -> Resource[Any]:
        address = urlsplit(uri)
        if address.scheme != "file":
            raise ValueError(f"the schema refers to {uri[:200]}: only files of the workspace are read")
        content = _document(files.find(str(Path(unquote(address.path)))), files)
        return Resource.from_contents(content, default_specification=DRAFT202012)

    return retrieve


def _why_not(error: Unresolvable) -> str:
    """The library wraps what our own function says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ValueError):
            return str(cause)
        cause = cause.__cause__
    return f"there is no '{unquote(str(error.ref).partition('#')[2] or str(error.ref))}'"


def _document(path: Path, files: Files) -> Any:
    text = files.text(str(path))
    try:
        content = read_json(text) if path.suffix == ".json" else _as_json(yaml.load(text, Loader=_LOADER))  # noqa: S506 - one of the safe loaders
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path.name} is neither JSON nor YAML: {str(error).splitlines()[0]}") from error
    is_older = isinstance(content, dict) and str(content.get("openapi", "")).startswith("3.0")
    return _newer(content) if is_older else content


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


def _newer(value: Any) -> Any:
    """Schemas of OpenAPI 3.0 as JSON Schemas, which say otherwise what may be null and which limits are exclusive."""
    if isinstance(value, list):
        return [_newer(each) for each in value]
    if not isinstance(value, dict):
        return value
    fields = {key: _newer(each) for key, each in value.items()}
    if fields.pop("nullable", False) is True and isinstance(fields.get("type"), str):
        fields["type"] = [fields["type"], "null"]
        if isinstance(fields.get("enum"), list):
            fields["enum"] = [*fields["enum"], None]
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(fields.get(exclusive), bool) and fields.pop(exclusive) and limit in fields:
            fields[exclusive] = fields.pop(limit)
    return fields
