"""
Suites that have been read before and were found right.

To read one loads all that checks suites, which takes longer than everything else that happens before a run is handed
in; and the master checks each suite anyway. So one that has not changed since is not read again.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from fleetest.common import suite
from fleetest.common.digest import digest_of

__all__ = ["KnownSuites", "installed_rules"]

_KEPT: Final = 50


class KnownSuites:
    """
    A memory that is absent, damaged or cannot be written is an empty one.

    Args:
        directory: where it is kept.
        rules: what stands for the way in which suites are read; by another way, no suite is known.
    """

    def __init__(self, directory: Path, *, rules: str) -> None:
        self._file = directory / "suites.json"
        self._rules = rules
        self._projects = _load(self._file)

    def project(self, text: str) -> str | None:
        """The project that the suite names, empty when it names none; nothing when the suite is not known."""
        return self._projects.get(self._key(text))

    def add(self, text: str, *, project: str) -> None:
        """The suite is right."""
        self._projects.pop(self._key(text), None)
        self._projects[self._key(text)] = project
        newest = dict(list(self._projects.items())[-_KEPT:])
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._file.parent, suffix=".tmp")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(newest, file)
            Path(temporary).replace(self._file)

    def _key(self, text: str) -> str:
        return digest_of(f"{self._rules}\0{text}".encode())


def installed_rules() -> str:
    """
    Names the code that reads suites, by the sizes and times of its files: to ask for the installed version takes
    longer, and an installation to work on has the same one for ever.
    """
    with os.scandir(suite.__path__[0]) as entries:
        files = sorted((entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py"))
    return " ".join(f"{name}:{status.st_size}:{status.st_mtime_ns}" for name, status in files)


def _load(file: Path) -> dict[str, str]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or not all(isinstance(project, str) for project in document.values()):
        return {}
    return document
