"""`${name}` in the texts of a check: which names there are, and their values put in their place."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any, Final

from fleetest.worker.checks.json_values import text_of

__all__ = ["VARIABLE_NAME", "Missing", "Variables", "filled", "placeholders_in"]

VARIABLE_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,99}$"

# `$${` is how a text says `${` itself.
_PLACEHOLDER: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_DEFAULT: Final = ":-"
_RANDOM: Final = SystemRandom()

_MADE: Final[Mapping[str, Callable[[], Any]]] = {
    "random.uuid": lambda: str(uuid.uuid4()),
    "random.number": lambda: _RANDOM.randrange(1 << 31),
    "now.iso": lambda: datetime.now(UTC).isoformat(timespec="milliseconds"),
    "now.unix": lambda: int(datetime.now(UTC).timestamp()),
}


class Missing(Exception):
    """
    A name that has no value.

    Args:
        hint: what to do about it; may be empty.
    """

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(f"there is no value for ${{{name[:60]}}}")
        self.hint = hint


class Variables:
    """
    Values by name.

    Args:
        values: the variables themselves.
        env: what `env.NAME` means.
    """

    def __init__(self, values: Mapping[str, Any], *, env: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._env = env

    def define(self, name: str, value: Any) -> None:
        """Set a variable, or set it anew."""
        self._values[name] = value

    @property
    def names(self) -> list[str]:
        """What can be asked for, less the names of `env`."""
        return [*self._values, *_MADE]

    def value(self, name: str) -> Any:
        """
        The value of a name, which may say its own default: `env.PORT:-8080`.

        Raises:
            Missing: it has none.
        """
        name, has_default, default = name.strip().partition(_DEFAULT)
        space, _, key = name.partition(".")
        if space == "env" and key in self._env:
            return self._env[key]
        if name in self._values:
            return self._values[name]
        if name in _MADE:
            return _MADE[name]()
        if has_default:
            return default
        hint = f"Set the environment variable {key}, or write ${{{name}:-default}}." if space == "env" and key else ""
        raise Missing(name, hint)


def placeholders_in(text: str) -> Iterator[str]:
    """What stands between the braces of each."""
    return (match[1] for match in _PLACEHOLDER.finditer(text) if match[1] is not None)


def filled(value: Any, variables: Variables) -> Any:
    """
    The same lists and mappings, their placeholders replaced, in keys as well.

    A text that is nothing but a placeholder becomes the value itself, so a number stays one.

    Raises:
        Missing: a name has no value.
    """
    match value:
        case str():
            whole = _PLACEHOLDER.fullmatch(value)
            if whole is not None and whole[1] is not None:
                return variables.value(whole[1])
            return _PLACEHOLDER.sub(
                lambda match: "${" if match[1] is None else text_of(variables.value(match[1])), value
            )
        case list():
            return [filled(each, variables) for each in value]
        case dict():
            return {text_of(filled(key, variables)): filled(each, variables) for key, each in value.items()}
        case _:
            return value
