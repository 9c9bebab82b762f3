"""Bringing a workspace to the master."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetest.common.client_blobs import BlobSource, GoOn, upload_blobs
from fleetest.common.regular_files import CHUNK_BYTES, open_regular, read_chunks
from fleetest.common.workspace import Workspace, WorkspaceFile

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

__all__ = ["UploadReport", "upload_workspace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadReport:
    """
    What an upload came to.

    Args:
        sent_files: files whose content the master did not have; of equal ones only one counts.
        sent_bytes: their sizes.
        reused_files: the others.
    """

    sent_files: int
    sent_bytes: int
    reused_files: int


async def upload_workspace(
    stub: BlobServiceAsyncStub,
    workspace: Workspace,
    root: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    go_on: GoOn | None = None,
) -> UploadReport:
    """
    Make the master have every file of the workspace, and at last its manifest. Idempotent; sends what is missing.

    Args:
        stub: of the master's BlobService.
        workspace: as scanned at `root`.
        root: where its files are read.
        progress: is told how many bytes the master has, and how many it is to have, of those that it did not have.
        go_on: decides whether and where to go on after a broken connection; without it, at the same master.

    Raises:
        InvalidRequest: a file changed since the scan; the message names it.
        CapacityExceeded: the master has no more room.
        DependencyUnavailable, DeadlinePassed: the master does not answer.
    """
    files = {file.digest: file for file in workspace.files if file.digest}
    sources = [_source(root, file) for file in files.values()]
    manifest = BlobSource(
        digest=workspace.digest,
        size_bytes=len(workspace.manifest),
        name="the manifest",
        read=lambda: _in_chunks(workspace.manifest),
    )
    sent = await upload_blobs(stub, [*sources, manifest], progress=progress or _silent, go_on=go_on)
    sent_files = [source for source in sent if source is not manifest]
    return UploadReport(
        sent_files=len(sent_files),
        sent_bytes=sum(source.size_bytes for source in sent_files),
        reused_files=sum(1 for file in workspace.files if file.digest) - len(sent_files),
    )


def _silent(sent_bytes: int, total_bytes: int) -> None:
    """Nobody wants to know."""


def _source(root: Path, file: WorkspaceFile) -> BlobSource:
    def read() -> Iterator[bytes]:
        descriptor = open_regular(root / file.path)
        try:
            yield from read_chunks(descriptor)
        finally:
            os.close(descriptor)

    return BlobSource(digest=file.digest, size_bytes=file.size_bytes, name=str(root / file.path), read=read)


def _in_chunks(content: bytes) -> Iterator[bytes]:
    return (content[first : first + CHUNK_BYTES] for first in range(0, len(content), CHUNK_BYTES))
