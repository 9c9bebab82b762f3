"""
What a task's `setup` leaves in the source tree: built extensions, generated version files, editable installs' metadata.

Bringing the tree back to its pristine files would remove them, so they are kept aside and put back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["SetupProducts", "snapshot"]

Stamp = tuple[int, int, int]


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for directory, names, files in os.walk(root):
        links = [name for name in names if (Path(directory) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(directory) / name
            yield path, path.lstat()


def snapshot(root: Path) -> Mapping[str, Stamp]:
    """Every file below `root`, with what changes when it is written: inode, size and time."""
    return {
        str(path.relative_to(root)): (status.st_ino, status.st_size, status.st_mtime_ns)
        for path, status in _files(root)
    }


class SetupProducts:
    """
    Files that setup made or changed, kept below one directory.

    Args:
        kept: where they are kept; need not exist.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept

    def keep(self, source: Path, before: Mapping[str, Stamp]) -> None:
        """Copy aside what differs from the `snapshot` that was taken before setup."""
        shutil.rmtree(self._kept, ignore_errors=True)
        for name, stamp in snapshot(source).items():
            if before.get(name) != stamp and "__pycache__" not in Path(name).parts:
                _copy(source / name, self._kept / name)

    def restore(self, source: Path) -> None:
        """Put them back."""
        for path, _ in _files(self._kept):
            _copy(path, source / path.relative_to(self._kept))


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        target.unlink()
    shutil.copy2(path, target, follow_symlinks=False)
