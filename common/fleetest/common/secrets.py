"""Secrets for a run, or for a shell in its environment: named on the command line, never written there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["read_secrets"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def read_secrets(names: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """
    The values of the named variables.

    Raises:
        InvalidRequest: a value was given with the name, the name is none, or its variable is not set.
    """
    found = {}
    for name in names:
        word, equals, _ = name.partition("=")
        if equals:
            raise InvalidRequest(
                f"--secret {word}=… would show the secret to everybody on this machine",
                hint=f"Set the variable {word} in the environment, and write --secret {word}.",
            )
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"--secret {name!r} is not the name of an environment variable")
        if name not in environment:
            raise InvalidRequest(f"--secret {name}: there is no such environment variable", hint=f"Set {name} first.")
        found[name] = environment[name]
    return found
