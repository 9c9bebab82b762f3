"""
Working in a directory that tests have had their way with.

A test may have put a symbolic link to `/etc` in place of a directory, nested directories deeper than a path can say, or
taken its permissions away. So everything goes by descriptor from one directory to the next, and follows no link.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

__all__ = ["empty_directory", "names_in", "open_directory", "open_or_replace_directory", "remove"]

_MODE: Final = 0o755
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(parent: int, name: str) -> int:
    """
    A descriptor of a directory inside another one, of which its owner can list and change the entries now.

    Raises:
        NotADirectoryError: it is a symbolic link, or something else.
        OSError
    """
    try:
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    except PermissionError:
        _make_accessible(parent, name)
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:  # what macOS says of a symbolic link
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", name) from error
        raise
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != _MODE:
        os.fchmod(descriptor, _MODE)
    return descriptor


def open_or_replace_directory(parent: int, name: str) -> int:
    """The same, after making the directory, in place of what else has its name. Raises OSError."""
    try:
        return open_directory(parent, name)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    os.mkdir(name, dir_fd=parent)
    return open_directory(parent, name)


def names_in(directory: int) -> list[str]:
    """What an open directory holds. Raises OSError."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def empty_directory(path: Path) -> None:
    """Remove all that is in a directory, and what its owner may have done to itself. Raises OSError."""
    directory = os.open(path, _OPEN)
    try:
        if stat.S_IMODE(os.fstat(directory).st_mode) != _MODE:
            os.fchmod(directory, _MODE)
        for name in os.listxattr(directory) if hasattr(os, "listxattr") else ():
            if not name.startswith("security."):
                os.removexattr(directory, name)
        for name in names_in(directory):
            remove(directory, name)
    finally:
        os.close(directory)


def remove(parent: int, name: str) -> None:
    """
    Remove an entry of a directory, whatever it is, with all that is in it. Raises OSError.

    Directories below are first moved up beside it, one by one, so that no depth is too deep. Should that be broken
    off, they lie there as further entries to remove.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    pending = [name]
    while pending:
        current = pending.pop()
        directory = open_directory(parent, current)
        try:
            pending += _empty(directory, parent)
        finally:
            os.close(directory)
        os.rmdir(current, dir_fd=parent)


def _empty(directory: int, parent: int) -> list[str]:
    """Remove the files of a directory and move its directories to `parent`; answers their names there."""
    moved = []
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        os.close(open_directory(directory, name))  # a directory is moved only by who may write to it
        aside = f".removed-{secrets.token_hex(8)}"
        try:
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=parent)
            moved.append(aside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # An overlay moves no directory of its lower layer; the workspace that is there is not too deep.
            moved += _empty_in_place(directory, name, parent)
    return moved


def _empty_in_place(directory: int, name: str, parent: int) -> list[str]:
    """Remove a directory of an open one; answers the names at which directories of it lie in `parent` now."""
    inside = open_directory(directory, name)
    try:
        moved = _empty(inside, parent)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=directory)
    return moved


def _make_accessible(parent: int, name: str) -> None:
    """`chmod` that follows no link; Linux has it only by way of a descriptor that needs no permission (O_PATH)."""
    if not hasattr(os, "O_PATH"):
        os.chmod(name, _MODE, dir_fd=parent, follow_symlinks=False)
        return
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{descriptor}").chmod(_MODE)
    finally:
        os.close(descriptor)
