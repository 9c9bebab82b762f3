"""The masters' blobs, over gRPC."""

from __future__ import annotations

import asyncio
import errno
import mimetypes
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import grpc

from fleetest.common.backoff import Backoff
from fleetest.common.blob_directory import BlobWriter
from fleetest.common.client_blobs import BlobSource, SourceChanged, upload_blobs
from fleetest.common.convert_blobs import MAX_DIGESTS, BlobPiece, unpack
from fleetest.common.disk import disk_errors
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, InvalidRequest
from fleetest.common.grpc_status import error_from
from fleetest.common.limits import MAX_ARTIFACT_BYTES
from fleetest.common.regular_files import hash_file, open_beneath, read_chunks
from fleetest.common.results import Artifact
from fleetest.common.threads import in_thread
from fleetest.common.workspace import path_problem
from fleetest.v1 import blob_pb2

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub
    from fleetest.worker.blob_cache import BlobCache

__all__ = ["BlobClient", "BlobMasters"]

_TRIES: Final = 5
_BACKOFF: Final = Backoff(first=timedelta(milliseconds=200), longest=timedelta(seconds=5))


# The same on every worker, whatever its system knows.
_MEDIA_TYPES: Final = mimetypes.MimeTypes()
_MEDIA_TYPES.add_type("text/plain", ".log")


class BlobMasters(Protocol):
    """Who serves blobs: one master at a time."""

    @property
    def stub(self) -> BlobServiceAsyncStub:
        """Of the BlobService of the master in use."""

    def leave(self, stub: BlobServiceAsyncStub) -> None:
        """The master of this stub does not serve: use the next."""


class BlobClient:
    """
    The `Blobs` port over BlobService and a local cache. A transfer that breaks goes on at the next master.

    Args:
        cache: where fetched blobs are kept.
        backoff: how long to wait before a broken transfer goes on.
    """

    def __init__(self, masters: BlobMasters, cache: BlobCache, *, backoff: Backoff = _BACKOFF) -> None:
        self._masters = masters
        self._cache = cache
        self._backoff = backoff
        # Slots that start together want the same files: the second finds what the first has fetched.
        self._fetching = asyncio.Lock()

    async def fetch(self, digests: Sequence[str]) -> None:
        async with self._fetching:
            with disk_errors("the worker's blob cache"):
                await self._fetch(digests)
                await in_thread(self._cache.evict, keep=digests)

    async def store(self, root: Path, paths: Sequence[Path]) -> tuple[Sequence[Artifact], Sequence[str]]:
        artifacts, problems = await in_thread(_examine, root, paths)
        while artifacts:
            sources = {artifact.digest: _source(root, artifact) for artifact in artifacts}
            try:
                await self._upload(list(sources.values()))
            except SourceChanged as error:
                problems += [
                    f"{artifact.path}: changed while it was stored"
                    for artifact in artifacts
                    if artifact.digest == error.source.digest
                ]
                artifacts = [artifact for artifact in artifacts if artifact.digest != error.source.digest]
            except CapacityExceeded as error:
                return [], [*problems, f"{len(artifacts)} artifacts could not be stored: {error.message}"]
            else:
                break
        return artifacts, problems

    async def _upload(self, sources: Sequence[BlobSource]) -> None:
        stub = self._masters.stub

        async def go_on(failures: int, error: FleetestError) -> BlobServiceAsyncStub:
            nonlocal stub
            if failures >= _TRIES:
                raise error
            self._masters.leave(stub)
            await asyncio.sleep(self._backoff.delay(failures).total_seconds())
            stub = self._masters.stub
            return stub

        await upload_blobs(stub, sources, progress=_silent, backoff=self._backoff, go_on=go_on)

    async def _fetch(self, digests: Sequence[str]) -> None:
        failures, fewest = 0, len(digests) + 1
        while missing := await in_thread(self._cache.missing, digests):
            if len(missing) < fewest:
                failures, fewest = 0, len(missing)
            stub = self._masters.stub
            try:
                await self._download(stub, missing[:MAX_DIGESTS])
            except DependencyUnavailable:
                failures += 1
                if failures >= _TRIES:
                    raise
                self._masters.leave(stub)
                await asyncio.sleep(self._backoff.delay(failures).total_seconds())

    async def _download(self, stub: BlobServiceAsyncStub, digests: Sequence[str]) -> None:
        receipt = _Receipt(self._cache, digests)
        call = stub.DownloadBlobs(blob_pb2.DownloadBlobsRequest(digests=digests))
        try:
            async for message in call:
                await in_thread(receipt.accept, unpack(message))
            receipt.check_complete()
        except grpc.RpcError as error:
            raise error_from(error) from error
        except InvalidRequest as error:
            raise DependencyUnavailable(f"a blob came from the master in disorder: {error.message}") from error
        finally:
            call.cancel()
            await in_thread(receipt.close)


class _Receipt:
    """Puts what arrives into the cache, blob after blob, in the order asked."""

    def __init__(self, cache: BlobCache, digests: Sequence[str]) -> None:
        self._cache = cache
        self._expected = deque(digests)
        self._writer: BlobWriter | None = None

    def accept(self, pieces: Sequence[BlobPiece]) -> None:
        for piece in pieces:
            if not self._expected or piece.digest != self._expected[0]:
                raise InvalidRequest(f"{piece.digest} was not asked for, or not now")
            if self._writer is None:
                self._writer = self._cache.create(piece.digest)
            if piece.offset_bytes != self._writer.size_bytes:
                raise InvalidRequest(f"a piece of {piece.digest} is missing at {self._writer.size_bytes}")
            self._writer.write(piece.content)
            if piece.last:
                self._writer.publish()
                self._cache.added(self._writer.size_bytes)
                self.close()
                self._expected.popleft()

    def check_complete(self) -> None:
        if self._expected:
            raise InvalidRequest(f"{self._expected[0]} did not come")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _silent(sent_bytes: int, total_bytes: int) -> None:
    """Nobody waits to see an artifact's progress."""


def _examine(root: Path, paths: Sequence[Path]) -> tuple[list[Artifact], list[str]]:
    artifacts, problems = [], []
    for path in paths:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        reason = path_problem(name)
        if not reason:
            try:
                artifacts.append(_artifact(root, name))
            except OSError as error:
                reason = error.strerror or str(error)
        if reason:
            problems.append(f"{name}: {reason}".encode(errors="backslashreplace").decode())
    return artifacts, problems


def _artifact(root: Path, name: str) -> Artifact:
    """Raises OSError."""
    descriptor = open_beneath(root, name)
    try:
        digest, size_bytes = hash_file(descriptor)
        executable = bool(os.fstat(descriptor).st_mode & stat.S_IXUSR)
    finally:
        os.close(descriptor)
    if size_bytes > MAX_ARTIFACT_BYTES:
        raise OSError(errno.EFBIG, f"is larger than the limit of {MAX_ARTIFACT_BYTES} bytes")
    media_type, _ = _MEDIA_TYPES.guess_type(name)
    return Artifact(path=name, digest=digest, size_bytes=size_bytes, media_type=media_type or "", executable=executable)


def _source(root: Path, artifact: Artifact) -> BlobSource:
    def read() -> Iterator[bytes]:
        descriptor = open_beneath(root, artifact.path)
        try:
            yield from read_chunks(descriptor)
        finally:
            os.close(descriptor)

    return BlobSource(digest=artifact.digest, size_bytes=artifact.size_bytes, name=artifact.path, read=read)
