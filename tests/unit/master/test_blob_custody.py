"""Who may read which blobs, and when they go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.clock import ManualClock
from fleetest.common.convert_blobs import unpack
from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.errors import NotFound, WrongState
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.results import Artifact
from fleetest.common.workspace import Workspace, WorkspaceFile
from fleetest.master.access.principals import ANYBODY, Audience, Principal, act_as
from fleetest.master.blobs.custody import Custody
from fleetest.master.blobs.sweep import BlobSweep
from fleetest.master.servicers.blobs import BlobServicer
from fleetest.master.store.sqlite import SqliteStore
from fleetest.v1.blob_pb2 import BlobChunk, DownloadBlobsRequest, FindMissingBlobsRequest, GetUploadOffsetRequest

DAY = timedelta(days=1)
CONTENT, OTHER, LARGE = b"content of shop", b"other content", bytes(2 * CHUNK_BYTES)
CONTEXT: Any = None  # no method looks at it
SHOP, BANK = (
    Principal(name=f"token of {project}", audiences=frozenset({Audience.CLIENT}), project=project)
    for project in ("shop", "bank")
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with await SqliteStore.open(tmp_path / "fleetest.sqlite") as store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture
def custody(store: SqliteStore, clock: ManualClock) -> Custody:
    return Custody(store, clock, workspaces_for=30 * DAY, artifacts_for=90 * DAY)


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
def sweep(blobs: DirectoryBlobStore, store: SqliteStore, clock: ManualClock) -> BlobSweep:
    return BlobSweep(blobs, store, clock)


@pytest.fixture
def servicer(blobs: DirectoryBlobStore, custody: Custody) -> Iterator[BlobServicer]:
    yield BlobServicer(blobs, custody)
    act_as(ANYBODY)


def artifact(content: bytes, path: str = "log.txt") -> Artifact:
    return Artifact(path=path, digest=digest_of(content), size_bytes=len(content))


def workspace_of(*contents: bytes) -> Workspace:
    files = tuple(
        WorkspaceFile(path=f"{number}.py", digest=digest_of(content), size_bytes=len(content))
        for number, content in enumerate(contents)
    )
    return Workspace(files=files, digest=digest_of(b"manifest"), manifest=b"manifest")


async def upload(servicer: BlobServicer, content: bytes, *, offset_bytes: int = 0, last: bool = True) -> None:
    async def chunks() -> AsyncIterator[BlobChunk]:
        for first in range(offset_bytes, len(content), CHUNK_BYTES):
            piece = content[first : first + CHUNK_BYTES]
            ends = last and first + len(piece) == len(content)
            yield BlobChunk(digest=digest_of(content), offset_bytes=first, content=piece, last=ends)

    await servicer.UploadBlobs(chunks(), CONTEXT)


async def download(servicer: BlobServicer, content: bytes) -> bytes:
    request = DownloadBlobsRequest(digests=[digest_of(content)])
    return b"".join(
        [piece.content async for message in servicer.DownloadBlobs(request, CONTEXT) for piece in unpack(message)]
    )


async def missing(servicer: BlobServicer, *contents: bytes) -> list[str]:
    request = FindMissingBlobsRequest(digests=[digest_of(content) for content in contents])
    return list((await servicer.FindMissingBlobs(request, CONTEXT)).digests)


async def test_project_reads_what_it_uploaded_and_no_other_does(servicer: BlobServicer) -> None:
    act_as(SHOP)
    await upload(servicer, CONTENT)

    assert await download(servicer, CONTENT) == CONTENT
    act_as(BANK)
    with pytest.raises(NotFound, match="no such blob"):
        await download(servicer, CONTENT)
    act_as(ANYBODY)
    assert await download(servicer, CONTENT) == CONTENT


async def test_blob_of_another_project_seems_to_be_missing_until_it_is_sent(servicer: BlobServicer) -> None:
    act_as(SHOP)
    await upload(servicer, CONTENT)
    act_as(BANK)

    before = await missing(servicer, CONTENT)
    await upload(servicer, CONTENT)

    assert before == [digest_of(CONTENT)]
    assert await missing(servicer, CONTENT) == []
    assert await download(servicer, CONTENT) == CONTENT


async def test_wrong_content_gives_no_right_to_the_blob_it_pretends_to_be(servicer: BlobServicer) -> None:
    act_as(SHOP)
    await upload(servicer, CONTENT)
    act_as(BANK)

    async def chunks() -> AsyncIterator[BlobChunk]:
        yield BlobChunk(digest=digest_of(CONTENT), content=b"a guess", last=True)

    with pytest.raises(Exception, match="has the digest"):
        await servicer.UploadBlobs(chunks(), CONTEXT)
    with pytest.raises(NotFound):
        await download(servicer, CONTENT)


async def test_upload_that_another_project_broke_off_cannot_be_completed(servicer: BlobServicer) -> None:
    act_as(SHOP)
    await upload(servicer, LARGE, last=False)  # all of it, except that it ends
    own = await servicer.GetUploadOffset(GetUploadOffsetRequest(digest=digest_of(LARGE)), CONTEXT)
    act_as(BANK)

    foreign = await servicer.GetUploadOffset(GetUploadOffsetRequest(digest=digest_of(LARGE)), CONTEXT)

    assert (own.offset_bytes, foreign.offset_bytes) == (len(LARGE), 0)
    with pytest.raises(WrongState, match="0 bytes are kept"):
        await upload(servicer, LARGE, offset_bytes=CHUNK_BYTES)


async def test_artifact_goes_when_its_time_is_over(
    custody: Custody, blobs: DirectoryBlobStore, sweep: BlobSweep, clock: ManualClock
) -> None:
    await blobs.put({digest_of(content): content for content in (CONTENT, OTHER)})
    await custody.keep_artifacts("run", "shop", "unit#1", [artifact(CONTENT)], timedelta())
    await custody.keep_artifacts("run", "shop", "unit#1", [artifact(OTHER, "other.txt")], 2 * DAY)

    clock.advance(3 * DAY)
    first = await sweep.look()
    kept = await custody.artifacts_of("run")
    clock.advance(88 * DAY)
    second = await sweep.look()

    assert (first, second) == (1, 1)
    assert list(kept) == [("unit#1/log.txt", digest_of(CONTENT))]
    assert len(await blobs.missing([digest_of(CONTENT), digest_of(OTHER)])) == 2


async def test_blob_that_another_run_or_a_workspace_needs_stays(
    custody: Custody, blobs: DirectoryBlobStore, sweep: BlobSweep, clock: ManualClock
) -> None:
    contents = CONTENT, OTHER, LARGE
    await blobs.put({digest_of(content): content for content in contents})
    for run_id, keep in (("first", DAY), ("second", 3 * DAY)):
        await custody.keep_artifacts(run_id, "shop", "unit#1", [artifact(CONTENT)], keep)
    await custody.keep_artifacts("first", "shop", "unit#1", [artifact(content) for content in (OTHER, LARGE)], DAY)
    await custody.keep_workspace("shop", digest_of(OTHER), workspace_of(LARGE))

    clock.advance(2 * DAY)
    await sweep.look()

    assert await blobs.missing([digest_of(content) for content in contents]) == []


async def test_deleted_artifact_is_listed_no_more_and_its_content_goes(
    custody: Custody, blobs: DirectoryBlobStore, sweep: BlobSweep
) -> None:
    await blobs.put({digest_of(CONTENT): CONTENT})
    await custody.keep_artifacts("run", "shop", "unit#1", [artifact(CONTENT), artifact(CONTENT, "same")], timedelta())

    deleted = await custody.let_go("run", ["unit#1/log.txt", "unit#1/never"])
    again = await custody.let_go("run", ["unit#1/log.txt"])
    await sweep.look()

    assert (deleted, again) == (1, 0)
    assert [name for name, _ in await custody.artifacts_of("run")] == ["unit#1/same"]
    assert await blobs.missing([digest_of(CONTENT)]) == []  # its twin needs it
    await custody.let_go("run", ["unit#1/same"])
    assert await sweep.look() == 1


async def test_upload_that_nobody_came_to_use_goes_after_a_day(
    servicer: BlobServicer, blobs: DirectoryBlobStore, sweep: BlobSweep, clock: ManualClock
) -> None:
    act_as(SHOP)
    await upload(servicer, CONTENT)

    clock.advance(timedelta(hours=23))
    early = await sweep.look()
    clock.advance(timedelta(hours=2))

    assert (early, await sweep.look()) == (0, 1)
    assert await blobs.missing([digest_of(CONTENT)]) == [digest_of(CONTENT)]


async def test_blob_that_was_asked_for_is_not_deleted_next(
    servicer: BlobServicer, sweep: BlobSweep, clock: ManualClock
) -> None:
    await upload(servicer, CONTENT)
    clock.advance(timedelta(hours=23))

    found = await missing(servicer, CONTENT)
    clock.advance(timedelta(hours=2))

    assert (found, await sweep.look()) == ([], 0)


async def test_many_blobs_go_in_batches(
    custody: Custody, blobs: DirectoryBlobStore, sweep: BlobSweep, clock: ManualClock
) -> None:
    contents = [str(number).encode() for number in range(1100)]
    await blobs.put({digest_of(content): content for content in contents})
    await custody.uploaded([digest_of(content) for content in contents], "")

    clock.advance(2 * DAY)

    assert await sweep.look() == len(contents)
