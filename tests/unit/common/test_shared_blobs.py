"""A directory of blobs that several processes share, as masters do."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleetest.common.digest import digest_of
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.errors import WrongState
from fleetest.common.regular_files import CHUNK_BYTES

CONTENT = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"end"
DIGEST = digest_of(CONTENT)

UPLOAD = """
import asyncio, sys
from pathlib import Path
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.regular_files import CHUNK_BYTES

async def main(root, digest, source, stops):
    content = Path(source).read_bytes()
    async with DirectoryBlobStore(Path(root)).upload(digest) as upload:
        print("began", flush=True)
        sys.stdin.readline()
        await upload.write(content[:CHUNK_BYTES])
        print("wrote", flush=True)
        if stops == "stops":
            sys.stdin.readline()
        await upload.write(content[CHUNK_BYTES:])
        await upload.commit()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def uploader(tmp_path: Path):
    """Starts a process that uploads the content, and waits for a line before it writes."""
    (tmp_path / "content").write_bytes(CONTENT)
    started = []

    def start(stops: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", UPLOAD, str(tmp_path / "store"), DIGEST, str(tmp_path / "content"), stops]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "began\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


async def stored(root: Path) -> bytes:
    return b"".join([chunk async for chunk in DirectoryBlobStore(root).read(DIGEST)])


async def test_processes_that_upload_one_blob_at_once_both_succeed(uploader, tmp_path) -> None:
    processes = [uploader() for _ in range(2)]

    for process in processes:
        go(process)
    codes = await asyncio.gather(*(asyncio.to_thread(process.wait, 60) for process in processes))

    assert codes == [0, 0]
    assert await stored(tmp_path / "store") == CONTENT
    assert [*(tmp_path / "store" / "incoming").iterdir()] == []


async def test_what_a_killed_process_had_of_a_blob_another_goes_on_with(uploader, tmp_path) -> None:
    process = uploader("stops")
    go(process)
    assert process.stdout.readline() == "wrote\n"
    store = DirectoryBlobStore(tmp_path / "store")
    while_it_lives = await store.resumable_bytes(DIGEST)
    with pytest.raises(WrongState, match="somebody else uploads"):
        async with store.upload(DIGEST, offset_bytes=1):
            pass

    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = await store.resumable_bytes(DIGEST)
    async with store.upload(DIGEST, offset_bytes=kept) as upload:
        await upload.write(CONTENT[kept:])
        await upload.commit()

    assert (while_it_lives, kept) == (0, CHUNK_BYTES)
    assert await stored(tmp_path / "store") == CONTENT
