"""JSONPath (RFC 9535) as checks use it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from jsonpath import CompoundJSONPath, JSONPath, JSONPathEnvironment, JSONPathError

from fleetest.worker.checks.json_values import ABSENT

__all__ = ["at_path", "check_path"]

_ENVIRONMENT: Final = JSONPathEnvironment(strict=True)


def check_path(path: str) -> None:
    """
    Raises:
        ValueError: it is not a path.
    """
    _compiled(path)


def at_path(path: str, value: Any) -> Any:
    """
    What a path finds: of one that can only mean one place, the value there or `ABSENT`; of any other, a list.

    Raises:
        ValueError: it is not a path.
    """
    compiled = _compiled(path)
    if isinstance(compiled, JSONPath) and compiled.singular_query():
        if compiled.empty():
            return value
        if isinstance(value, str):  # which the library would take for a document
            return ABSENT
        return next(iter(compiled.findall(value)), ABSENT)
    return [] if isinstance(value, str) else compiled.findall(value)


@lru_cache(maxsize=1000)
def _compiled(path: str) -> JSONPath | CompoundJSONPath:
    try:
        return _ENVIRONMENT.compile(path)
    except (JSONPathError, RecursionError) as error:
        raise ValueError(f"'{path[:60]}' is not a JSONPath: {str(error).splitlines()[0]}") from error
