"""Which blob store a master has: a directory, or an object store."""

from __future__ import annotations

from pathlib import Path

from fleetest.common.blobs import BlobStore
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.master.blobs.url import BlobsUrl

__all__ = ["open_blobs"]


async def open_blobs(url: BlobsUrl | None, directory: Path | None, data_directory: Path | None) -> BlobStore:
    """
    Args:
        url: where blobs are; absent means in a directory.
        directory: that directory; absent means one in `data_directory`, where an object store's uploads are collected.

    Raises:
        FleetestError: with what to do about it.
    """
    if url is not None and url.directory is None:
        from fleetest.master.blobs.object_blob_store import ObjectBlobStore
        from fleetest.master.blobs.obstore_objects import ObstoreObjects  # takes memory that not every master needs

        assert data_directory is not None  # the settings were checked
        store = ObjectBlobStore(ObstoreObjects(url), data_directory / "uploads")
        await store.check()
        return store
    if url is not None:
        directory = url.directory
    if directory is None:
        assert data_directory is not None  # the settings were checked
        directory = data_directory / "blobs"
    return DirectoryBlobStore(directory)
