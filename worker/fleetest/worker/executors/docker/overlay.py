"""
Undoing what was done to an overlay (overlayfs), through its merged view, while it stays mounted.

Whatever was changed since it was made is in the upper directory, and nothing else is: files that were written to or
made, a device 0:0 for each that was removed, and the directories on the way to them. So what is not there is as it was;
what is there is removed, and copied anew from the layer below. The upper directory itself is only read: changing it
under a mounted overlay is not defined. Source: the kernel's Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleetest.worker.directories import names_in, open_directory, remove

__all__ = ["is_untouched", "undo"]

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o755
# Such a directory does not show what lies below its own name.
_HIDES_BELOW: Final = ("trusted.overlay.opaque", "trusted.overlay.redirect")
_OVERLAYS_OWN: Final = ("trusted.", "security.")


def is_untouched(upper: Path) -> bool:
    """Whether nobody has changed anything since the overlay was made. It needs an upper directory of mode 755."""
    with _opened(upper) as directory:
        return not names_in(directory) and _mode(directory) == _MODE and not _attributes(directory)


def undo(upper: Path, layer: Path, merged: Path) -> None:
    """
    Make the merged view show the layer again, with its owners, permissions, times and extended attributes. Nobody else
    may use it meanwhile.

    Raises:
        OSError
    """
    with _opened(upper) as above, _opened(layer) as below, _opened(merged) as seen:
        _undo(above, below, seen)
        _strip(seen)
        os.fchmod(seen, _MODE)


def _undo(above: int, below: int, seen: int) -> None:
    for name in names_in(above):
        original = _status(name, below)
        if original is not None and stat.S_ISDIR(original.st_mode) and _shows_below(name, above):
            inner_seen = open_directory(seen, name)
            try:
                with _inside(above, name) as inner_above, _inside(below, name) as inner_below:
                    _undo(inner_above, inner_below, inner_seen)
                    _copy_attributes(inner_below, inner_seen)
            finally:
                os.close(inner_seen)
            continue
        if _status(name, seen) is not None:
            remove(seen, name)
        if original is not None:
            _copy(name, original, below, seen)


def _copy(name: str, original: os.stat_result, below: int, seen: int) -> None:
    """Layers hold directories, regular files and symbolic links only."""
    if stat.S_ISLNK(original.st_mode):
        os.symlink(os.readlink(name, dir_fd=below), name, dir_fd=seen)
        os.chown(name, original.st_uid, original.st_gid, dir_fd=seen, follow_symlinks=False)
    elif stat.S_ISDIR(original.st_mode):
        os.mkdir(name, dir_fd=seen)
        with _inside(below, name) as source, _inside(seen, name) as target:
            for inner in names_in(source):
                status = os.stat(inner, dir_fd=source, follow_symlinks=False)
                _copy(inner, status, source, target)
            _copy_attributes(source, target)
    else:
        reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=below)
        with os.fdopen(reading, "rb") as source_file:
            writing = os.open(name, _CREATE, 0o600, dir_fd=seen)
            with os.fdopen(writing, "wb") as target_file:
                shutil.copyfileobj(source_file, target_file)
                target_file.flush()
                _copy_attributes(source_file.fileno(), target_file.fileno())


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    _strip(target)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _strip(target: int) -> None:
    """Layers have no extended attributes, access control lists included."""
    for attribute in _attributes(target):
        os.removexattr(target, attribute)


def _attributes(target: int) -> list[str]:
    return [name for name in os.listxattr(target) if not name.startswith(_OVERLAYS_OWN)]


def _shows_below(name: str, above: int) -> bool:
    """Whether it is a directory that shows the one of its name below as well."""
    status = os.stat(name, dir_fd=above, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return False
    with _inside(above, name) as directory:
        return not set(os.listxattr(directory)) & set(_HIDES_BELOW)


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _mode(directory: int) -> int:
    return stat.S_IMODE(os.fstat(directory).st_mode)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _OPEN)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _inside(directory: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, _OPEN, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
