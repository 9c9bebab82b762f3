"""
Where sessions keep what modules were compiled to, from one run to the next: a directory for each project.

`fleetest/worker/resident/compiled.py`, which cannot be imported here, says what is in it. Whoever runs tests of a
project may write there, so an agent reads nothing of it, and projects never share one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from fleetest.common.digest import digest_of
from fleetest.worker.directories import remove
from fleetest.worker.ownership import Owner

__all__ = ["CompiledModules"]

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECONDS_UNCHECKED: Final = 600
_SHARE_LEFT: Final = 0.9

_log = structlog.stdlib.get_logger()


class _Entry(NamedTuple):
    used_at_ns: int
    directory: Path
    name: str
    size_bytes: int


class CompiledModules:
    """
    The directories. Blocking; safe in threads, and beside other workers.

    Args:
        root: made when it is needed.
        max_bytes: of all projects together, looked at every ten minutes; with 0 nothing is kept.
        owner: who runs tests; absent means this process's own user.
    """

    def __init__(self, root: Path, *, max_bytes: int, owner: Owner | None = None) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._owner = owner
        self._lock = threading.Lock()
        self._checked_at = -float(_SECONDS_UNCHECKED)

    def open(self, project: str) -> Path | None:
        """A project's directory; nothing where none can be had: tests run as well without."""
        if not self._max_bytes:
            return None
        directory = self._root / digest_of(project.encode())[:32]
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_ours = self._own(directory)
            if self._is_due():
                self.evict()
        except OSError as error:
            _log.info("compiled_modules_not_kept", reason=str(error))
            return None
        return directory if is_ours else None

    def evict(self) -> None:
        """Keep within the bound: what was used least recently goes. Raises OSError."""
        entries = sorted(self._entries())
        total_bytes = sum(entry.size_bytes for entry in entries)
        if total_bytes <= self._max_bytes:
            return
        for entry in entries:
            if total_bytes <= self._max_bytes * _SHARE_LEFT:
                break
            with contextlib.suppress(OSError), _opened(entry.directory) as descriptor:
                os.unlink(entry.name, dir_fd=descriptor)
            total_bytes -= entry.size_bytes

    def _own(self, directory: Path) -> bool:
        """Whether it is the one's who runs tests; others could have put anything there."""
        with _opened(directory) as descriptor:
            if self._owner is not None:
                self._owner.own(descriptor)
                return True
            return os.fstat(descriptor).st_uid == os.geteuid()

    def _is_due(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now - self._checked_at < _SECONDS_UNCHECKED:
                return False
            self._checked_at = now
            return True

    def _entries(self) -> Iterator[_Entry]:
        for directory in self._root.iterdir():
            with contextlib.suppress(OSError), _opened(directory) as descriptor, os.scandir(descriptor) as found:
                for each in found:
                    status = each.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield _Entry(status.st_mtime_ns, directory, each.name, status.st_size)
                    else:  # no session makes such a thing
                        remove(descriptor, each.name)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, _OPEN)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
