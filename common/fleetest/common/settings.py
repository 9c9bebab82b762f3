"""
A process's settings: a frozen dataclass whose fields say which `FLEETEST_*` variable they come from.

::

    @dataclass(frozen=True, slots=True, kw_only=True)
    class GatewaySettings:
        address: str = setting("FLEETEST_GATEWAY_ADDRESS", text, default="127.0.0.1:8080")
        idle_timeout: timedelta = setting("FLEETEST_IDLE_TIMEOUT_SECONDS", seconds, default=timedelta(minutes=1))

    settings = read_settings(GatewaySettings, os.environ)

They are read once, where the process is wired together; nothing below reads the environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from fleetest.common.errors import InvalidRequest

__all__ = [
    "Secret",
    "days",
    "header_secret",
    "pairs",
    "path",
    "read_settings",
    "seconds",
    "secret",
    "setting",
    "switch",
    "text",
    "whole_number",
    "words",
]

_Settings = TypeVar("_Settings")
_Value = TypeVar("_Value")

_REQUIRED: Any = object()


class Secret:
    """A text that no repr, log line or error message shows. Empty means that there is none, and is false."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"


def setting(variable: str, parse: Callable[[str], _Value], *, default: _Value = _REQUIRED) -> Any:
    """
    A field that is read from an environment variable.

    Args:
        variable: with its unit, as in `FLEETEST_IDLE_TIMEOUT_SECONDS`.
        parse: makes the value of the variable's text, or raises `ValueError` with what is wrong with it.
        default: when the variable is absent or blank; without one the variable is required.
    """
    metadata = {"variable": variable, "parse": parse}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default_factory=lambda: default, metadata=metadata)  # any value, hashable or not


def read_settings(
    settings: type[_Settings], environment: Mapping[str, str], given: Mapping[str, object] | None = None
) -> _Settings:
    """
    Settings from the environment; `given` ones, as from a command line, come first.

    A `given` value that is `None` counts as not given.

    Raises:
        InvalidRequest: names every variable that is missing or wrong, each on its line.
    """
    chosen = {name: value for name, value in (given or {}).items() if value is not None}
    values: dict[str, object] = {}
    problems = []
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]  # a dataclass, which `type` cannot say
        if field.name in chosen or "variable" not in field.metadata:
            continue
        variable, raw = field.metadata["variable"], environment.get(field.metadata["variable"], "").strip()
        if raw:
            try:
                values[field.name] = field.metadata["parse"](raw)
            except ValueError as error:
                problems.append(f"{variable}: {error}")
        elif field.default_factory is dataclasses.MISSING:
            problems.append(f"{variable}: is required")
    if problems:
        raise InvalidRequest("\n".join(problems), hint="Set these environment variables and start again.")
    return settings(**values, **chosen)


def text(raw: str) -> str:
    """As it stands."""
    return raw


def secret(raw: str) -> Secret:
    """Hidden wherever settings are shown."""
    return Secret(raw)


def header_secret(raw: str) -> Secret:
    """A secret that travels in a header: visible ASCII, without spaces."""
    if not raw.isascii() or not raw.isprintable() or " " in raw:
        raise ValueError("holds characters that a token cannot have; perhaps more was copied than the token")
    return Secret(raw)


def switch(raw: str) -> bool:
    """`1` or `0`, or a word for one of them."""
    if raw.lower() in {"1", "true", "yes", "on"}:
        return True
    if raw.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"{raw!r} is neither 1 nor 0")


def path(raw: str) -> Path:
    """A path, `~` expanded, made absolute."""
    return Path(raw).expanduser().absolute()


def words(raw: str) -> tuple[str, ...]:
    """Texts parted by commas."""
    return tuple(word for part in raw.split(",") if (word := part.strip()))


def pairs(raw: str) -> Mapping[str, str]:
    """`key=value` texts parted by commas."""
    result = {}
    for word in words(raw):
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{word!r} is not of the form key=value")
        result[key.strip()] = value.strip()
    return result


def days(raw: str) -> timedelta:
    """A number of whole days, at least one."""
    return timedelta(days=whole_number(at_least=1)(raw))


def seconds(raw: str) -> timedelta:
    """A length of time, not negative."""
    try:
        length = timedelta(seconds=float(raw))
    except (ValueError, OverflowError):
        raise ValueError(f"{raw!r} is not a number of seconds") from None
    if length < timedelta():
        raise ValueError(f"{raw!r} is less than no time")
    return length


def whole_number(*, at_least: int = 0) -> Callable[[str], int]:
    """Parses a whole number that is not below a bound."""

    def parse(raw: str) -> int:
        try:
            number = int(raw)
        except ValueError:
            raise ValueError(f"{raw!r} is not a whole number") from None
        if number < at_least:
            raise ValueError(f"{number} is less than {at_least}")
        return number

    return parse
