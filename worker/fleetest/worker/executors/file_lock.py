"""Locks between the workers of one machine, which the kernel lets go when their holder is gone."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fleetest.common.digest import digest_of
from fleetest.common.disk import disk_errors

__all__ = ["FileLocks"]

_LOOK_AGAIN_SECONDS: Final = 0.1


class FileLocks:
    """
    A lock for each name, in this process and between all that use the directory.

    Args:
        directory: made when it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """
        Wait for the lock, and hold it.

        Raises:
            CapacityExceeded, DependencyUnavailable: the directory cannot be written to.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            path = self._directory / f"{digest_of(name.encode())[:32]}.lock"
            with disk_errors(f"the directory of locks {self._directory}"):
                self._directory.mkdir(parents=True, exist_ok=True)
                descriptor = _open(path)
            try:
                while not _lock(descriptor, path):
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)  # others ring no bell
                    if not _is_at(descriptor, path):
                        abandoned, descriptor = descriptor, _open(path)
                        os.close(abandoned)
                yield
                path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, path: Path) -> bool:
    """Whether it is ours now: a file that its last holder has unlinked is nobody's any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_at(descriptor, path)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
