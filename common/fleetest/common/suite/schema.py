"""The JSON Schema of a suite file, for editors."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from fleetest.common.kinds.kind import Kind
from fleetest.common.kinds.registry import all_kinds
from fleetest.common.suite.fields import NAME_PATTERN, PLACEHOLDER_SCHEMA, TEXT_SCHEMA
from fleetest.common.suite.model import SuiteModel

__all__ = ["suite_schema"]

# Sections whose values may come from a matrix. Mappings cannot: a matrix holds scalars.
_TEMPLATED: Final = frozenset(
    {"DefaultsModel", "TaskModel", "RequiresModel", "TimeoutsModel", "NeedModel", "InputModel", "GangModel"}
)
_TASKS: Final = ("DefaultsModel", "TaskModel")
_MAPPINGS: Final = frozenset({"capabilities", "env", "inputs", "matrix", "needs", "requires", "timeouts", "uses"})


def suite_schema() -> dict[str, Any]:
    """
    A JSON Schema (2020-12) that accepts every suite that `load_suite` accepts, and refuses most of the others.

    Made from the model that reads suites; a new document at each call.
    """
    schema = SuiteModel.model_json_schema(schema_generator=_DefaultsAsWritten)
    definitions, kinds = schema["$defs"], tuple(all_kinds())
    for kind in kinds:
        _add_keys(definitions, kind)
    for name, section in (("SuiteModel", schema), *definitions.items()):
        for key, value in section.get("properties", {}).items():
            value.setdefault("title", key.replace("_", " ").title())
            if value.get("default") == "":
                del value["default"]  # stands for "not set"
            if name in _TEMPLATED and key not in _MAPPINGS:
                _accept_placeholder(value)
    for name in _TASKS:
        definitions[name]["properties"]["type"]["anyOf"] = [{"enum": [kind.name for kind in kinds]}, PLACEHOLDER_SCHEMA]
    tasks = schema["properties"]["tasks"]
    tasks |= {"minProperties": 1, "propertyNames": {"pattern": NAME_PATTERN}}
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def _add_keys(definitions: dict[str, Any], kind: Kind) -> None:
    """Give tasks the keys of a kind. What kinds understand differently may be either."""
    keys = kind.keys.model_json_schema(schema_generator=_DefaultsAsWritten)
    definitions |= keys.pop("$defs", {})
    for name in _TASKS:
        properties = definitions[name]["properties"]
        for key, value in keys["properties"].items():
            known = properties.setdefault(key, deepcopy(value))
            if known != value:
                either = [*known.get("anyOf", [known]), value]
                properties[key] = {"description": known["description"], "anyOf": either}


class _DefaultsAsWritten(GenerateJsonSchema):
    """Shows defaults as they are written in a suite: `30m`, not a number of seconds."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = super().get_default_value(schema)
        write = schema["schema"].get("serialization", {}).get("function")
        return write(default) if write else default


def _accept_placeholder(value: dict[str, Any]) -> None:
    accepted = {key: value.pop(key) for key in list(value) if key not in {"title", "description", "default"}}
    branches = accepted.get("anyOf") or [accepted]
    takes_any_text = any(branch.get("type") == TEXT_SCHEMA["type"] and "pattern" not in branch for branch in branches)
    value["anyOf"] = branches if takes_any_text else [*branches, PLACEHOLDER_SCHEMA]
