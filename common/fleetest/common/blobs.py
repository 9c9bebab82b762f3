"""
Where the master keeps content by its digest. Every adapter passes `tests/contract/test_blob_store.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol

__all__ = ["BlobStore", "BlobUpload"]


class BlobUpload(Protocol):
    """
    A large blob on its way in.

    Args:
        offset_bytes: how much of it is there; where the next piece goes.
    """

    @property
    def offset_bytes(self) -> int: ...

    async def write(self, content: bytes) -> None:
        """
        Add a piece.

        Raises:
            CapacityExceeded: the blob, or the store, would be too large, or the disk is full. Nothing is kept.
        """

    async def commit(self) -> None:
        """
        The blob is whole: make it visible and durable.

        Raises:
            InvalidRequest: the content has another digest. Nothing is kept.
            WrongState: so it has, but a part of it was kept from an earlier upload: start over. Nothing is kept.
        """


class BlobStore(Protocol):
    """
    Blobs by digest. One is visible only when it is whole, durable and true to its digest; then it never changes.

    Every method raises InvalidRequest for what is not a digest, and DependencyUnavailable when the store fails.
    Uploads of one digest may go on side by side, also from several processes: each succeeds by itself.
    """

    async def missing(self, digests: Collection[str]) -> Sequence[str]:
        """Those that are not stored, each once, in the order given."""

    async def put(self, blobs: Mapping[str, bytes]) -> None:
        """
        Store small blobs. Idempotent; when it fails, some may have been stored.

        Raises:
            InvalidRequest: a content does not have its digest.
            CapacityExceeded: the store is full.
        """

    async def resumable_bytes(self, digest: str) -> int:
        """How much is kept of an upload that was broken off; 0 while somebody else goes on with it."""

    def upload(self, digest: str, *, offset_bytes: int = 0) -> AbstractAsyncContextManager[BlobUpload]:
        """
        Begin to store a large blob, or go on at `offset_bytes`. What was not committed is kept to go on from there.

        Raises:
            WrongState: on entering: less than that is kept, or somebody else goes on with it.
        """

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """
        The content in chunks of `CHUNK_BYTES`, the last one shorter, or of no chunk when it is empty.

        Raises:
            NotFound: it is not stored.
        """

    async def delete(self, digests: Collection[str]) -> None:
        """Forget blobs. Idempotent; who is reading one reads on."""

    async def sign(self, digest: str, expires_in: timedelta) -> str:
        """
        A URL by which anybody can read the blob for so long, straight from the store. That it is there is not checked.

        Raises:
            WrongState: the store has no such URLs, or the master's credentials cannot sign.
        """
