"""Blobs that a worker keeps, so that it need not fetch them for every task."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from fleetest.common.blob_directory import BlobDirectory, BlobWriter
from fleetest.common.disk import disk_errors
from fleetest.common.errors import NotFound

__all__ = ["BlobCache"]

_SHARE_UNCHECKED: Final = 16  # a check reads the whole directory, so it is made once for so many parts of the bound
_SHARE_LEFT: Final = 0.9  # evict a little more than needed, not a little at every check


class BlobCache:
    """
    Blobs by digest, the least recently used evicted first. Blocking; safe in threads.

    Several workers may share the directory. The bound holds after an eviction; between two of them each adds at most
    a sixteenth of it.

    Args:
        root: made when it is not there.
        max_bytes: how much is kept.
    """

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        with disk_errors(f"the blob cache {root}"):
            self._blobs = BlobDirectory(root)
        self._lock_file = root / "eviction.lock"
        self._max_bytes = max_bytes
        self._unchecked_bytes = max_bytes  # what earlier workers left is not known: the first check is due
        self._lock = threading.Lock()

    def missing(self, digests: Collection[str]) -> Sequence[str]:
        """Those that are not here, each once, in the order given."""
        return self._blobs.missing(digests)

    def open(self, digest: str) -> int | None:
        """
        A descriptor to read the blob from, which stays readable when the blob is evicted; nothing when it is not here.

        The blob counts as used now.
        """
        try:
            descriptor = self._blobs.open(digest)
        except NotFound:
            return None
        os.utime(descriptor)
        return descriptor

    def create(self, digest: str) -> BlobWriter:
        """Begin to add a blob; tell `added` when it is published."""
        return self._blobs.create(digest)

    def added(self, size_bytes: int) -> None:
        """So much more is here."""
        with self._lock:
            self._unchecked_bytes += size_bytes

    def discard(self, digest: str) -> None:
        """Forget a blob. Idempotent."""
        self._blobs.remove(digest)

    def evict(self, *, keep: Collection[str] = ()) -> None:
        """
        Keep within the bound, when enough has been added to make it worth looking.

        Args:
            keep: blobs that stay, although they may be more than the bound allows: about to be used.
        """
        with self._lock:
            if self._unchecked_bytes * _SHARE_UNCHECKED < self._max_bytes:
                return
            self._unchecked_bytes = 0
        with self._lock_file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two that evict at once would evict twice as much
            self._evict(frozenset(keep))

    def _evict(self, keep: frozenset[str]) -> None:
        stored = sorted(self._blobs.stored(), key=lambda blob: blob[1].st_mtime_ns)
        total_bytes = sum(status.st_size for _, status in stored) + self._blobs.remove_abandoned()
        if total_bytes <= self._max_bytes:
            return
        for digest, _ in stored:
            if total_bytes <= self._max_bytes * _SHARE_LEFT:
                break
            if digest not in keep:
                total_bytes -= self._blobs.remove(digest)
