"""Disks on which there is no room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_room_beyond"]


@contextmanager
def no_room_beyond(size_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes; the kernel answers EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
