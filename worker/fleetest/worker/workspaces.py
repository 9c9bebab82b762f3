"""
Putting workspaces into directories.

Files are copies, shared with the cache at most as reflinks, never as hard links: what a test writes stays in its own
directory. Between two uses of a directory only what differs is touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from fleetest.common.convert_workspace import MAX_MANIFEST_BYTES, parse_manifest
from fleetest.common.disk import disk_errors
from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.regular_files import FileIdentity, read_chunks
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
_KEPT_FILES: Final = 25_000
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
        self._manifests = _Recent[str, "_Manifest"]()
        self._states = _Recent[Path, "_Loaded"]()

    async def synchronise(
        self, workspace_digest: str, target: Path, *, owner: Owner | None = None, shown_by: Path | None = None
    ) -> None:
        with disk_errors(f"the workspace directory {target}"):
            manifest = await self._manifest(workspace_digest)
            state = WorkspaceState(self._state_directory, target)
            placed = await self._placed(target)
            if not placed and shown_by is not None:
                placed = await self._placed(shown_by)
            wanted = await in_thread(_tidy, target, manifest.folder, placed, owner)
            if not wanted:
                return
            placed = dict(placed)
            for batch in _batches(wanted):
                placed |= await self._place(target, batch, owner)
            await in_thread(time.sleep, _TICK_SECONDS)
            await in_thread(state.save, {file.path: placed[file.path] for file in manifest.files if file.digest})

    async def forget(self, target: Path) -> None:
        await in_thread(WorkspaceState(self._state_directory, target).remove)

    async def _placed(self, target: Path) -> Mapping[str, PlacedFile]:
        """What the target's state says; read again only when it has been written since."""
        state = WorkspaceState(self._state_directory, target)
        identity = await in_thread(state.identity)
        known = self._states.get(target)
        if known is None or known.identity is None or known.identity != identity:
            known = _Loaded(identity, await in_thread(state.load))
            self._states.put(target, known, size=len(known.placed))
        return known.placed

    async def _manifest(self, workspace_digest: str) -> _Manifest:
        if not workspace_digest:
            return _Manifest.of(())
        manifest = self._manifests.get(workspace_digest)
        if manifest is None:
            manifest = _Manifest.of(await self._files(workspace_digest))
            self._manifests.put(workspace_digest, manifest, size=len(manifest.files))
        return manifest

    async def _files(self, workspace_digest: str) -> Sequence[WorkspaceFile]:
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


@dataclass(frozen=True, slots=True)
class _Manifest:
    files: Sequence[WorkspaceFile]
    folder: Folder

    @classmethod
    def of(cls, files: Sequence[WorkspaceFile]) -> _Manifest:
        return cls(files, Folder.of(files))


@dataclass(frozen=True, slots=True)
class _Loaded:
    identity: FileIdentity | None
    placed: Mapping[str, PlacedFile]


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Recent(Generic[_Key, _Value]):
    """The values used last, as many as their sizes allow: a project's next run is mostly of the same files."""

    def __init__(self) -> None:
        self._kept: dict[_Key, tuple[int, _Value]] = {}  # the newest last

    def get(self, key: _Key) -> _Value | None:
        size, value = self._kept.pop(key, (0, None))
        if value is not None:
            self._kept[key] = size, value
        return value

    def put(self, key: _Key, value: _Value, *, size: int) -> None:
        self._kept.pop(key, None)
        self._kept[key] = size, value
        while self._kept and sum(size for size, _ in self._kept.values()) > _KEPT_FILES:
            self._kept.pop(next(iter(self._kept)))


def _tidy(target: Path, folder: Folder, placed: Mapping[str, PlacedFile], owner: Owner | None) -> list[WorkspaceFile]:
    directory = open_target(target)
    try:
        return tidy(directory, folder, placed, owner)
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
