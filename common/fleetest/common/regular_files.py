"""Reading files that somebody else may be changing, or may have put there to harm the reader."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from fleetest.common.limits import MAX_FILE_BYTES

__all__ = [
    "CHUNK_BYTES",
    "FileIdentity",
    "NotRegular",
    "hash_file",
    "open_beneath",
    "open_regular",
    "read_chunks",
    "write_all",
]

CHUNK_BYTES: Final = 1 << 20
"""How much of a file is read, and sent, at a time: 1 MiB, the most that a `BlobChunk` holds."""


# What systems say of a symbolic link (ELOOP), and of a socket or a device without its driver (the others).
_NOT_OPENED: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP})


class NotRegular(OSError):
    """The path is a symbolic link, a directory, a device, a socket or a FIFO."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """
    What tells that a file is still the one it was, without reading it, as git's index does.

    Content cannot change under it unless the change falls into the same tick of the file system's clock; whoever
    relies on one takes care that the tick is over.
    """

    size_bytes: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    @property
    def changed_ns(self) -> int:
        """When the file last changed in any way, as the file system's clock has it."""
        return max(self.mtime_ns, self.ctime_ns)


def open_regular(path: str | Path, *, directory: int | None = None) -> int:
    """
    A descriptor for reading a regular file; never waits, never follows a symbolic link in the last component.

    Args:
        path: relative to `directory`, when that is given.
        directory: a descriptor.

    Raises:
        NotRegular: it is something else.
        OSError
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, dir_fd=directory)
    except OSError as error:
        if error.errno in _NOT_OPENED:
            raise NotRegular(error.errno, "not a regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def open_beneath(root: Path, path: str) -> int:
    """
    `open_regular` for a '/'-separated path inside `root` that follows no symbolic link below `root`.

    Raises:
        NotRegular: it is something else, or a symbolic link lies on the way.
        OSError
    """
    *directories, name = path.split("/")
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in directories:
            below = _open_directory(part, here)
            os.close(here)
            here = below
        return open_regular(name, directory=here)
    finally:
        os.close(here)


def _open_directory(name: str, parent: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:  # of a symbolic link Linux says the first, macOS the second
            raise NotRegular(error.errno, "not a directory", name) from error
        raise


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """The rest of the file in chunks of `CHUNK_BYTES`, the last one shorter; closes nothing."""
    while chunk := _read_full(descriptor):
        yield chunk


def _read_full(descriptor: int) -> bytes:
    chunk = os.read(descriptor, CHUNK_BYTES)
    while chunk and len(chunk) < CHUNK_BYTES and (more := os.read(descriptor, CHUNK_BYTES - len(chunk))):
        chunk += more
    return chunk


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it, where `os.write` may stop short. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def hash_file(descriptor: int) -> tuple[str, int]:
    """
    The digest of what follows in the file, and how many bytes that was; reads it piece by piece.

    Stops beyond `MAX_FILE_BYTES`, so that a file which grows for ever does not keep the reader.
    """
    sha256 = hashlib.sha256()
    size_bytes = 0
    for chunk in islice(read_chunks(descriptor), MAX_FILE_BYTES // CHUNK_BYTES + 1):
        sha256.update(chunk)
        size_bytes += len(chunk)
    return sha256.hexdigest(), size_bytes
