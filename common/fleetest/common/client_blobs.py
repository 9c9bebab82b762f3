"""
Uploading blobs to a master, from a client or a worker.

Only what the master lacks is sent. Small blobs share messages, large ones go in chunks; after a broken connection the
upload goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

import grpc

from fleetest.common.backoff import Backoff
from fleetest.common.convert_blobs import MAX_DIGESTS, BlobPiece, Packer
from fleetest.common.errors import DependencyUnavailable, FleetestError, InvalidRequest, WrongState
from fleetest.common.grpc_status import error_from
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.threads import in_thread
from fleetest.v1 import blob_pb2

if TYPE_CHECKING:
    from grpc.aio import StreamUnaryCall

    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

__all__ = ["BlobSource", "GoOn", "SourceChanged", "find_missing", "upload_blobs"]

_TIMEOUT_SECONDS: Final = 60.0
_TRIES: Final = 6
_BACKOFF: Final = Backoff(first=timedelta(milliseconds=200), longest=timedelta(seconds=5))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """
    Where the content of a blob comes from.

    Args:
        name: for messages.
        read: the content in chunks of `CHUNK_BYTES`; blocks; raises OSError.
    """

    digest: str
    size_bytes: int
    name: str
    read: Callable[[], Iterator[bytes]]


class GoOn(Protocol):
    """What to do when a transfer broke."""

    def __call__(self, failures: int, error: FleetestError) -> Awaitable[BlobServiceAsyncStub]:
        """
        Wait as long as seems right after so many failures without progress, and answer where to go on.

        Raises:
            FleetestError: nowhere.
        """


class SourceChanged(InvalidRequest):
    """A source no longer has the content that its digest names."""

    def __init__(self, source: BlobSource) -> None:
        super().__init__(
            f"{source.name} changed after it had been read the first time",
            hint="Try again when nothing writes to it, or leave it out.",
        )
        self.source = source


async def find_missing(stub: BlobServiceAsyncStub, digests: Collection[str]) -> frozenset[str]:
    """
    Those of the digests that the master does not have.

    Raises:
        DependencyUnavailable, DeadlinePassed: the master does not answer.
    """
    wanted = list(digests)
    missing: set[str] = set()
    try:
        for first in range(0, len(wanted), MAX_DIGESTS):
            request = blob_pb2.FindMissingBlobsRequest(digests=wanted[first : first + MAX_DIGESTS])
            response = await stub.FindMissingBlobs(request, timeout=_TIMEOUT_SECONDS)
            missing.update(response.digests)
    except grpc.RpcError as error:
        raise error_from(error) from error
    return frozenset(missing)


async def upload_blobs(
    stub: BlobServiceAsyncStub,
    sources: Sequence[BlobSource],
    *,
    progress: Callable[[int, int], None],
    backoff: Backoff = _BACKOFF,
    go_on: GoOn | None = None,
) -> Sequence[BlobSource]:
    """
    Make the master have these blobs; answers those that it did not have. Idempotent.

    Goes on after a broken connection, perhaps at another master, as long as every try finds more there than the one
    before, and a few times more.

    Args:
        stub: of the master's BlobService.
        sources: of different digests; sent in this order.
        progress: is told how many bytes the master has, and how many it is to have, of those that it did not have.
        backoff: how long to wait before going on.
        go_on: decides whether and where; without it, at the same master.

    Raises:
        SourceChanged: names the file. Nothing of it has become visible.
        CapacityExceeded: the master has no more room.
        DependencyUnavailable, DeadlinePassed: the master does not answer.
    """
    wanted: list[BlobSource] | None = None
    failures, furthest_bytes = 0, -1
    while True:
        transfer = _Transfer(stub, wanted or (), progress)
        try:
            if wanted is None:
                lacking = await find_missing(stub, [source.digest for source in sources])
                wanted = [source for source in sources if source.digest in lacking]
                transfer = _Transfer(stub, wanted, progress)
            if wanted:
                await transfer.run()
        except (DependencyUnavailable, WrongState) as error:
            failures = failures + 1 if transfer.found_bytes <= furthest_bytes else 1
            furthest_bytes = max(furthest_bytes, transfer.found_bytes)
            if go_on is not None and isinstance(error, DependencyUnavailable):
                stub = await go_on(failures, error)
                continue
            if failures >= _TRIES:
                raise
            await asyncio.sleep(backoff.delay(failures).total_seconds())
        else:
            return wanted


class _Transfer:
    """One try at bringing blobs to the master. `found_bytes` is how much of them it turned out to have already."""

    def __init__(
        self, stub: BlobServiceAsyncStub, sources: Sequence[BlobSource], progress: Callable[[int, int], None]
    ) -> None:
        self._stub = stub
        self._sources = sources
        self._progress = progress
        self._total_bytes = sum(source.size_bytes for source in sources)
        self._written_bytes = 0
        self.found_bytes = -1

    async def run(self) -> None:
        lacking = await find_missing(self._stub, [source.digest for source in self._sources])
        self.found_bytes = sum(source.size_bytes for source in self._sources if source.digest not in lacking)
        call = self._stub.UploadBlobs()
        try:
            with suppress(asyncio.InvalidStateError):  # the master has ended the call early; its status says why
                async with aclosing(self._messages(lacking)) as messages:
                    async for message in messages:
                        await _write(call, message)
                        self._progress(self.found_bytes + self._written_bytes, self._total_bytes)
                await call.done_writing()
            await call
        except grpc.aio.AioRpcError as error:
            raise _broken() if _is_failed_write(error) else error_from(error) from error
        finally:
            call.cancel()

    async def _messages(self, lacking: Collection[str]) -> AsyncGenerator[blob_pb2.BlobChunk, None]:
        packer = Packer()
        for source in self._sources:
            if source.digest not in lacking:
                continue
            offset_bytes = await self._offset(source)
            self.found_bytes += offset_bytes
            pieces = _pieces(source, offset_bytes)
            while piece := await in_thread(next, pieces, None):
                self._written_bytes += len(piece.content)
                if message := packer.add(piece):
                    yield message
        if message := packer.flush():
            yield message

    async def _offset(self, source: BlobSource) -> int:
        """How much of a large blob is at the master. A small one is quicker sent than asked for."""
        if source.size_bytes <= CHUNK_BYTES:
            return 0
        request = blob_pb2.GetUploadOffsetRequest(digest=source.digest)
        response = await self._stub.GetUploadOffset(request, timeout=_TIMEOUT_SECONDS)
        return response.offset_bytes


async def _write(
    call: StreamUnaryCall[blob_pb2.BlobChunk, blob_pb2.UploadBlobsResponse], message: blob_pb2.BlobChunk
) -> None:
    try:
        await call.write(message)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.INTERNAL:  # what gRPC makes of a write that fails, whatever the cause
            raise _broken() from error
        raise


def _is_failed_write(error: grpc.aio.AioRpcError) -> bool:
    """The call may end as a failed write does, before we hear of that. A master's own failure says something else."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"


def _broken() -> DependencyUnavailable:
    return DependencyUnavailable("the connection to the master broke")


def _pieces(source: BlobSource, offset_bytes: int) -> Iterator[BlobPiece]:
    """
    The content from an offset on; the last piece comes only when all of it has proved to be what its digest names.

    Raises:
        SourceChanged: it is something else, or cannot be read any more.
    """
    sha256 = hashlib.sha256()
    read_bytes = 0
    held = BlobPiece(digest=source.digest, offset_bytes=offset_bytes, content=b"", last=False)
    try:
        for chunk in source.read():
            sha256.update(chunk)
            fresh = chunk[max(0, offset_bytes - read_bytes) :]
            read_bytes += len(chunk)
            if fresh and held.content:
                yield held
            if fresh:
                held = replace(held, offset_bytes=read_bytes - len(fresh), content=fresh)
    except OSError as error:
        raise SourceChanged(source) from error
    if sha256.hexdigest() != source.digest:
        raise SourceChanged(source)
    yield replace(held, last=True)
