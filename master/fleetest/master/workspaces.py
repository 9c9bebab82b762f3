"""Workspaces as the master sees them: manifests among its blobs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Protocol

from fleetest.common.blobs import BlobStore
from fleetest.common.clock import Clock
from fleetest.common.convert_workspace import MAX_MANIFEST_BYTES, parse_manifest
from fleetest.common.errors import NotFound, WrongState
from fleetest.common.workspace import Workspace

__all__ = ["BlobWorkspaces", "WorkspaceSource"]

_BELIEVED_FOR: Final = timedelta(minutes=5)
_KEPT: Final = 20
_KEPT_FILES: Final = 50_000


class WorkspaceSource(Protocol):
    """Reads uploaded workspaces."""

    async def load(self, workspace_digest: str) -> Workspace:
        """
        Raises:
            WrongState: the manifest, or a file of it, has not been uploaded.
            InvalidRequest: the blob is no manifest.
        """


class BlobWorkspaces:
    """
    Reads them. Those read last are kept, since a project's next runs are mostly of the same files: they are not read
    again, nor looked for among the blobs, within the minutes in which nothing removes a blob that was just used.
    """

    def __init__(self, blobs: BlobStore, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock
        self._kept: dict[str, tuple[float, Workspace]] = {}  # the newest last

    async def load(self, workspace_digest: str) -> Workspace:
        """
        Raises:
            WrongState: the manifest, or a file of it, has not been uploaded.
            InvalidRequest: the blob is no manifest.
        """
        now = self._clock.monotonic()
        when, kept = self._kept.pop(workspace_digest, (0.0, None))
        if kept is None or now - when > _BELIEVED_FOR.total_seconds():
            when, kept = now, await self._load(workspace_digest)
        self._kept[workspace_digest] = when, kept
        self._keep_few()
        return kept

    async def _load(self, workspace_digest: str) -> Workspace:
        hint = "upload the workspace before the run is submitted"
        try:
            manifest = await self._read(workspace_digest)
        except NotFound:
            raise WrongState(f"the workspace {workspace_digest} has not been uploaded", hint=hint) from None
        workspace = parse_manifest(manifest)
        missing = await self._blobs.missing([file.digest for file in workspace.files if file.digest])
        if missing:
            first = next(file.path for file in workspace.files if file.digest == missing[0])
            raise WrongState(
                f"{len(missing)} files of the workspace have not been uploaded, {first} among them", hint=hint
            )
        return workspace

    def _keep_few(self) -> None:
        files = sum(len(workspace.files) for _, workspace in self._kept.values())
        while files > _KEPT_FILES or len(self._kept) > _KEPT:
            files -= len(self._kept.pop(next(iter(self._kept)))[1].files)

    async def _read(self, digest: str) -> bytes:
        """No further than a manifest can be long: any blob may be named."""
        content = bytearray()
        async for chunk in self._blobs.read(digest):
            content += chunk
            if len(content) > MAX_MANIFEST_BYTES:
                break
        return bytes(content)
