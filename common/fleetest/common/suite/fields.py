"""The kinds of values that stand in a suite: what each accepts, and how a JSON Schema says so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from fleetest.common.errors import InvalidRequest
from fleetest.common.suite.durations import DURATION_PATTERN, format_duration, parse_duration
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.pytest_args import interpret_pytest_args
from fleetest.common.suite.sizes import SIZE_PATTERN, format_size, parse_size
from fleetest.common.suite.tree import WrittenFloat, WrittenInt
from fleetest.common.tasks import Access

__all__ = [
    "BY_VALUE",
    "NAME_PATTERN",
    "PLACEHOLDER_SCHEMA",
    "TEXT_SCHEMA",
    "Arguments",
    "CapabilityName",
    "Duration",
    "EnvName",
    "Keep",
    "Line",
    "MatrixValue",
    "Placeholder",
    "PoolName",
    "PoolSize",
    "PytestArguments",
    "RelativePath",
    "RelativePaths",
    "ResourceName",
    "SecretNames",
    "Shards",
    "Share",
    "ShellLines",
    "Size",
    "Text",
    "Texts",
    "Usage",
    "as_list",
    "as_text",
    "describe",
    "refused",
    "switch_as_mapping",
]

NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
"""Of tasks."""

BY_VALUE: Final = Strict(strict=False)
"""Beside an enum: its members are written as their values."""

_MAX_SHARDS: Final = 10_000
_MAX_POOL: Final = 1_000_000
_POOL_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
_RESOURCE_NAME: Final = r"^(cluster/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
_SHORTEST_KEPT: Final = timedelta(minutes=1)
_LONGEST_KEPT: Final = timedelta(days=3650)
_LINE: Final = r"^[^\x00-\x1f\x7f]{1,200}$"
_ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
_PERCENT: Final = r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$"
_CAPABILITY_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_./-]*$"
_MATRIX_VALUE: Final = r"^(?!.*\$\{matrix\.)[^,\[\]#\x00-\x1f\x7f]{1,100}$"

# A number or a truth value counts as the text it was written as: `PORT: 8080`, `python: 3.10`.
TEXT_SCHEMA: Final[dict[str, Any]] = {"type": ["string", "number", "boolean"]}

PLACEHOLDER_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": r"\$\{matrix\.[^}]+\}"}


def refused(*faults: Fault) -> PydanticCustomError:
    """The error that carries faults through pydantic."""
    return PydanticCustomError("refused", "refused", {"faults": faults})


def describe(value: object) -> str:
    """A value as an error message names it: `text 'abc'`, `a list`."""
    match value:
        case None:
            return "nothing"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case str():
            return f"text '{value[:60]}'"
        case _:
            return as_text(value)[:60]


def as_list(value: object) -> object:
    """One value where a list is due counts as a list of one."""
    return value if isinstance(value, list | dict) or value is None else [value]


def as_text(value: object) -> str:
    """
    A scalar as the text it was written as.

    Raises:
        PydanticCustomError: it is none.
    """
    match value:
        case bool():
            return str(value).lower()
        case WrittenInt() | WrittenFloat():
            return value.text
        case str() if "\0" in value:
            raise refused(Fault(message="a text cannot hold the character NUL"))
        case str():
            return value
        case _:
            hint = "Write '' for an empty text." if value is None else ""
            raise refused(Fault(message=f"must be a text, not {describe(value)}", hint=hint))


def switch_as_mapping(value: object) -> object:
    """Of a section that can be left to its defaults: `true` is that, `false` none."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None:
        raise refused(Fault(message="must be true, false or a mapping, not nothing"))
    return value


def _matching(pattern: str, what: str, hint: str = "") -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise refused(Fault(message=f"'{text[:60]}' is not {what}", hint=hint))
        return text

    return AfterValidator(check)


def _inside_workspace(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        hint = "Write it relative to the workspace, without '..'."
        raise refused(Fault(message=f"'{text[:60]}' leads out of the workspace", hint=hint))
    return text


def _shell_lines(value: object) -> object:
    """A text of several lines is as many shell lines; a backslash at the end continues one, as in the shell."""
    if isinstance(value, str):
        return [line for line in value.replace("\\\n", "").splitlines() if line.strip()]
    return as_list(value)


def _shell_words(value: object) -> object:
    if not isinstance(value, str):
        return as_list(value)
    try:
        return shlex.split(value)
    except ValueError as error:
        fault = Fault(message=f"cannot be split as a shell does: {error}", hint="Or write a list: [tests, -k, fast].")
        raise refused(fault) from error


def _known_to_cluster(args: list[str]) -> list[str]:
    if faults := interpret_pytest_args(args).faults:
        raise refused(*faults)
    return args


def _reading(parse: Callable[[str], object]) -> BeforeValidator:
    def read(value: object) -> object:
        try:
            return parse(as_text(value))
        except InvalidRequest as error:
            raise refused(Fault(message=error.message, hint=error.hint)) from error

    return BeforeValidator(read)


def _duration(text: str) -> timedelta | None:
    if text == "none":
        return None
    duration = parse_duration(text)
    if not duration:
        raise InvalidRequest("a limit of nothing would end every attempt", hint="Write `none` for no limit.")
    return duration


def _keep(text: str) -> timedelta:
    kept = parse_duration(text, longest=_LONGEST_KEPT)
    if kept < _SHORTEST_KEPT:
        raise InvalidRequest(f"{text} is too short to keep anything", hint="Write at least 1m, as in 12h or 30d.")
    return kept


def _share(text: str) -> float:
    if not re.fullmatch(_PERCENT, text):
        raise InvalidRequest(f"'{text[:60]}' is not a share", hint="Write 5%, from 0% to 100%.")
    return float(text.removesuffix("%")) / 100


def _shards(value: object) -> object:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_SHARDS:
        return value
    raise refused(Fault(message=f"must be 'auto' or a number from 1 to {_MAX_SHARDS}, not {describe(value)}"))


def _usage(value: object) -> object:
    if isinstance(value, str) and value in {Access.SHARED, Access.EXCLUSIVE}:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_POOL:
        return value
    hint = "Shards of a task share what it has; a number is how many of a pool each of them uses."
    raise refused(Fault(message=f"must be shared, exclusive or a number from 1, not {describe(value)}", hint=hint))


def _pool_size(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_POOL:
        return value
    raise refused(Fault(message=f"must be a number from 1 to {_MAX_POOL}, not {describe(value)}"))


_TEXT = BeforeValidator(as_text)

Text = Annotated[str, _TEXT, WithJsonSchema(TEXT_SCHEMA)]
Line = Annotated[
    str,
    _TEXT,
    _matching(_LINE, "one line of 1 to 200 characters"),
    WithJsonSchema({**TEXT_SCHEMA, "minLength": 1, "maxLength": 200}),
]
EnvName = Annotated[
    str,
    _matching(_ENV_NAME, "a name of an environment variable"),
    WithJsonSchema({"type": "string", "pattern": _ENV_NAME}),
]
CapabilityName = Annotated[
    str,
    _matching(_CAPABILITY_NAME, "a name of a capability", "Letters, digits and _ . / - make one."),
    WithJsonSchema({"type": "string", "pattern": _CAPABILITY_NAME}),
]
PoolName = Annotated[
    str,
    _matching(
        _POOL_NAME,
        "a name of a pool",
        "Letters, digits and _ . - make one; pools of the whole cluster are declared by its operator.",
    ),
    WithJsonSchema({"type": "string", "pattern": _POOL_NAME}),
]
ResourceName = Annotated[
    str,
    _matching(
        _RESOURCE_NAME,
        "a name of a resource",
        "Letters, digits and _ . - make one; `cluster/` before it means that all projects share it.",
    ),
    WithJsonSchema({"type": "string", "pattern": _RESOURCE_NAME}),
]
MatrixValue = Annotated[
    str,
    _TEXT,
    _matching(
        _MATRIX_VALUE,
        "a value of a matrix",
        "It becomes part of a task's name: 1 to 100 characters, none of , [ ] #, and no other value of the matrix.",
    ),
    WithJsonSchema({**TEXT_SCHEMA, "pattern": _MATRIX_VALUE}),
]
Placeholder = Annotated[str, WithJsonSchema(PLACEHOLDER_SCHEMA)]
RelativePath = Annotated[Text, AfterValidator(_inside_workspace)]

Texts = Annotated[list[Text], BeforeValidator(as_list, json_schema_input_type=list[Text] | Text)]
RelativePaths = Annotated[list[RelativePath], BeforeValidator(as_list, json_schema_input_type=list[Text] | Text)]
SecretNames = Annotated[list[EnvName], BeforeValidator(as_list, json_schema_input_type=list[EnvName] | EnvName)]
ShellLines = Annotated[list[Text], BeforeValidator(_shell_lines, json_schema_input_type=list[Text] | Text)]
Arguments = Annotated[list[Text], BeforeValidator(_shell_words, json_schema_input_type=list[Text] | Text)]
PytestArguments = Annotated[
    list[Text],
    BeforeValidator(_shell_words, json_schema_input_type=list[Text] | Text),
    AfterValidator(_known_to_cluster),
]

Duration = Annotated[
    timedelta | None,
    _reading(_duration),
    PlainSerializer(lambda value: "none" if value is None else format_duration(value)),
    WithJsonSchema({"anyOf": [{"const": "none"}, {"type": "string", "minLength": 2, "pattern": DURATION_PATTERN}]}),
]
Keep = Annotated[
    timedelta | None,
    _reading(_keep),
    PlainSerializer(lambda value: None if value is None else format_duration(value)),
    WithJsonSchema({"type": "string", "minLength": 2, "pattern": DURATION_PATTERN}),
]
Size = Annotated[
    int,
    _reading(parse_size),
    PlainSerializer(format_size),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN}),
]
Shards = Annotated[
    int | None,
    BeforeValidator(_shards),
    PlainSerializer(lambda value: value or "auto"),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": _MAX_SHARDS}]}),
]
PoolSize = Annotated[
    int, BeforeValidator(_pool_size), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MAX_POOL})
]
Usage = Annotated[
    str | int,
    BeforeValidator(_usage),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [Access.SHARED.value, Access.EXCLUSIVE.value]},
                {"type": "integer", "minimum": 1, "maximum": _MAX_POOL},
                PLACEHOLDER_SCHEMA,
            ]
        }
    ),
]
Share = Annotated[
    float,
    _reading(_share),
    PlainSerializer(lambda value: f"{value * 100:g}%"),
    WithJsonSchema({"type": "string", "pattern": _PERCENT}),
]
