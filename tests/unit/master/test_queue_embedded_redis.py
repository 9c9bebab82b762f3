"""The redis-server that we start ourselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fleetest.common.errors import DependencyUnavailable, WrongState
from fleetest.master.queue.connection import connect
from fleetest.master.queue.embedded_redis import EmbeddedRedis
from fleetest.master.queue.redis_binary import find_redis_server


async def until(condition: Callable[[], bool]) -> None:
    """For what other processes do, which nobody tells us of."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    """An orphan is reaped by whoever adopts it, maybe never: a zombie is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def unreadable_files(directory: Path) -> list[Path]:
    return list(directory.glob("appendonly*.unreadable-*"))


async def test_server_answers_on_a_private_socket_and_on_no_port(tmp_path: Path) -> None:
    directory = tmp_path / "a b" / "redis"

    async with EmbeddedRedis(directory) as server, connect(server.url) as client:
        assert await client.ping()
        assert await client.config_get("port") == {"port": "0"}
        assert await client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert await client.config_get("appendonly") == {"appendonly": "yes"}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert server.log_file.exists()


async def test_data_survives_stop_and_start(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        await client.set("key", "value")

    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        assert await client.get("key") == b"value"


async def test_nothing_runs_after_stop_and_stopping_again_is_fine(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    await server.start()
    pid = server.pid
    assert pid is not None

    await server.start()
    assert server.pid == pid
    await server.stop()
    await server.stop()

    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_death_is_noticed_and_mended(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        noticed = asyncio.create_task(server.wait())
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)

        assert await noticed == -signal.SIGKILL
        assert server.pid is None
        await server.start()
        assert await client.ping()


async def test_waiting_for_a_server_that_was_never_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongState):
        await EmbeddedRedis(tmp_path).wait()


async def test_second_server_on_one_directory_is_refused(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        with pytest.raises(WrongState, match=str(tmp_path)):
            await EmbeddedRedis(tmp_path).start()

        assert await client.ping()


async def test_path_too_long_for_a_socket_is_no_hindrance(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 200)

    async with EmbeddedRedis(directory) as server, connect(server.url) as client:
        assert await client.ping()
        assert server.url == EmbeddedRedis(directory).url

    short = Path(server.url.removeprefix("unix://")).parent
    assert stat.S_IMODE(short.stat().st_mode) == 0o700
    short.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from fleetest.master.queue.embedded_redis import EmbeddedRedis

        async def main():
            server = EmbeddedRedis(Path({str(tmp_path)!r}))
            await server.start()
            print(server.pid, flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    try:
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
    finally:
        parent.kill()
        await parent.wait()

    await until(lambda: is_gone(pid))


async def test_orphan_of_an_earlier_life_is_replaced(tmp_path: Path) -> None:
    earlier = EmbeddedRedis(tmp_path)
    program = await find_redis_server()
    socket = earlier.url.removeprefix("unix://")
    options = ("--port", "0", "--unixsocket", socket, "--dir", tmp_path, "--appendonly", "yes")
    orphan = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.DEVNULL)
    try:
        await until(Path(socket).exists)
        async with connect(earlier.url) as client:
            await client.set("key", "value")

        async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
            assert await orphan.wait() == 0
            assert await client.get("key") == b"value"
    finally:
        with suppress(ProcessLookupError):
            orphan.kill()
        await orphan.wait()


async def test_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "redis.sock").write_text("not even a socket")

    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        assert await client.ping()


def append_only_file(directory: Path) -> Path:
    """The part to which Redis 6 or 7 appends."""
    [path] = [*directory.glob("appendonly.aof"), *directory.glob("appendonlydir/*.incr.aof")]
    return path


async def test_file_with_a_missing_end_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        await client.set("first", "1")
        await client.set("second", "2")
    path = append_only_file(tmp_path)
    os.truncate(path, path.stat().st_size - 5)

    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        assert await client.keys() == [b"first"]


async def test_unreadable_file_is_set_aside_and_the_server_starts_empty(tmp_path: Path) -> None:
    for _ in range(2):
        async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
            assert await client.keys() == []
            await client.set("key", "value")
        append_only_file(tmp_path).write_bytes(b"garbage " * 100)

    async with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        assert await client.keys() == []
    assert len(unreadable_files(tmp_path)) == 2


async def test_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "redis.sock").mkdir()  # so that it cannot be bound

    with pytest.raises(DependencyUnavailable, match=r"Unix socket.*\n.*redis\.log"):
        await EmbeddedRedis(tmp_path).start()


async def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DependencyUnavailable, match="file/redis"):
        await EmbeddedRedis(tmp_path / "file" / "redis").start()


async def test_without_a_redis_server_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(DependencyUnavailable) as failure:
        await EmbeddedRedis(tmp_path / "data").start()

    assert "apt-get install redis-server" in failure.value.hint
    assert "fleetest[embedded]" in failure.value.hint


@pytest.mark.parametrize("answer", ["echo Redis server v=6.0.16 sha=0", "echo hello", "exit 1"])
async def test_redis_server_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    real = await find_redis_server()
    (tmp_path / "redis-server").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "redis-server").chmod(0o755)
    (tmp_path / "valkey-server").symlink_to(real)
    shell = shutil.which("sh")
    assert shell is not None
    monkeypatch.setenv("PATH", str(tmp_path))

    assert await find_redis_server() == tmp_path / "valkey-server"
