"""
Contents by name, in a directory that others use at the same time.

What cannot be written is not kept; what is not whole is not there.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Optional

try:
    from _blake2 import blake2b as _blake2b
except (
    ImportError
):  # an interpreter that was built without; `hashlib` would be loaded before the user's own, if there is one
    from hashlib import blake2b as _blake2b

__all__ = ["Store", "digest"]

_DIGEST_BYTES = 32
_MOST_BYTES = 16 << 20
_RECENTLY_SECONDS = 3600
# Not to be stopped by whatever else may have the name.
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Looked up now: tests may replace anything.
_open, _close, _read, _write, _fstat = os.open, os.close, os.read, os.write, os.fstat
_replace, _unlink, _utime, _urandom, _now = os.replace, os.unlink, os.utime, os.urandom, time.time


def digest(content: Any) -> bytes:
    """Of any bytes."""
    return bytes(_blake2b(content, digest_size=_DIGEST_BYTES).digest())


class Store:
    """Never raises for what the disk does."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._takes = True

    def get(self, name: str) -> Optional[bytes]:
        """The content, which counts as used now; nothing when it is not there."""
        try:
            descriptor = _open(self._path(name), _READING)
        except OSError:
            return None
        try:
            stored = _all_of(descriptor)
            self._mark_used(descriptor)
        except OSError:
            return None
        finally:
            _close(descriptor)
        content = stored[_DIGEST_BYTES:]
        return content if stored[:_DIGEST_BYTES] == digest(content) else None

    def put(self, name: str, content: bytes) -> None:
        """Keep all of it at once, or nothing."""
        if not self._takes or len(content) > _MOST_BYTES:
            return
        temporary = self._path(f"{name}.{_urandom(8).hex()}.tmp")
        try:
            descriptor = _open(temporary, _WRITING, 0o600)
            try:
                _write_all(descriptor, digest(content) + content)
            finally:
                _close(descriptor)
            _replace(temporary, self._path(name))
        except OSError:
            self._takes = False  # the disk is full, or read-only: that is found out once
            self._remove(temporary)
        except BaseException:
            self._remove(temporary)
            raise

    def _path(self, name: str) -> str:
        return self._directory + os.sep + name

    @staticmethod
    def _mark_used(descriptor: int) -> None:
        if _now() - _fstat(descriptor).st_mtime > _RECENTLY_SECONDS:
            with contextlib.suppress(OSError):  # then it only looks older than it is
                _utime(descriptor)

    @staticmethod
    def _remove(path: str) -> None:
        with contextlib.suppress(OSError):
            _unlink(path)


def _all_of(descriptor: int) -> bytes:
    chunks = [_read(descriptor, 1 << 20)]
    while chunks[-1] and len(chunks) <= _MOST_BYTES >> 20:
        chunks.append(_read(descriptor, 1 << 20))
    return b"".join(chunks)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[_write(descriptor, content) :]
