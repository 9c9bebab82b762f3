"""The blob store on an object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from fleetest.common.blob_directory import BlobDirectory, BlobWriter
from fleetest.common.digest import check_digest, digest_of
from fleetest.common.directory_blob_store import WriterUpload
from fleetest.common.disk import disk_errors
from fleetest.common.errors import CapacityExceeded, InvalidRequest, NotFound
from fleetest.common.limits import MAX_FILE_BYTES
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.threads import in_thread
from fleetest.master.blobs.objects import Objects

__all__ = ["ObjectBlobStore"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

_REQUESTS: Final = 32  # at once


class ObjectBlobStore:
    """
    Blobs as objects `blobs/<digest>`, for any number of masters.

    A large blob is collected in a directory of the master's own, and goes to the store when it has proved to be what
    its digest names: so nothing wrong or half-done is ever stored. A broken upload can go on at the same master only.

    Args:
        staging: that directory.
    """

    def __init__(self, objects: Objects, staging: Path) -> None:
        self._objects = objects
        self._staging_name = f"the directory {staging} for uploads"
        with disk_errors(self._staging_name):
            self._staging = BlobDirectory(staging)
            self._staging.remove_abandoned()
        self._requests = asyncio.Semaphore(_REQUESTS)

    async def check(self) -> None:
        """
        Raises:
            DependencyUnavailable: the store does not answer, or refuses.
        """
        await self._objects.check()

    async def missing(self, digests: Collection[str]) -> Sequence[str]:
        wanted = list(dict.fromkeys(map(check_digest, digests)))
        there = await self._each(wanted, lambda digest: self._objects.exists(_key(digest)))
        return [digest for digest, found in zip(wanted, there, strict=True) if not found]

    async def put(self, blobs: Mapping[str, bytes]) -> None:
        for digest, content in blobs.items():
            if digest_of(content) != check_digest(digest):
                raise InvalidRequest(
                    f"what was sent as {digest} has the digest {digest_of(content)}",
                    hint="The file changed while it was sent, or was damaged on its way. Try again.",
                )
        await self._each(list(blobs), lambda digest: self._objects.put(_key(digest), blobs[digest]))

    async def resumable_bytes(self, digest: str) -> int:
        return await self._on_disk(self._staging.resumable_bytes, digest)

    @asynccontextmanager
    async def upload(self, digest: str, *, offset_bytes: int = 0) -> AsyncIterator[WriterUpload]:
        writer = await self._on_disk(self._staging.resume, digest, offset_bytes=offset_bytes)
        try:
            yield WriterUpload(writer, self._append, lambda written: self._commit(digest, written))
        finally:
            await self._on_disk(writer.close)

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        pending = bytearray()
        try:
            async with aclosing(self._objects.read(_key(check_digest(digest)))) as pieces:
                async for piece in pieces:
                    pending += piece
                    while len(pending) >= CHUNK_BYTES:
                        chunk = bytes(pending[:CHUNK_BYTES])
                        del pending[:CHUNK_BYTES]
                        yield chunk
        except NotFound as error:
            raise NotFound(f"no such blob: {digest}") from error
        if pending:
            yield bytes(pending)

    async def delete(self, digests: Collection[str]) -> None:
        await self._objects.delete([_key(check_digest(digest)) for digest in digests])

    async def sign(self, digest: str, expires_in: timedelta) -> str:
        return await self._objects.sign(_key(check_digest(digest)), expires_in)

    async def _append(self, writer: BlobWriter, content: bytes) -> None:
        if writer.size_bytes + len(content) > MAX_FILE_BYTES:
            writer.discard()
            raise CapacityExceeded(f"a blob is larger than the limit of {MAX_FILE_BYTES} bytes")
        try:
            await self._on_disk(writer.write, content)
        except CapacityExceeded:
            writer.discard()
            raise

    async def _commit(self, digest: str, writer: BlobWriter) -> None:
        """What the store does not take stays where it is: the upload need not begin anew."""
        await self._on_disk(writer.check)
        async with self._requests:
            await self._objects.put_file(_key(digest), writer.path)
        await self._on_disk(writer.discard)

    async def _each(self, items: Sequence[_Item], action: Callable[[_Item], Awaitable[_Result]]) -> Sequence[_Result]:
        """All at once, up to a bound; the first failure stands for all, when the others have ended."""

        async def one(item: _Item) -> _Result:
            async with self._requests:
                return await action(item)

        outcomes = await asyncio.gather(*map(one, items), return_exceptions=True)
        results = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    async def _on_disk(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        with disk_errors(self._staging_name):
            return await in_thread(function, *args, **kwargs)


def _key(digest: str) -> str:
    return f"blobs/{digest}"
