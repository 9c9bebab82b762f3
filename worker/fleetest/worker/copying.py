"""Copying a file's content, without copying where the file system can share it."""

from __future__ import annotations

import os
import sys
from typing import Final

from fleetest.common.disk import is_disk_full
from fleetest.common.regular_files import read_chunks, write_all

__all__ = ["copy_content"]

_MOST_BYTES: Final = 1 << 30


def copy_content(source: int, target: int) -> int:
    """
    Copy from one descriptor to another, from where they stand; answers how many bytes. Raises OSError.

    Where the file system knows reflinks (Btrfs, XFS) both then share their blocks until one is written to.
    """
    copied_bytes = _share_content(source, target)
    for chunk in read_chunks(source):
        write_all(target, chunk)
        copied_bytes += len(chunk)
    return copied_bytes


def _share_content(source: int, target: int) -> int:
    """As much as the kernel copies by itself (copy_file_range(2)); both descriptors stand behind that."""
    copied_bytes = 0
    if sys.platform == "linux":
        try:
            while count := os.copy_file_range(source, target, _MOST_BYTES):
                copied_bytes += count
        except OSError as error:
            if is_disk_full(error):
                raise
    return copied_bytes
