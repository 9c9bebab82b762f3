"""What every blob store promises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fleetest.common.blobs import BlobStore
from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.errors import CapacityExceeded, InvalidRequest, NotFound, WrongState
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.master.blobs.object_blob_store import ObjectBlobStore
from fleetest.master.blobs.obstore_objects import ObstoreObjects
from fleetest.master.blobs.url import parse_blobs_url
from tests.support.object_stores import EMULATORS

LARGE = random.Random(1).randbytes(2 * CHUNK_BYTES + 1000)
SMALL = b"print('hello')\n"

MakeStore = Callable[[], BlobStore]


@pytest.fixture(params=["directory", *EMULATORS])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes stores, all on the same place."""
    if request.param == "directory":
        return lambda: DirectoryBlobStore(tmp_path / "store")
    url = parse_blobs_url(request.getfixturevalue(f"{request.param}_emulator")())
    return lambda: ObjectBlobStore(ObstoreObjects(url), tmp_path / "uploads")


@pytest.fixture
def make_bounded(tmp_path: Path) -> Callable[[int], BlobStore]:
    """Makes stores, all on the same place, with a bound on what they hold. An object store knows its own."""
    return lambda max_bytes: DirectoryBlobStore(tmp_path / "store", max_bytes=max_bytes)


@pytest.fixture
def store(make_store: MakeStore) -> BlobStore:
    return make_store()


async def content_of(store: BlobStore, digest: str) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest)])


async def upload(store: BlobStore, content: bytes, *, digest: str = "", offset_bytes: int = 0) -> None:
    digest = digest or digest_of(content)
    async with store.upload(digest, offset_bytes=offset_bytes) as writing:
        for first in range(offset_bytes, len(content), CHUNK_BYTES):
            await writing.write(content[first : first + CHUNK_BYTES])
        await writing.commit()


async def break_off(store: BlobStore, content: bytes, *, digest: str) -> None:
    async with store.upload(digest) as writing:
        await writing.write(content)


@pytest.mark.parametrize("content", [b"", SMALL, LARGE[:CHUNK_BYTES], LARGE], ids=["empty", "small", "chunk", "large"])
async def test_what_was_stored_is_read_back(store: BlobStore, content: bytes) -> None:
    await store.put({digest_of(content): content})

    assert await content_of(store, digest_of(content)) == content


async def test_large_content_comes_in_chunks(store: BlobStore) -> None:
    await upload(store, LARGE)

    chunks = [len(chunk) async for chunk in store.read(digest_of(LARGE))]

    assert chunks == [CHUNK_BYTES, CHUNK_BYTES, 1000]


async def test_missing_are_told_once_and_in_order(store: BlobStore) -> None:
    await store.put({digest_of(SMALL): SMALL})
    absent = sorted([digest_of(b"a"), digest_of(b"b")], reverse=True)

    missing = await store.missing([*absent, digest_of(SMALL), absent[0]])

    assert missing == absent


async def test_reading_what_is_not_there_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFound, match=digest_of(b"a")):
        await content_of(store, digest_of(b"a"))


async def test_storing_again_changes_nothing(store: BlobStore) -> None:
    await store.put({digest_of(LARGE): LARGE})

    await store.put({digest_of(LARGE): LARGE})
    await upload(store, LARGE)

    assert await content_of(store, digest_of(LARGE)) == LARGE


async def test_wrong_content_is_refused_and_stays_invisible(store: BlobStore) -> None:
    digest = digest_of(SMALL)

    with pytest.raises(InvalidRequest, match=digest):
        await store.put({digest: b"something else"})
    with pytest.raises(InvalidRequest, match=digest):
        await upload(store, b"something else", digest=digest)

    assert await store.missing([digest]) == [digest]
    assert await store.resumable_bytes(digest) == 0


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "é" * 64, "/" + "a" * 63]
)
async def test_what_is_no_digest_is_refused_everywhere(store: BlobStore, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await store.missing([name])
    with pytest.raises(InvalidRequest):
        await store.put({name: b""})
    with pytest.raises(InvalidRequest):
        await store.resumable_bytes(name)
    with pytest.raises(InvalidRequest):
        await break_off(store, b"", digest=name)
    with pytest.raises(InvalidRequest):
        await content_of(store, name)
    with pytest.raises(InvalidRequest):
        await store.delete([name])


async def test_unfinished_upload_is_invisible(store: BlobStore) -> None:
    digest = digest_of(LARGE)

    await break_off(store, LARGE, digest=digest)

    assert await store.missing([digest]) == [digest]


async def test_broken_off_upload_goes_on_where_it_stopped(make_store: MakeStore) -> None:
    digest = digest_of(LARGE)
    await break_off(make_store(), LARGE[:CHUNK_BYTES], digest=digest)
    restarted = make_store()

    kept = await restarted.resumable_bytes(digest)
    await upload(restarted, LARGE, offset_bytes=kept)

    assert kept == CHUNK_BYTES
    assert await content_of(restarted, digest) == LARGE
    assert await restarted.resumable_bytes(digest) == 0


async def test_upload_may_start_over(store: BlobStore) -> None:
    await break_off(store, b"garbage" * 1000, digest=digest_of(LARGE))

    await upload(store, LARGE)

    assert await content_of(store, digest_of(LARGE)) == LARGE


async def test_upload_cannot_go_on_behind_what_is_kept(store: BlobStore) -> None:
    digest = digest_of(LARGE)
    await break_off(store, LARGE[:1000], digest=digest)

    with pytest.raises(WrongState, match="1000 bytes"):
        await upload(store, LARGE, offset_bytes=CHUNK_BYTES)

    assert await store.resumable_bytes(digest) == 1000


async def test_damaged_part_is_dropped_and_the_caller_told_to_start_over(store: BlobStore) -> None:
    digest = digest_of(LARGE)
    await break_off(store, b"x" * CHUNK_BYTES, digest=digest)

    with pytest.raises(WrongState, match="damaged"):
        await upload(store, LARGE, offset_bytes=CHUNK_BYTES)
    await upload(store, LARGE, offset_bytes=await store.resumable_bytes(digest))

    assert await content_of(store, digest) == LARGE


async def test_uploads_of_one_digest_side_by_side_all_succeed(make_store: MakeStore) -> None:
    digest = digest_of(LARGE)
    stores = [make_store(), make_store(), make_store()]

    async with AsyncExitStack() as open_uploads:
        uploads = [await open_uploads.enter_async_context(store.upload(digest)) for store in stores]
        for first in range(0, len(LARGE), CHUNK_BYTES):
            for writing in uploads:
                await writing.write(LARGE[first : first + CHUNK_BYTES])
        await asyncio.gather(*(writing.commit() for writing in uploads))

    assert await content_of(stores[0], digest) == LARGE


async def test_wrong_upload_does_not_spoil_the_right_one_beside_it(store: BlobStore) -> None:
    digest = digest_of(LARGE)

    async with store.upload(digest) as wrong:
        await wrong.write(b"garbage")
        await upload(store, LARGE)
        with pytest.raises(InvalidRequest):
            await wrong.commit()

    assert await content_of(store, digest) == LARGE


async def test_part_that_somebody_writes_cannot_be_resumed(store: BlobStore) -> None:
    digest = digest_of(LARGE)
    async with store.upload(digest) as writing:
        await writing.write(LARGE[:1000])

        resumable = await store.resumable_bytes(digest)
        with pytest.raises(WrongState, match="somebody else"):
            await upload(store, LARGE, offset_bytes=1000)

    assert resumable == 0
    assert await store.resumable_bytes(digest) == 1000


async def test_store_that_is_full_says_so_and_keeps_what_it_has(make_bounded: Callable[[int], BlobStore]) -> None:
    store = make_bounded(len(LARGE))
    await store.put({digest_of(SMALL): SMALL})

    with pytest.raises(CapacityExceeded, match="blob store is full"):
        await upload(store, LARGE)

    assert await store.resumable_bytes(digest_of(LARGE)) == 0
    assert await content_of(store, digest_of(SMALL)) == SMALL


async def test_deleted_blob_makes_room(make_bounded: Callable[[int], BlobStore]) -> None:
    store = make_bounded(len(LARGE))
    await upload(store, LARGE)
    with pytest.raises(CapacityExceeded):
        await store.put({digest_of(SMALL): SMALL})

    await store.delete([digest_of(LARGE), digest_of(b"never stored")])
    await store.put({digest_of(SMALL): SMALL})

    assert await store.missing([digest_of(LARGE), digest_of(SMALL)]) == [digest_of(LARGE)]


async def test_room_is_accounted_for_over_failures_repetitions_and_restarts(
    make_bounded: Callable[[int], BlobStore],
) -> None:
    store = make_bounded(len(LARGE))
    for _ in range(3):
        await break_off(store, LARGE[:CHUNK_BYTES], digest=digest_of(LARGE))
        with pytest.raises(InvalidRequest):
            await upload(store, b"x" * CHUNK_BYTES, digest=digest_of(SMALL))

    await upload(store, LARGE)
    restarted = make_bounded(len(LARGE))

    with pytest.raises(CapacityExceeded):
        await restarted.put({digest_of(SMALL): SMALL})
    assert await content_of(restarted, digest_of(LARGE)) == LARGE


async def test_blob_larger_than_the_limit_is_refused(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetest.common.directory_blob_store.MAX_FILE_BYTES", CHUNK_BYTES)
    monkeypatch.setattr("fleetest.master.blobs.object_blob_store.MAX_FILE_BYTES", CHUNK_BYTES)

    with pytest.raises(CapacityExceeded, match="larger than the limit"):
        await upload(store, LARGE)

    assert await store.resumable_bytes(digest_of(LARGE)) == 0


async def test_who_reads_a_blob_reads_on_when_it_is_deleted(store: BlobStore) -> None:
    await upload(store, LARGE)
    reading: AsyncIterator[bytes] = store.read(digest_of(LARGE))
    read = await anext(reading)

    await store.delete([digest_of(LARGE)])

    assert read + b"".join([chunk async for chunk in reading]) == LARGE


async def test_deleted_blobs_are_gone_and_those_that_never_were_do_no_harm(store: BlobStore) -> None:
    kept, gone = digest_of(SMALL), [digest_of(content) for content in (b"a", b"b")]
    await store.put({kept: SMALL, gone[0]: b"a", gone[1]: b"b"})

    await store.delete([digest_of(b"never stored"), *gone])
    await store.delete([])

    assert await store.missing([kept, *gone]) == gone
