"""BlobService over a blob store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from fleetest.common.blobs import BlobStore, BlobUpload
from fleetest.common.convert_blobs import MAX_DIGESTS, BlobPiece, Packer, unpack
from fleetest.common.digest import check_digest
from fleetest.common.errors import InvalidRequest
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.v1 import blob_pb2, blob_pb2_grpc

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context: TypeAlias = ServicerContext[Any, Any]

__all__ = ["BlobServicer"]


class BlobServicer(blob_pb2_grpc.BlobServiceServicer):
    """What `blob.proto` promises. Raises Fleetest's errors, for an interceptor to turn into statuses."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def FindMissingBlobs(
        self,
        request: blob_pb2.FindMissingBlobsRequest,
        context: Context,
    ) -> blob_pb2.FindMissingBlobsResponse:
        missing = await self._store.missing(_checked(request.digests))
        return blob_pb2.FindMissingBlobsResponse(digests=missing)

    async def GetUploadOffset(
        self,
        request: blob_pb2.GetUploadOffsetRequest,
        context: Context,
    ) -> blob_pb2.GetUploadOffsetResponse:
        digest = check_digest(request.digest)
        if not await self._store.missing([digest]):
            return blob_pb2.GetUploadOffsetResponse(complete=True)
        return blob_pb2.GetUploadOffsetResponse(offset_bytes=await self._store.resumable_bytes(digest))

    async def UploadBlobs(
        self,
        request_iterator: AsyncIterator[blob_pb2.BlobChunk],
        context: Context,
    ) -> blob_pb2.UploadBlobsResponse:
        async with _Intake(self._store) as intake:
            async for message in request_iterator:
                await intake.accept(unpack(message))
        return blob_pb2.UploadBlobsResponse(blobs_stored=intake.blobs_stored)

    async def DownloadBlobs(
        self,
        request: blob_pb2.DownloadBlobsRequest,
        context: Context,
    ) -> AsyncIterator[blob_pb2.BlobChunk]:
        packer = Packer()
        for digest in _checked(request.digests):
            async with aclosing(self._pieces(digest)) as pieces:
                async for piece in pieces:
                    if message := packer.add(piece):
                        yield message
        if message := packer.flush():
            yield message

    async def _pieces(self, digest: str) -> AsyncGenerator[BlobPiece, None]:
        offset_bytes = 0
        last = False
        async for chunk in self._store.read(digest):
            last = len(chunk) < CHUNK_BYTES
            yield BlobPiece(digest=digest, offset_bytes=offset_bytes, content=chunk, last=last)
            offset_bytes += len(chunk)
        if not last:
            yield BlobPiece(digest=digest, offset_bytes=offset_bytes, content=b"", last=True)


class _Intake:
    """One stream of uploads. A blob that it breaks off in is kept, to go on from there."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._upload: BlobUpload | None = None
        self._digest = ""
        self._leave = AsyncExitStack()
        self.blobs_stored = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave.aclose()

    async def accept(self, pieces: Sequence[BlobPiece]) -> None:
        """Store what is whole together, and the rest piece by piece."""
        whole = {piece.digest: piece.content for piece in pieces if piece.last and not piece.offset_bytes}
        if whole:
            await self._store.put(whole)
            self.blobs_stored += len(whole)
        for piece in pieces:
            if not piece.last or piece.offset_bytes:
                await self._append(piece)

    async def _append(self, piece: BlobPiece) -> None:
        if self._upload is None or piece.digest != self._digest:
            await self._leave.aclose()
            self._upload = await self._leave.enter_async_context(
                self._store.upload(piece.digest, offset_bytes=piece.offset_bytes)
            )
            self._digest = piece.digest
        elif piece.offset_bytes != self._upload.offset_bytes:
            raise InvalidRequest(
                f"a chunk of {piece.digest} begins at {piece.offset_bytes}, not at {self._upload.offset_bytes}"
            )
        await self._upload.write(piece.content)
        if piece.last:
            await self._upload.commit()
            await self._leave.aclose()
            self._upload = None
            self.blobs_stored += 1


def _checked(digests: Sequence[str]) -> list[str]:
    if len(digests) > MAX_DIGESTS:
        raise InvalidRequest(f"{len(digests)} digests in one request; the limit is {MAX_DIGESTS}")
    return [check_digest(digest) for digest in digests]
