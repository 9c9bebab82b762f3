from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from fleetest.common.backoff import Backoff
from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, NotFound
from fleetest.common.results import Artifact
from fleetest.common.settings import Secret
from fleetest.v1 import blob_pb2, blob_pb2_grpc
from fleetest.worker.blob_cache import BlobCache
from fleetest.worker.blob_stubs import BlobStubs
from fleetest.worker.client_blobs import BlobClient
from fleetest.worker.masters import Masters
from fleetest.worker.session_stream import open_channel
from tests.support.blob_server import BreakingNetwork, blob_stub, serve_blobs
from tests.support.full_disk import no_room_beyond

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

MIB = 1 << 20
SOON = Backoff(first=timedelta(milliseconds=10), longest=timedelta(milliseconds=100))
CONTENTS = [b"", b"small", b"x" * MIB, random.Random(1).randbytes(3 * MIB + 5)]
DIGESTS = [digest_of(content) for content in CONTENTS]


@pytest.fixture
async def store(tmp_path: Path) -> DirectoryBlobStore:
    store = DirectoryBlobStore(tmp_path / "store", max_bytes=8 * MIB)
    await store.put(dict(zip(DIGESTS, CONTENTS, strict=True)))
    return store


@pytest.fixture
async def port(store: DirectoryBlobStore) -> AsyncIterator[int]:
    async with serve_blobs(store) as port:
        yield port


@pytest.fixture
async def stub(port: int) -> AsyncIterator[BlobServiceAsyncStub]:
    async with blob_stub(port) as stub:
        yield stub


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", max_bytes=100 * MIB)


def cached(cache: BlobCache, digest: str) -> bytes:
    descriptor = cache.open(digest)
    assert descriptor is not None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


class Only:
    """One master, whatever happens."""

    def __init__(self, stub: BlobServiceAsyncStub) -> None:
        self.stub = stub

    def leave(self, stub: BlobServiceAsyncStub) -> None:
        assert stub is self.stub


async def test_blobs_are_brought_into_the_cache(stub: BlobServiceAsyncStub, cache: BlobCache) -> None:
    await BlobClient(Only(stub), cache).fetch([*DIGESTS, DIGESTS[1]])

    assert [cached(cache, digest) for digest in DIGESTS] == CONTENTS


async def test_what_is_in_the_cache_is_not_fetched_again(port: int, cache: BlobCache) -> None:
    network = BreakingNetwork(port, cuts=[])
    async with network.listening() as watched, blob_stub(watched) as stub:
        client = BlobClient(Only(stub), cache)
        await asyncio.gather(client.fetch(DIGESTS), client.fetch(DIGESTS), client.fetch(DIGESTS[:2]))

    assert network.received_bytes < 5 * MIB


async def test_absent_blob_is_not_found(stub: BlobServiceAsyncStub, cache: BlobCache) -> None:
    with pytest.raises(NotFound, match=digest_of(b"absent")):
        await BlobClient(Only(stub), cache).fetch([DIGESTS[0], digest_of(b"absent")])


async def test_broken_connection_is_made_up_for(port: int, cache: BlobCache) -> None:
    network = BreakingNetwork(port, cuts=[1000, 2 * MIB])

    async with network.listening() as breaking, blob_stub(breaking) as stub:
        await BlobClient(Only(stub), cache, backoff=SOON).fetch(DIGESTS)

    assert network.broken == 2
    assert cache.missing(DIGESTS) == []


async def test_master_that_stays_away_is_given_up(cache: BlobCache) -> None:
    async with blob_stub(1) as stub:
        with pytest.raises(DependencyUnavailable):
            await BlobClient(Only(stub), cache, backoff=SOON).fetch(DIGESTS)


Answer = Callable[[Sequence[str]], Iterator[blob_pb2.BlobChunk]]


@asynccontextmanager
async def master_that_answers(answer: Answer) -> AsyncIterator[BlobServiceAsyncStub]:
    """A peer that keeps to the protocol's form, and not to its promises."""

    class Wrong(blob_pb2_grpc.BlobServiceServicer):
        async def DownloadBlobs(  # noqa: N802 - named by the contract
            self, request: blob_pb2.DownloadBlobsRequest, context: object
        ) -> AsyncIterator[blob_pb2.BlobChunk]:
            for chunk in answer(request.digests):
                yield chunk

    server = grpc.aio.server()
    blob_pb2_grpc.add_BlobServiceServicer_to_server(Wrong(), server)  # type: ignore[abstract]  # only this is asked
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with blob_stub(port) as stub:
            yield stub
    finally:
        await server.stop(grace=None)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda _: iter([]), "did not come"),
        (lambda asked: iter([blob_pb2.BlobChunk(digest=asked[0], content=b"wrong", last=True)]), "has the digest"),
        (
            lambda _: iter([blob_pb2.BlobChunk(digest=digest_of(b"other"), content=b"other", last=True)]),
            "not asked for",
        ),
        (lambda asked: iter([blob_pb2.BlobChunk(digest=asked[0], offset_bytes=3, last=True)]), "is missing at 0"),
        (lambda asked: iter([blob_pb2.BlobChunk(digest=asked[0], content=b"half")]), "did not come"),
        (lambda _: iter([blob_pb2.BlobChunk(digest="../../etc/passwd", last=True)]), "not a digest"),
    ],
    ids=["nothing", "wrong content", "another blob", "a gap", "half", "no digest"],
)
async def test_disorder_is_never_let_into_the_cache(
    cache: BlobCache, tmp_path: Path, answer: Answer, problem: str
) -> None:
    async with master_that_answers(answer) as stub:
        with pytest.raises(DependencyUnavailable, match=problem):
            await BlobClient(Only(stub), cache, backoff=SOON).fetch([DIGESTS[1]])

    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size] == []


async def test_full_disk_is_said(stub: BlobServiceAsyncStub, cache: BlobCache) -> None:
    with no_room_beyond(1000), pytest.raises(CapacityExceeded, match="blob cache"):
        await BlobClient(Only(stub), cache).fetch(DIGESTS)


async def test_cache_holds_its_bound_but_for_what_was_just_fetched(stub: BlobServiceAsyncStub, tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "small", max_bytes=2 * MIB)
    client = BlobClient(Only(stub), cache)

    await client.fetch(DIGESTS[:3])
    await client.fetch(DIGESTS[3:])

    assert cached(cache, DIGESTS[3]) == CONTENTS[3]
    assert DIGESTS[2] in cache.missing(DIGESTS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "out").mkdir(parents=True)
    (root / "out" / "report.xml").write_bytes(b"<x/>")
    (root / "out" / "large.bin").write_bytes(CONTENTS[3][::-1])
    (root / "copy.xml").write_bytes(b"<x/>")
    return root


async def test_artifacts_are_stored_with_their_paths(
    stub: BlobServiceAsyncStub, cache: BlobCache, store: DirectoryBlobStore, root: Path
) -> None:
    paths = [root / "out" / "report.xml", root / "out" / "large.bin", root / "copy.xml"]

    artifacts, problems = await BlobClient(Only(stub), cache).store(root, paths)

    large = digest_of(CONTENTS[3][::-1])
    assert artifacts == [
        Artifact(path="out/report.xml", digest=digest_of(b"<x/>"), size_bytes=4, media_type="text/xml"),
        Artifact(path="out/large.bin", digest=large, size_bytes=3 * MIB + 5, media_type="application/octet-stream"),
        Artifact(path="copy.xml", digest=digest_of(b"<x/>"), size_bytes=4, media_type="text/xml"),
    ]
    assert problems == []
    assert await store.missing([artifact.digest for artifact in artifacts]) == []


async def test_what_cannot_be_an_artifact_is_a_problem_and_harms_no_other(
    stub: BlobServiceAsyncStub, cache: BlobCache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetest.worker.client_blobs.MAX_ARTIFACT_BYTES", MIB)
    os.mkfifo(root / "fifo")
    (root / "etc").symlink_to("/etc")
    (root / "passwd").symlink_to("/etc/passwd")
    (root / os.fsdecode(b"\xe9")).touch()
    names = ["fifo", "etc/passwd", "passwd", "absent", "out", "out/large.bin", os.fsdecode(b"\xe9"), "../x", "copy.xml"]

    artifacts, problems = await BlobClient(Only(stub), cache).store(
        root, [*(root / name for name in names), Path("/etc/passwd")]
    )

    assert [artifact.path for artifact in artifacts] == ["copy.xml"]
    assert [problem.split(": ")[0] for problem in problems] == [
        "fifo", "etc/passwd", "passwd", "absent", "out", "out/large.bin", "\\udce9", "../x", "/etc/passwd",
    ]  # fmt: skip
    assert "larger than the limit" in problems[5]


async def test_artifact_that_changes_while_it_is_stored_is_a_problem(
    stub: BlobServiceAsyncStub, cache: BlobCache, root: Path
) -> None:
    changing = root / "out" / "large.bin"
    stop = threading.Event()

    def change() -> None:
        with changing.open("r+b", buffering=0) as file:
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                os.pwrite(file.fileno(), number.to_bytes(8, "big"), 0)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        artifacts, problems = await BlobClient(Only(stub), cache).store(root, [changing, root / "copy.xml"])
    finally:
        stop.set()
        writer.join()

    assert [artifact.path for artifact in artifacts] == ["copy.xml"]
    assert problems == ["out/large.bin: changed while it was stored"]


async def test_master_without_room_is_a_problem_of_the_artifacts(
    stub: BlobServiceAsyncStub, cache: BlobCache, root: Path
) -> None:
    (root / "huge.bin").write_bytes(bytes(5 * MIB))

    artifacts, problems = await BlobClient(Only(stub), cache, backoff=SOON).store(root, [root / "huge.bin"])

    assert artifacts == []
    assert len(problems) == 1
    assert "blob store is full" in problems[0]


async def test_download_goes_on_at_the_next_master(store: DirectoryBlobStore, port: int, cache: BlobCache) -> None:
    network = BreakingNetwork(port, cuts=[2 * MIB])
    async with serve_blobs(store) as other, network.listening() as breaking:
        masters = Masters([f"127.0.0.1:{breaking}", f"127.0.0.1:{other}"])
        async with BlobStubs(masters, Secret(), open_channel) as stubs:
            await BlobClient(stubs, cache, backoff=SOON).fetch(DIGESTS)

    assert [cached(cache, digest) for digest in DIGESTS] == CONTENTS
    assert network.broken == 1
    assert masters.address == f"127.0.0.1:{other}"  # for the session's stream, too


async def test_upload_goes_on_at_the_next_master(tmp_path: Path, cache: BlobCache) -> None:
    content = random.Random(2).randbytes(5 * MIB)
    root = tmp_path / "root"
    root.mkdir()
    (root / "large.bin").write_bytes(content)
    shared = DirectoryBlobStore(tmp_path / "shared")
    async with serve_blobs(shared) as first, serve_blobs(DirectoryBlobStore(tmp_path / "shared")) as second:
        network = BreakingNetwork(first, cuts=[2 * MIB])
        async with network.listening() as breaking:
            masters = Masters([f"127.0.0.1:{breaking}", f"127.0.0.1:{second}"])
            async with BlobStubs(masters, Secret(), open_channel) as stubs:
                artifacts, problems = await BlobClient(stubs, cache, backoff=SOON).store(root, [root / "large.bin"])

    assert ([each.digest for each in artifacts], problems) == ([digest_of(content)], [])
    assert network.broken == 1
    assert b"".join([chunk async for chunk in shared.read(digest_of(content))]) == content


def test_two_who_leave_the_same_master_turn_to_the_next_once() -> None:
    masters = Masters(["a", "b", "c"])

    for _ in range(2):
        masters.leave("a")

    assert masters.address == "b"
