from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetest.client.async_client import AsyncClient
from fleetest.client.connection import Persistence
from fleetest.client.scan import scan_workspace
from fleetest.client.uploads import UploadReport, upload_workspace
from fleetest.common.backoff import Backoff
from fleetest.common.client_blobs import BlobSource, upload_blobs
from fleetest.common.convert_workspace import parse_manifest
from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, InvalidRequest
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.workspace import Workspace
from tests.support.blob_server import BreakingNetwork, blob_stub, serve_blobs

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

MIB = 1 << 20
SOON = Backoff(first=timedelta(milliseconds=10), longest=timedelta(milliseconds=100))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for number in range(40):
        (root / "sub" / f"test_{number}.py").write_text(f"x = {number % 30}")
    (root / "large.bin").write_bytes(random.Random(1).randbytes(5 * MIB + 3))
    (root / "empty").touch()
    (root / "link").symlink_to("large.bin")
    return root


@pytest.fixture
def workspace(root: Path, tmp_path: Path) -> Workspace:
    return scan_workspace(root, cache_directory=tmp_path / "cache")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path / "store")


@pytest.fixture
async def port(store: DirectoryBlobStore) -> AsyncIterator[int]:
    async with serve_blobs(store) as port:
        yield port


@pytest.fixture
async def stub(port: int) -> AsyncIterator[BlobServiceAsyncStub]:
    async with blob_stub(port) as stub:
        yield stub


async def stored(store: DirectoryBlobStore, digest: str) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest)])


async def test_master_has_every_file_and_the_manifest(
    store: DirectoryBlobStore, stub: BlobServiceAsyncStub, workspace: Workspace, root: Path
) -> None:
    report = await upload_workspace(stub, workspace, root)

    assert report == UploadReport(sent_files=32, sent_bytes=5 * MIB + 3 + 10 * 5 + 20 * 6, reused_files=10)
    assert parse_manifest(await stored(store, workspace.digest)) == workspace
    for file in workspace.files:
        if file.digest:
            assert await stored(store, file.digest) == (root / file.path).read_bytes()


async def test_second_upload_of_an_unchanged_tree_sends_no_content(port: int, workspace: Workspace, root: Path) -> None:
    async with blob_stub(port) as stub:
        await upload_workspace(stub, workspace, root)
    network = BreakingNetwork(port, cuts=[])

    async with network.listening() as watched, blob_stub(watched) as stub:
        report = await upload_workspace(stub, workspace, root)

    assert report == UploadReport(sent_files=0, sent_bytes=0, reused_files=42)
    assert network.sent_bytes < 64 * 45 + 2000  # the digests and the call, no more


async def test_only_what_changed_is_sent(
    stub: BlobServiceAsyncStub, workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    await upload_workspace(stub, workspace, root)
    (root / "sub" / "test_0.py").write_text("changed")
    changed = scan_workspace(root, cache_directory=tmp_path / "cache")

    report = await upload_workspace(stub, changed, root)

    assert report == UploadReport(sent_files=1, sent_bytes=7, reused_files=41)


async def test_progress_ends_where_it_should(stub: BlobServiceAsyncStub, workspace: Workspace, root: Path) -> None:
    told: list[tuple[int, int]] = []

    report = await upload_workspace(stub, workspace, root, progress=lambda sent, total: told.append((sent, total)))

    assert told == sorted(told)
    assert told[-1] == (report.sent_bytes + len(workspace.manifest),) * 2


async def test_broken_connections_lose_no_more_than_was_under_way(port: int, workspace: Workspace, root: Path) -> None:
    network = BreakingNetwork(port, cuts=[2 * MIB, 2 * MIB, 1000])

    async with network.listening() as breaking, blob_stub(breaking) as stub:
        sent = await upload_blobs(stub, sources_of(workspace, root), progress=lambda _sent, _total: None, backoff=SOON)

    assert len(sent) == 32
    assert network.broken >= 3
    assert network.sent_bytes < 9 * MIB  # without going on from the middle it would be more than 5 + 2 + 2


async def test_network_that_brings_nothing_is_given_up(port: int, workspace: Workspace, root: Path) -> None:
    network = BreakingNetwork(port, cuts=[100_000] * 100)

    async with network.listening() as breaking, blob_stub(breaking) as stub:
        with pytest.raises(DependencyUnavailable):
            await upload_blobs(stub, sources_of(workspace, root), progress=lambda _sent, _total: None, backoff=SOON)


def sources_of(workspace: Workspace, root: Path) -> list[BlobSource]:
    def source(path: str, digest: str, size_bytes: int) -> BlobSource:
        def read() -> Iterator[bytes]:
            content = (root / path).read_bytes()
            return (content[first : first + CHUNK_BYTES] for first in range(0, len(content), CHUNK_BYTES))

        return BlobSource(digest=digest, size_bytes=size_bytes, name=path, read=read)

    files = {file.digest: file for file in workspace.files if file.digest}
    return [source(file.path, file.digest, file.size_bytes) for file in files.values()]


def become_fifo(root: Path) -> None:
    (root / "empty").unlink()
    os.mkfifo(root / "empty")


def become_link(root: Path) -> None:
    (root / "empty").unlink()
    (root / "empty").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "large.bin").write_bytes(b"short"),
        lambda root: (root / "large.bin").write_bytes((root / "large.bin").read_bytes() + b"more"),
        lambda root: (root / "large.bin").unlink(),
        lambda root: (root / "empty").write_bytes(b"no longer"),
        become_fifo,
        become_link,
    ],
    ids=["shorter", "longer", "gone", "no longer empty", "a FIFO", "a link"],
)
async def test_file_that_changed_since_the_scan_is_refused_and_never_visible(
    stub: BlobServiceAsyncStub,
    store: DirectoryBlobStore,
    workspace: Workspace,
    root: Path,
    change: Callable[[Path], object],
) -> None:
    change(root)
    changed = [file for file in workspace.files if file.path in {"large.bin", "empty"}]

    with pytest.raises(InvalidRequest, match="changed after it had been read") as refused:
        await upload_workspace(stub, workspace, root)

    assert any(str(root / file.path) in refused.value.message for file in changed)
    assert workspace.digest in await store.missing([workspace.digest])


async def test_full_master_is_said(workspace: Workspace, root: Path, tmp_path: Path) -> None:
    async with serve_blobs(DirectoryBlobStore(tmp_path / "small", max_bytes=3 * MIB)) as port, blob_stub(port) as stub:
        with pytest.raises(CapacityExceeded, match="blob store is full"):
            await upload_workspace(stub, workspace, root)


async def test_absent_master_is_said(workspace: Workspace, root: Path) -> None:
    async with blob_stub(1) as stub:
        with pytest.raises(DependencyUnavailable):
            await upload_workspace(stub, workspace, root)


async def test_damaged_part_at_the_master_is_sent_anew(
    stub: BlobServiceAsyncStub, store: DirectoryBlobStore, workspace: Workspace, root: Path
) -> None:
    large = digest_of((root / "large.bin").read_bytes())
    async with store.upload(large) as upload:
        await upload.write(b"damaged" * 100_000)

    await upload_blobs(stub, sources_of(workspace, root), progress=lambda _sent, _total: None, backoff=SOON)

    assert await stored(store, large) == (root / "large.bin").read_bytes()


async def test_upload_goes_on_at_the_next_master_where_it_broke(
    store: DirectoryBlobStore, port: int, workspace: Workspace, root: Path, tmp_path: Path, at_once: Persistence
) -> None:
    troubles: list[str] = []
    network = BreakingNetwork(port, cuts=[3 * MIB])
    async with serve_blobs(DirectoryBlobStore(tmp_path / "store")) as other, network.listening() as breaking:
        masters = f"127.0.0.1:{breaking},127.0.0.1:{other}"
        async with AsyncClient(masters, persistence=at_once, on_trouble=troubles.append) as client:
            report = await client.upload(workspace, root)

    assert report.sent_files == 32
    assert parse_manifest(await stored(store, workspace.digest)) == workspace
    assert network.sent_bytes < 4 * MIB  # the rest went to the other
    assert troubles == [f"127.0.0.1:{breaking} does not answer; trying again for 20 s"]
