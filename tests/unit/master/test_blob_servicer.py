from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from fleetest.common.convert_blobs import MAX_DIGESTS, unpack
from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.v1.blob_pb2 import (
    BlobChunk,
    DownloadBlobsRequest,
    FindMissingBlobsRequest,
    GetUploadOffsetRequest,
)
from tests.support.blob_server import blob_stub, serve_blobs

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

LARGE = random.Random(1).randbytes(2 * CHUNK_BYTES + 7)
SMALL = [f"file {number}".encode() for number in range(5)]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path, max_bytes=8 * CHUNK_BYTES)


@pytest.fixture
async def stub(store: DirectoryBlobStore) -> AsyncIterator[BlobServiceAsyncStub]:
    async with serve_blobs(store) as port, blob_stub(port) as stub:
        yield stub


def chunk(content: bytes, offset_bytes: int = 0, *, of: bytes = b"", last: bool = True) -> BlobChunk:
    return BlobChunk(digest=digest_of(of or content), offset_bytes=offset_bytes, content=content, last=last)


def large_chunks() -> list[BlobChunk]:
    return [
        chunk(LARGE[first : first + CHUNK_BYTES], first, of=LARGE, last=first + CHUNK_BYTES >= len(LARGE))
        for first in range(0, len(LARGE), CHUNK_BYTES)
    ]


async def download(stub: BlobServiceAsyncStub, *contents: bytes) -> list[tuple[str, bytes]]:
    """What arrives, blob by blob."""
    arrived: list[tuple[str, bytes]] = []
    kept = b""
    async for message in stub.DownloadBlobs(DownloadBlobsRequest(digests=[digest_of(each) for each in contents])):
        for piece in unpack(message):
            assert piece.offset_bytes == len(kept)
            kept += piece.content
            if piece.last:
                arrived.append((piece.digest, kept))
                kept = b""
    assert not kept
    return arrived


async def status(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    return refused.value.code(), refused.value.details() or ""


async def test_blobs_come_back_in_the_order_asked(stub: BlobServiceAsyncStub) -> None:
    packed = chunk(SMALL[0])
    packed.more.extend([chunk(SMALL[1]), chunk(b""), large_chunks()[0]])

    stored = await stub.UploadBlobs(iter([packed, *large_chunks()[1:], chunk(SMALL[2])]))
    arrived = await download(stub, SMALL[2], LARGE, b"", SMALL[0], SMALL[1], SMALL[0])

    assert stored.blobs_stored == 5
    assert [content for _, content in arrived] == [SMALL[2], LARGE, b"", SMALL[0], SMALL[1], SMALL[0]]
    assert all(digest == digest_of(content) for digest, content in arrived)


async def test_blob_of_whole_chunks_has_an_end(stub: BlobServiceAsyncStub) -> None:
    content = LARGE[:CHUNK_BYTES]
    await stub.UploadBlobs(iter([chunk(content)]))

    assert await download(stub, content) == [(digest_of(content), content)]


async def test_small_blobs_share_messages(stub: BlobServiceAsyncStub) -> None:
    await stub.UploadBlobs(iter([chunk(content) for content in SMALL]))
    request = DownloadBlobsRequest(digests=[digest_of(content) for content in SMALL])

    messages = [message async for message in stub.DownloadBlobs(request)]

    assert len(messages) == 1
    assert len(messages[0].more) == 4


async def test_only_what_is_not_stored_is_missing(stub: BlobServiceAsyncStub) -> None:
    await stub.UploadBlobs(iter([chunk(SMALL[0])]))

    response = await stub.FindMissingBlobs(FindMissingBlobsRequest(digests=[digest_of(each) for each in SMALL]))

    assert list(response.digests) == [digest_of(each) for each in SMALL[1:]]


async def test_interrupted_upload_tells_where_to_go_on(stub: BlobServiceAsyncStub) -> None:
    first, *rest = large_chunks()
    before = await stub.GetUploadOffset(GetUploadOffsetRequest(digest=digest_of(LARGE)))

    await stub.UploadBlobs(iter([first]))
    between = await stub.GetUploadOffset(GetUploadOffsetRequest(digest=digest_of(LARGE)))
    await stub.UploadBlobs(iter(rest))
    after = await stub.GetUploadOffset(GetUploadOffsetRequest(digest=digest_of(LARGE)))

    assert (before.offset_bytes, before.complete) == (0, False)
    assert (between.offset_bytes, between.complete) == (CHUNK_BYTES, False)
    assert after.complete
    assert await download(stub, LARGE) == [(digest_of(LARGE), LARGE)]


async def test_upload_may_change_to_another_blob_and_come_back(stub: BlobServiceAsyncStub) -> None:
    first, *rest = large_chunks()
    other = LARGE[::-1]

    await stub.UploadBlobs(iter([first, chunk(other[:CHUNK_BYTES], of=other, last=False), chunk(SMALL[0]), *rest]))

    assert await download(stub, LARGE) == [(digest_of(LARGE), LARGE)]


async def test_absent_blob_is_not_found_by_name(stub: BlobServiceAsyncStub) -> None:
    await stub.UploadBlobs(iter([chunk(SMALL[0])]))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await download(stub, SMALL[0], SMALL[1])

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert digest_of(SMALL[1]) in (refused.value.details() or "")


@pytest.mark.parametrize(
    "messages",
    [
        [chunk(b"other", of=LARGE)],
        [chunk(b"x" * 10, of=LARGE, last=False), chunk(b"y", 5, of=LARGE)],
        [BlobChunk(digest="../../etc/passwd", content=b"x", last=True)],
        [chunk(bytes(CHUNK_BYTES + 1))],
        [chunk(b"x", -1)],
    ],
    ids=["wrong content", "gap", "no digest", "too large a chunk", "negative offset"],
)
async def test_bad_upload_is_an_invalid_argument(stub: BlobServiceAsyncStub, messages: list[BlobChunk]) -> None:
    code, _ = await status(stub.UploadBlobs(iter(messages)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    missing = await stub.FindMissingBlobs(FindMissingBlobsRequest(digests=[digest_of(LARGE)]))
    assert list(missing.digests) == [digest_of(LARGE)]


async def test_full_store_is_exhausted(stub: BlobServiceAsyncStub) -> None:
    content = bytes(9 * CHUNK_BYTES)
    messages = [chunk(bytes(CHUNK_BYTES), n * CHUNK_BYTES, of=content, last=n == 8) for n in range(9)]

    code, details = await status(stub.UploadBlobs(iter(messages)))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "blob store is full" in details


async def test_requests_name_a_bounded_number_of_well_formed_digests(stub: BlobServiceAsyncStub) -> None:
    too_many = [digest_of(b"")] * (MAX_DIGESTS + 1)

    answers = [
        await status(stub.FindMissingBlobs(FindMissingBlobsRequest(digests=too_many))),
        await status(stub.FindMissingBlobs(FindMissingBlobsRequest(digests=["x"]))),
        await status(stub.GetUploadOffset(GetUploadOffsetRequest(digest="x"))),
        await status(stub.DownloadBlobs(DownloadBlobsRequest(digests=too_many)).read()),
    ]

    assert {code for code, _ in answers} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert "the limit is 10000" in answers[0][1]
