from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from fleetest.common.blob_directory import BlobDirectory
from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable
from fleetest.common.regular_files import CHUNK_BYTES
from tests.support.full_disk import no_room_beyond

CONTENT = b"some content"
DIGEST = digest_of(CONTENT)
WEEK_AND_A_DAY_SECONDS = 8 * 86_400


def files_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_blob_cannot_be_written_to(tmp_path: Path) -> None:
    directory = BlobDirectory(tmp_path)
    with directory.create(DIGEST) as writer:
        writer.write(CONTENT)
        writer.publish()

    assert directory.path(DIGEST).stat().st_mode & 0o777 == 0o444


def test_writer_that_does_not_publish_leaves_nothing(tmp_path: Path) -> None:
    with BlobDirectory(tmp_path).create(DIGEST) as writer:
        writer.write(CONTENT)

    assert files_in(tmp_path) == []


def test_what_nobody_touched_for_a_week_is_removed(tmp_path: Path) -> None:
    directory = BlobDirectory(tmp_path)
    for number, age in enumerate([WEEK_AND_A_DAY_SECONDS, 0]):
        writer = directory.resume(digest_of(bytes(number)), offset_bytes=0)
        writer.write(CONTENT)
        writer.close()
        part = tmp_path / "incoming" / f"{digest_of(bytes(number))}.part"
        os.utime(part, (time.time() - age, time.time() - age))

    remaining_bytes = directory.remove_abandoned()

    assert remaining_bytes == len(CONTENT)
    assert files_in(tmp_path) == [f"{digest_of(bytes(1))}.part"]


def resume_and_publish(root: Path) -> None:
    directory = BlobDirectory(root)
    for _ in range(100):
        writer = directory.resume(DIGEST, offset_bytes=0)
        writer.write(CONTENT)
        writer.publish()
        writer.close()


def test_processes_that_write_one_blob_do_not_disturb_each_other(tmp_path: Path) -> None:
    processes = [
        multiprocessing.get_context("spawn").Process(target=resume_and_publish, args=(tmp_path,)) for _ in "ab"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0]
    assert files_in(tmp_path) == [DIGEST]


async def test_full_disk_is_said_and_nothing_stays_half_done(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    small, large = bytes(1000), bytes(CHUNK_BYTES)

    with no_room_beyond(2000):
        with pytest.raises(CapacityExceeded, match="disk is full"):
            await store.put({digest_of(large): large, digest_of(small): small})
        with pytest.raises(CapacityExceeded, match="disk is full"):
            async with store.upload(digest_of(large)) as writing:
                await writing.write(large)

    assert files_in(tmp_path) == [digest_of(small)]
    await store.put({digest_of(large): large})


async def test_failing_disk_is_told_from_a_full_one(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    (tmp_path / "incoming").rmdir()

    with pytest.raises(DependencyUnavailable, match="blob store"):
        await store.put({DIGEST: CONTENT})


async def test_store_below_what_is_no_directory_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DependencyUnavailable, match="blob store"):
        DirectoryBlobStore(tmp_path / "file" / "store")


async def test_cancelled_upload_lets_go_of_its_part(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    large = bytes(CHUNK_BYTES)
    writing = asyncio.Event()

    async def upload() -> None:
        async with store.upload(digest_of(large + b"x")) as upload:
            await upload.write(large)
            writing.set()
            while True:
                await upload.write(b"x")

    task = asyncio.create_task(upload())
    await writing.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert await store.resumable_bytes(digest_of(large + b"x")) >= len(large)
