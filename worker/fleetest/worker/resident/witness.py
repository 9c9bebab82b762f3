"""
Watches for what a result may depend on and no fingerprint knows of: files of the workspace that are read without being
code or declared, connections, and other processes.

By Python's audit events (PEP 578), so it sees what Python code of this process does, and nothing that other code does.
What happens while a fixture of wider scope than a case is set up, or while tests are collected, counts for every case
that runs in this process from then on.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from typing import Any, Iterable, Iterator, Tuple

import pytest

__all__ = ["Witness"]

_CODE = (".py", ".pyc", ".pyi", ".pyw", ".so", ".pyd")
_CONFIGURATION = frozenset(
    (
        "pytest.ini",
        ".pytest.ini",
        "pytest.toml",
        ".pytest.toml",
        "pyproject.toml",
        "tox.ini",
        "setup.cfg",
        ".coveragerc",
    )
)
_SKIPPED = (".git", ".hg", "__pycache__", ".pytest_cache", "node_modules")
_METADATA = (".egg-info", ".dist-info")
_STARTING = frozenset(
    ("subprocess.Popen", "os.posix_spawn", "os.spawn", "os.exec", "os.system", "os.fork", "os.forkpty", "pty.spawn")
)
_CONNECTING = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg"))


class Witness:
    """
    A plugin for pytest; made before pytest begins. It cannot be taken away from the process again.

    Args:
        inputs: globs of the files that may be read, relative to the workspace; `*` matches `/`, too.
    """

    def __init__(self, workspace: str, inputs: Iterable[str]) -> None:
        self._workspace = os.path.join(os.path.realpath(workspace), "")
        self._undeclared = set(_undeclared(self._workspace, inputs))
        self._of_case = self._of_session = ""
        self._in_case = False
        self._wide = 0
        # Looked up now: tests may replace anything.
        self._getcwd, self._join, self._normal, self._decode = os.getcwd, os.path.join, os.path.normpath, os.fsdecode
        self._writing = os.O_WRONLY
        sys.addaudithook(self._hear)

    def begin_case(self) -> None:
        self._of_case, self._in_case = "", True

    def end_case(self) -> str:
        """Why the result must not be cached; empty when nothing is known against it."""
        self._in_case = False
        return self._of_session or self._of_case

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        is_wide = getattr(fixturedef, "scope", "function") != "function"
        self._wide += is_wide
        yield
        self._wide -= is_wide

    def _hear(self, event: str, args: Tuple[Any, ...]) -> None:
        """Must be quick, and must not raise: what it raises would hit whoever caused the event."""
        if event == "open":
            if not self._of_session:
                self._hear_of_file(args)
        elif event in _STARTING:
            self._note("starts a process: " + event)
        elif event in _CONNECTING:
            self._note("connects to something")

    def _hear_of_file(self, args: Tuple[Any, ...]) -> None:
        try:
            path, _, flags = args
            if isinstance(path, int) or (isinstance(flags, int) and flags & self._writing):
                return
            name = self._normal(self._join(self._getcwd(), self._decode(path)))
            if name.startswith(self._workspace) and name[len(self._workspace) :] in self._undeclared:
                self._note("reads a file that is no declared input: " + name[len(self._workspace) :])
        except Exception:  # noqa: BLE001 - whatever a test passes for a path
            return

    def _note(self, reason: str) -> None:
        if self._in_case and not self._wide:
            self._of_case = self._of_case or reason
        else:
            self._of_session = self._of_session or reason


def _undeclared(workspace: str, inputs: Iterable[str]) -> Iterator[str]:
    """The files that are there now and that nothing in a fingerprint knows of."""
    declared = [re.compile(fnmatch.translate(glob)).match for glob in inputs]
    for directory, below, names in os.walk(workspace):
        below[:] = [name for name in below if name not in _SKIPPED and not name.endswith(_METADATA)]
        for name in names:
            path = os.path.join(directory, name)[len(workspace) :]
            if not (name.endswith(_CODE) or name in _CONFIGURATION or any(match(path) for match in declared)):
                yield path
