"""What the operating system says of its disks, in Fleetest's words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable

__all__ = ["disk_errors", "is_disk_full"]

# EFBIG: the process's own limit (RLIMIT_FSIZE), or the file system's, for a single file.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_disk_full(error: OSError) -> bool:
    """Whether there was no room: on the disk, in a quota, or under a limit for files."""
    return error.errno in _FULL


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """
    Gives a failing file operation its place in the tree of errors.

    Args:
        what: what is on the disk, as the subject of a sentence: "the blob store /var/lib/blobs".

    Raises:
        CapacityExceeded: no room is left.
        DependencyUnavailable: anything else that an `OSError` tells.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise CapacityExceeded(f"{what}: the disk is full", hint="Free some space, or use another disk.") from error
        raise DependencyUnavailable(f"{what}: {error}") from error
