"""Workspaces as the master sees them: manifests among its blobs."""

from __future__ import annotations

from fleetest.common.blobs import BlobStore
from fleetest.common.convert_workspace import MAX_MANIFEST_BYTES, parse_manifest
from fleetest.common.errors import NotFound, WrongState
from fleetest.common.workspace import Workspace

__all__ = ["BlobWorkspaces"]


class BlobWorkspaces:
    """Reads them."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def load(self, workspace_digest: str) -> Workspace:
        """
        Raises:
            WrongState: the manifest, or a file of it, has not been uploaded.
            InvalidRequest: the blob is no manifest.
        """
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

    async def _read(self, digest: str) -> bytes:
        """No further than a manifest can be long: any blob may be named."""
        content = bytearray()
        async for chunk in self._blobs.read(digest):
            content += chunk
            if len(content) > MAX_MANIFEST_BYTES:
                break
        return bytes(content)
