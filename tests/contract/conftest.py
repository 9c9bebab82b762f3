"""Real servers for the contract tests: a Redis for all of them, emptied before each, and emulators of object stores."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis as sync_redis
from redis.asyncio import Redis

from fleetest.master.queue.connection import connect
from tests.support.object_stores import MakeUrl, emulator_or_skip


@pytest.fixture(scope="session")
def s3_emulator() -> Iterator[MakeUrl]:
    with emulator_or_skip("s3") as make_url:
        yield make_url


@pytest.fixture(scope="session")
def gcs_emulator() -> Iterator[MakeUrl]:
    with emulator_or_skip("gcs") as make_url:
        yield make_url


@pytest.fixture(scope="session")
def azure_emulator() -> Iterator[MakeUrl]:
    with emulator_or_skip("azure") as make_url:
        yield make_url


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    program = shutil.which("redis-server") or shutil.which("redis-server", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs a redis-server: `make test` installs one")
    with tempfile.TemporaryDirectory(prefix="fleetest-test-") as directory:
        socket = Path(directory, "redis.sock")
        options = ("--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", "")
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_until_it_answers(socket, server)
            yield socket
        finally:
            server.kill()
            server.wait()


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    with sync_redis.Redis(unix_socket_path=str(redis_socket)) as client:
        client.flushall()
    return f"unix://{redis_socket}"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


def _wait_until_it_answers(socket: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert server.poll() is None, "redis-server ended at once"
        try:
            with sync_redis.Redis(unix_socket_path=str(socket)) as client:
                client.ping()
        except sync_redis.RedisError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("redis-server does not answer")
