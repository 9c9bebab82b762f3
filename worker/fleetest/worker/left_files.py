"""What is known of the files that attempts leave in a workspace: which have been stored, and whose they are."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetest.common.regular_files import FileIdentity
from fleetest.common.results import Artifact, CaseResult
from fleetest.worker.assignments import Assignment

__all__ = ["LeftByTask", "LeftFiles", "StoredFile"]

_LONGEST: Final = 1024
_OF_PLAYWRIGHT: Final = "playwright_"
"""Begins the names of properties by which pytest-playwright tells the files of a case: one for each kind of file."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """
    Args:
        identity: what the file was when it was stored last.
        times: how often that happened.
    """

    identity: FileIdentity
    times: int
    artifact: Artifact


@dataclass(slots=True)
class LeftFiles:
    """
    For all attempts at a task that follow one another in a workspace: what one has stored, and nobody has changed, is
    not the next one's.
    """

    stored: dict[Path, StoredFile] = field(default_factory=dict)
    _cases: dict[str, str] = field(default_factory=dict)
    _directories: dict[str, str] = field(default_factory=dict)

    def hear(self, result: CaseResult, working_directory: str) -> None:
        """
        A file that a property of a case names is the case's. So are all in the directory of one that pytest-playwright
        names: of two screenshots, a property tells one.
        """
        for name, value in result.properties.items():
            if not value or len(value) > _LONGEST or "\n" in value:
                continue
            path = posixpath.normpath(posixpath.join(working_directory, value))
            self._cases[path] = result.case_id
            if name.startswith(_OF_PLAYWRIGHT):
                self._directories[posixpath.dirname(path)] = result.case_id

    def case_of(self, path: str) -> str:
        """Empty: not known, or none."""
        return self._cases.get(path) or self._directories.get(posixpath.dirname(path), "")


class LeftByTask:
    """What attempts in a session have left, as long as they are of the same task of the same run."""

    def __init__(self) -> None:
        self._task = ("", "")
        self._left = LeftFiles()

    def of(self, assignment: Assignment) -> LeftFiles:
        """What is known when this attempt comes."""
        task = (assignment.ref.run_id, assignment.spec.task_id)
        if task != self._task:
            self._task, self._left = task, LeftFiles()
        return self._left
