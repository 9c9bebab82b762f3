"""BlobService over a blob store. Whose a blob is decides what a caller of one project sees of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from fleetest.common.blobs import BlobStore, BlobUpload
from fleetest.common.convert_blobs import MAX_DIGESTS, BlobPiece, Packer, unpack
from fleetest.common.digest import check_digest, digest_of
from fleetest.common.errors import InvalidRequest, NotFound, WrongState
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.master.access.principals import caller
from fleetest.master.blobs.custody import Custody
from fleetest.v1 import blob_pb2, blob_pb2_grpc

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context: TypeAlias = ServicerContext[Any, Any]

__all__ = ["BlobServicer"]

_REMEMBERED: Final = 10_000
_SEVERAL: Final = "\0"  # no project; what is kept may be anybody's


class BlobServicer(blob_pb2_grpc.BlobServiceServicer):
    """
    What `blob.proto` promises. Raises Fleetest's errors, for an interceptor to turn into statuses.

    To a caller of one project, a blob that the project does not hold is as if it were not there: it is sent again,
    which proves that the caller has it. Workers, and callers of all projects, see every blob.
    """

    def __init__(self, store: BlobStore, custody: Custody) -> None:
        self._store = store
        self._custody = custody
        self._begun: dict[str, str] = {}  # who began the upload that is kept of a digest

    async def FindMissingBlobs(
        self,
        request: blob_pb2.FindMissingBlobsRequest,
        context: Context,
    ) -> blob_pb2.FindMissingBlobsResponse:
        digests = _checked(request.digests)
        project = caller().project
        visible = await self._custody.of_project(digests, project) if project else frozenset(digests)
        await self._custody.uploaded(visible, project)  # first: what is found must not be deleted next
        absent = frozenset(await self._store.missing(visible))
        missing = [digest for digest in dict.fromkeys(digests) if digest in absent or digest not in visible]
        return blob_pb2.FindMissingBlobsResponse(digests=missing)

    async def GetUploadOffset(
        self,
        request: blob_pb2.GetUploadOffsetRequest,
        context: Context,
    ) -> blob_pb2.GetUploadOffsetResponse:
        digest, project = check_digest(request.digest), caller().project
        if not project or await self._custody.of_project([digest], project):
            if not await self._store.missing([digest]):
                return blob_pb2.GetUploadOffsetResponse(complete=True)
        elif self._begun.get(digest) != project:
            return blob_pb2.GetUploadOffsetResponse()
        return blob_pb2.GetUploadOffsetResponse(offset_bytes=await self._store.resumable_bytes(digest))

    async def UploadBlobs(
        self,
        request_iterator: AsyncIterator[blob_pb2.BlobChunk],
        context: Context,
    ) -> blob_pb2.UploadBlobsResponse:
        async with _Intake(self._store, self._custody, self._begun) as intake:
            async for message in request_iterator:
                await intake.accept(unpack(message))
        return blob_pb2.UploadBlobsResponse(blobs_stored=intake.blobs_stored)

    async def DownloadBlobs(
        self,
        request: blob_pb2.DownloadBlobsRequest,
        context: Context,
    ) -> AsyncIterator[blob_pb2.BlobChunk]:
        packer = Packer()
        digests = _checked(request.digests)
        await self._check_visible(digests)
        for digest in digests:
            async with aclosing(self._pieces(digest)) as pieces:
                async for piece in pieces:
                    if message := packer.add(piece):
                        yield message
        if message := packer.flush():
            yield message

    async def _check_visible(self, digests: Sequence[str]) -> None:
        if project := caller().project:
            visible = await self._custody.of_project(digests, project)
            hidden = [digest for digest in digests if digest not in visible]
            if hidden:
                raise NotFound(f"no such blob: {hidden[0]}")

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

    def __init__(self, store: BlobStore, custody: Custody, begun: dict[str, str]) -> None:
        self._store = store
        self._custody = custody
        self._begun = begun
        self._project = caller().project
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
            if self._project:
                _check_contents(whole)  # a store need not look at what it has already
            await self._custody.uploaded(whole, "")  # first: what is stored must not be deleted next
            await self._store.put(whole)
            await self._stored(list(whole))
        for piece in pieces:
            if not piece.last or piece.offset_bytes:
                await self._append(piece)

    async def _append(self, piece: BlobPiece) -> None:
        if self._upload is None or piece.digest != self._digest:
            await self._leave.aclose()
            self._check_own(piece)
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
            await self._custody.uploaded([piece.digest], "")
            await self._upload.commit()
            await self._leave.aclose()
            self._upload = None
            self._begun.pop(piece.digest, None)
            await self._stored([piece.digest])

    def _check_own(self, piece: BlobPiece) -> None:
        """Nobody proves with what another project sent that they have it."""
        if piece.offset_bytes and self._project and self._begun.get(piece.digest) != self._project:
            raise WrongState(f"of {piece.digest} 0 bytes are kept; cannot go on at {piece.offset_bytes}")
        if not piece.offset_bytes:
            before = self._begun.pop(piece.digest, self._project)
            self._begun[piece.digest] = self._project if before == self._project else _SEVERAL
            if len(self._begun) > _REMEMBERED:
                del self._begun[next(iter(self._begun))]

    async def _stored(self, digests: Sequence[str]) -> None:
        """They proved to be what their digests name: they are the project's from now on."""
        if self._project:
            await self._custody.uploaded(digests, self._project)
        self.blobs_stored += len(digests)


def _check_contents(blobs: Mapping[str, bytes]) -> None:
    for digest, content in blobs.items():
        if digest_of(content) != digest:
            raise InvalidRequest(
                f"what was sent as {digest} has the digest {digest_of(content)}",
                hint="The file changed while it was sent, or was damaged on its way. Try again.",
            )


def _checked(digests: Sequence[str]) -> list[str]:
    if len(digests) > MAX_DIGESTS:
        raise InvalidRequest(f"{len(digests)} digests in one request; the limit is {MAX_DIGESTS}")
    return [check_digest(digest) for digest in digests]
