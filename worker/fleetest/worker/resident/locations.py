"""
Where cases stand: the file, relative to the workspace, and the line.

pytest finds out each case's location by itself, which is a quarter of what it takes to collect a trivial one: for every
function it looks again whether there is a file of that name, and what its path is. Here this is asked once for each
file, and pytest finds the answer where it keeps its own.
"""

from __future__ import annotations

import os
import types
from typing import Any, Callable, Dict, Tuple

import pytest

__all__ = ["Locations"]

_MARKED = frozenset(("pytestmark",))  # what else a function has may say that it stands for another


class Locations:
    """
    Args:
        clean: makes valid text of a path.
    """

    def __init__(self, workspace: str, clean: Callable[[str], str]) -> None:
        self._inside = os.path.join(os.path.realpath(workspace), "")
        self._clean = clean
        self._files: Dict[str, str] = {}
        self._locations: Dict[str, str] = {}  # as pytest has them, by the name of a file that was compiled

    def of(self, item: Any) -> Tuple[str, int]:
        """File and line, which is 0 when nobody knows it."""
        path, line, _ = self._location(item)
        absolute = str(getattr(item, "path", None) or item.fspath)
        if absolute not in self._files:
            inside = absolute.startswith(self._inside)
            self._files[absolute] = self._clean(absolute[len(self._inside) :] if inside else path)
        return self._files[absolute], (line + 1 if line is not None else 0)

    def _location(self, item: Any) -> Any:
        code = _code(item)
        if code is None:
            return item.location
        if code.co_filename not in self._locations:
            self._locations[code.co_filename] = item.location[0]
            return item.location
        location = self._locations[code.co_filename], code.co_firstlineno - 1, item.getmodpath()
        item.__dict__.setdefault("location", location)  # where its `cached_property` looks
        return location


def _code(item: Any) -> Any:
    """Of an ordinary test function; `None` for whatever else there is."""
    kind, usual = type(item), pytest.Function
    if not isinstance(item, usual) or kind.reportinfo is not usual.reportinfo or kind.location is not usual.location:
        return None
    function: Any = item.function
    if type(function) is not types.FunctionType or not function.__dict__.keys() <= _MARKED:
        return None
    return function.__code__
