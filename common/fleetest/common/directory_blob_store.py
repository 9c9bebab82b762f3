"""The blob store on a directory."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from fleetest.common.blob_directory import BlobDirectory, BlobWriter
from fleetest.common.digest import check_digest
from fleetest.common.disk import disk_errors
from fleetest.common.errors import CapacityExceeded, WrongState
from fleetest.common.limits import MAX_FILE_BYTES
from fleetest.common.regular_files import CHUNK_BYTES, read_chunks
from fleetest.common.threads import in_thread

__all__ = ["DirectoryBlobStore", "WriterUpload"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_WRITERS: Final = 4  # threads that wait for the disk; a journaling file system serves several `fsync` with one commit


class DirectoryBlobStore:
    """
    Blobs in files below a directory, for one master, or several that share the directory.

    Args:
        root: made when it is not there.
        max_bytes: how much may be stored, unfinished uploads included. What other processes store is seen only when
            this one starts.
    """

    def __init__(self, root: Path, *, max_bytes: int | None = None) -> None:
        self._name = f"the blob store {root}"
        with disk_errors(self._name):
            self._blobs = BlobDirectory(root)
        self._room = _Room(self._blobs, max_bytes)

    async def missing(self, digests: Collection[str]) -> Sequence[str]:
        return await self._on_disk(self._blobs.missing, digests)

    async def put(self, blobs: Mapping[str, bytes]) -> None:
        absent = await self.missing(blobs.keys())
        shares = [absent[first::_WRITERS] for first in range(min(_WRITERS, len(absent)))]
        outcomes = await asyncio.gather(
            *(self._on_disk(self._write_whole, {digest: blobs[digest] for digest in share}) for share in shares),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if absent:
            await self._on_disk(self._blobs.sync)

    async def resumable_bytes(self, digest: str) -> int:
        return await self._on_disk(self._blobs.resumable_bytes, digest)

    @asynccontextmanager
    async def upload(self, digest: str, *, offset_bytes: int = 0) -> AsyncIterator[WriterUpload]:
        writer = await self._on_disk(self._blobs.resume, digest, offset_bytes=offset_bytes)
        self._room.give_back(writer.dropped_bytes)
        try:
            yield WriterUpload(writer, self._append, self._commit)
        finally:
            self._room.give_back(await self._on_disk(writer.close))

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        with closing(self._chunks(digest)) as chunks:
            while chunk := await self._on_disk(next, chunks, b""):
                yield chunk
                if len(chunk) < CHUNK_BYTES:
                    break

    async def delete(self, digests: Collection[str]) -> None:
        for digest in digests:
            self._room.give_back(await self._on_disk(self._blobs.remove, digest))

    async def sign(self, digest: str, expires_in: timedelta) -> str:  # noqa: ARG002 - as the port has it
        check_digest(digest)
        raise WrongState(
            f"{self._name} is a directory of the master's, to which no URL leads", hint="download through the master"
        )

    async def _append(self, writer: BlobWriter, content: bytes) -> None:
        await self._on_disk(self._write, writer, content)

    async def _commit(self, writer: BlobWriter) -> None:
        await self._on_disk(self._publish, writer)
        await self._on_disk(self._blobs.sync)

    def _write_whole(self, blobs: Mapping[str, bytes]) -> None:
        for digest, content in blobs.items():
            writer = self._blobs.create(digest)
            try:
                self._write(writer, content)
                self._publish(writer)
            finally:
                self._room.give_back(writer.close())

    def _write(self, writer: BlobWriter, content: bytes) -> None:
        if writer.size_bytes + len(content) > MAX_FILE_BYTES:
            writer.discard()
            raise CapacityExceeded(f"a blob is larger than the limit of {MAX_FILE_BYTES} bytes")
        try:
            self._room.take(len(content))
            writer.write(content)
        except (CapacityExceeded, OSError):
            writer.discard()
            raise

    def _publish(self, writer: BlobWriter) -> None:
        writer.sync()
        self._room.give_back(writer.publish())

    def _chunks(self, digest: str) -> Generator[bytes, None, None]:
        descriptor = self._blobs.open(digest)
        try:
            yield from read_chunks(descriptor)
        finally:
            os.close(descriptor)

    async def _on_disk(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        with disk_errors(self._name):
            return await in_thread(function, *args, **kwargs)


class WriterUpload:
    """A `BlobUpload`: a writer, and how its store lets it write."""

    def __init__(
        self,
        writer: BlobWriter,
        append: Callable[[BlobWriter, bytes], Awaitable[None]],
        commit: Callable[[BlobWriter], Awaitable[None]],
    ) -> None:
        self._writer = writer
        self._append = append
        self._commit = commit

    @property
    def offset_bytes(self) -> int:
        return self._writer.size_bytes

    async def write(self, content: bytes) -> None:
        await self._append(self._writer, content)

    async def commit(self) -> None:
        await self._commit(self._writer)


class _Room:
    """How much more may be stored. Counted when it is first asked, in a thread, since that may take a while."""

    def __init__(self, blobs: BlobDirectory, max_bytes: int | None) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._used_bytes: int | None = None
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> None:
        with self._lock:
            if self._used_bytes is None:
                self._used_bytes = self._blobs.remove_abandoned()
                self._used_bytes += sum(status.st_size for _, status in self._blobs.stored())
            if self._max_bytes is not None and self._used_bytes + size_bytes > self._max_bytes:
                raise CapacityExceeded(
                    f"the blob store is full: {self._used_bytes} of {self._max_bytes} bytes are used",
                    hint="Let old runs expire sooner, or give the store more room.",
                )
            self._used_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        with self._lock:
            if self._used_bytes is not None:
                self._used_bytes -= size_bytes
