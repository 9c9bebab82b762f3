"""
Putting workspaces into directories.

Files are copies, shared with the cache at most as reflinks, never as hard links: what a test writes stays in its own
directory. Between two uses of a directory only what differs is touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from fleetest.common.convert_workspace import MAX_MANIFEST_BYTES, parse_manifest
from fleetest.common.disk import disk_errors
from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.regular_files import read_chunks
from fleetest.common.threads import in_thread
from fleetest.common.workspace import WorkspaceFile
from fleetest.worker.blob_cache import BlobCache
from fleetest.worker.ownership import Owner
from fleetest.worker.placing import open_target, place
from fleetest.worker.ports import Blobs
from fleetest.worker.tidying import Folder, tidy
from fleetest.worker.workspace_state import PlacedFile, WorkspaceState

__all__ = ["WorkspaceCache"]

_BATCH_BYTES: Final = 64 << 20
_BATCH_FILES: Final = 2000
_TRIES: Final = 3
# Longer than a tick of the clock that Linux stamps files with (10 ms at HZ=100): when it has passed, whatever changes a
# file changes its time too, and what is remembered of the file can be trusted.
_TICK_SECONDS: Final = 0.02


class WorkspaceCache:
    """
    The `Workspaces` port over a cache of blobs.

    A target belongs to one caller at a time. Nothing is written outside of it, whatever a test made of it. A call that
    is broken off, by a crash too, leaves a directory that the next call puts right.

    Args:
        blobs: brings what the cache lacks.
        cache: where `blobs` brings it.
        state_directory: what is remembered of targets; outside of all of them.
    """

    def __init__(self, blobs: Blobs, cache: BlobCache, *, state_directory: Path) -> None:
        self._blobs = blobs
        self._cache = cache
        self._state_directory = state_directory

    async def synchronise(
        self, workspace_digest: str, target: Path, *, owner: Owner | None = None, shown_by: Path | None = None
    ) -> None:
        with disk_errors(f"the workspace directory {target}"):
            files = await self._files(workspace_digest)
            state = WorkspaceState(self._state_directory, target)
            placed = await in_thread(state.load)
            if not placed and shown_by is not None:
                placed = await in_thread(WorkspaceState(self._state_directory, shown_by).load)
            wanted = await in_thread(_tidy, target, files, placed, owner)
            if not wanted:
                return
            for batch in _batches(wanted):
                placed |= await self._place(target, batch, owner)
            await in_thread(time.sleep, _TICK_SECONDS)
            await in_thread(state.save, {file.path: placed[file.path] for file in files if file.digest})

    async def forget(self, target: Path) -> None:
        await in_thread(WorkspaceState(self._state_directory, target).remove)

    async def _files(self, workspace_digest: str) -> Sequence[WorkspaceFile]:
        if not workspace_digest:
            return ()
        for _ in range(_TRIES):
            await self._blobs.fetch([workspace_digest])
            manifest = await in_thread(_read, self._cache, workspace_digest)
            if manifest is not None:
                return (await in_thread(parse_manifest, manifest)).files
        raise _evicted_too_soon(1)

    async def _place(self, target: Path, batch: Sequence[WorkspaceFile], owner: Owner | None) -> dict[str, PlacedFile]:
        placed: dict[str, PlacedFile] = {}
        for _ in range(_TRIES):
            await self._blobs.fetch(list({file.digest for file in batch if file.digest}))
            done, batch = await in_thread(place, target, batch, self._cache, owner)
            placed |= done
            if not batch:
                return placed
        raise _evicted_too_soon(len(batch))


def _tidy(
    target: Path, files: Sequence[WorkspaceFile], placed: Mapping[str, PlacedFile], owner: Owner | None
) -> list[WorkspaceFile]:
    directory = open_target(target)
    try:
        return tidy(directory, Folder.of(files), placed, owner)
    finally:
        os.close(directory)


def _batches(files: Sequence[WorkspaceFile]) -> Iterator[Sequence[WorkspaceFile]]:
    """Few enough at a time that what one fetch brings is still there when it is copied."""
    batch: list[WorkspaceFile] = []
    size_bytes = 0
    for file in files:
        if batch and (size_bytes + file.size_bytes > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.size_bytes
    if batch:
        yield batch


def _read(cache: BlobCache, digest: str) -> bytes | None:
    descriptor = cache.open(digest)
    if descriptor is None:
        return None
    try:
        if os.fstat(descriptor).st_size > MAX_MANIFEST_BYTES:
            raise InvalidRequest(f"{digest} is no workspace manifest: it is too large")
        return b"".join(read_chunks(descriptor))
    finally:
        os.close(descriptor)


def _evicted_too_soon(count: int) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"{count} blobs were fetched {_TRIES} times and gone, or of the wrong size, each time before they were copied",
        hint="The worker's blob cache is too small for what its slots run, or the workspace's manifest is wrong.",
    )
