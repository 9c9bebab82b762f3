"""Private directories for temporary files and sockets, short enough for the latter, gone when their agent is."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

__all__ = ["Scratch", "remove_abandoned"]

_PREFIX: Final = "ft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """
    Args:
        root: readable by its owner only.
        temporary: what tests get as TMPDIR.
        channel: for the agent and the runner's files.
    """

    root: Path
    temporary: Path
    channel: Path

    @classmethod
    def create(cls) -> Scratch:
        # Below the system's own directory: the path of a Unix socket has at most 107 bytes.
        root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        scratch = cls(root=root, temporary=root / "tmp", channel=root / "c")
        scratch.temporary.mkdir()
        scratch.channel.mkdir()
        return scratch

    def remove(self) -> None:
        _remove(self.root)


def remove_abandoned() -> None:
    """Remove what agents that are no longer alive left behind."""
    for path in _of_this_user():
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            _remove(path)


def _of_this_user() -> Iterator[Path]:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}[0-9]*-*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.getuid() and not path.is_symlink():
                yield path


def _remove(root: Path) -> None:
    """Remove a tree, also where a test took its own right to do so."""
    for directory, _, _ in os.walk(root):
        with contextlib.suppress(OSError):
            Path(directory).chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)
