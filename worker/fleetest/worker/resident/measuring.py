"""
Measures in a session what its tests execute, with the coverage.py of the tests' own interpreter, as
``coverage run -m pytest`` would.

It begins before pytest is imported and ends when pytest has, so what is executed on import, in hooks and by fixtures of
any scope is in the data of every session, and all sessions together have executed what one would have. Data is only
ever added to; so whatever a session hands in holds all that it handed in before.

`directory` in the configuration is where it hands in: data files called ``.coverage.N``, each complete once it has its
name. Its own data file, and those of processes that coverage.py measures because its configuration says so, lie in
``work`` below that.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
import traceback
import warnings
from typing import Any, Dict, Iterable, List, Tuple

import pytest

__all__ = ["Measuring"]


class Measuring:
    """
    A plugin for pytest.

    Args:
        started: an instance of `coverage.Coverage` that measures.
        wanted: see `coverage` in `channel.py`.
    """

    def __init__(self, started: Any, wanted: Dict[str, Any], workspace: str, channel: Any) -> None:
        self._coverage = started
        self._directory = wanted["directory"]
        self._workspace = os.path.join(os.path.realpath(workspace), "")
        self._start = os.getcwd()
        self._interval = wanted["interval_seconds"]
        self._channel = channel
        self._known: Dict[str, int] = {}
        self._readers: Dict[str, Any] = {}
        self._handed_in = 0
        # Looked up now: tests may replace anything.
        self._now, self._join, self._getpid, self._copy = time.monotonic, os.path.join, os.getpid, shutil.copyfile
        self._rename, self._chmod, self._real = os.rename, os.chmod, os.path.realpath
        self._pid = self._getpid()
        self._due = self._now() + self._interval

    @pytest.hookimpl(hookwrapper=True)
    def pytest_load_initial_conftests(self, early_config: Any) -> Any:
        """pytest-cov, where a configuration asks for it, would measure the same and take the tracer away from here."""
        early_config.known_args_namespace.cov_source = None
        yield

    def hand_in_at_times(self) -> None:
        """Between two cases, while others wait: hand in what there is, if that was not done for a while."""
        if self._now() >= self._due:
            self._hand_in(self._copy, last=False)

    def end(self) -> None:
        """Pytest has ended: measure nothing more, and hand in all."""
        if self._getpid() == self._pid:  # not in a child that a test forked
            self._coverage.stop()
            self._hand_in(self._rename, last=True)

    def _hand_in(self, put: Any, *, last: bool) -> None:
        files: List[Any] = []
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # coverage.py's own, which a suite may have made errors
                self._coverage.save()
                data = self._coverage.get_data()
                files = list(self._news(data))
                self._handed_in += 1
                name = self._join(self._directory, ".coverage.%d" % self._handed_in)
                put(data.data_filename(), name + ".part")
                self._chmod(name + ".part", 0o644)
                self._rename(name + ".part", name)
        except Exception:  # noqa: BLE001 - tests run as well without
            problem = traceback.format_exc()
        self._channel.send({"event": "measured", "files": files, "problem": problem[-4000:], "last": last})
        self._due = self._now() + self._interval

    def _news(self, data: Any) -> Iterable[Tuple[str, str, str]]:
        """Of each file of which more was executed than is known: its path, what can be executed, and what was."""
        for path in data.measured_files():
            lines = data.lines(path) or ()
            if self._known.get(path) == len(lines):
                continue
            self._known[path] = len(lines)
            reader = self._reader(path)
            if reader is not None:
                statements = reader.lines()
                yield self._name(path), _bits(statements), _bits(reader.translate_lines(lines) & statements)

    def _reader(self, path: str) -> Any:
        """What knows the statements of a file; `None` when that is no Python."""
        if path not in self._readers:
            from coverage.python import PythonFileReporter

            try:
                reader = PythonFileReporter(self._join(self._start, path), self._coverage)
                reader.lines()
            except Exception:  # noqa: BLE001 - a template, a file that is gone: the final report says what is wrong
                reader = None
            self._readers[path] = reader
        return self._readers[path]

    def _name(self, path: str) -> str:
        name = str(self._real(self._join(self._start, path)))
        return name.removeprefix(self._workspace)


def _bits(lines: Iterable[int]) -> str:
    """A set of lines as `fleetest.common.coverage` has it, as base64."""
    content = bytearray(max(lines, default=0) // 8 + 1)
    for line in lines:
        content[line // 8] |= 1 << line % 8
    return base64.b64encode(bytes(content)).decode("ascii")
