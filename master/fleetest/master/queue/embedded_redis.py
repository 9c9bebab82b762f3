"""A real redis-server as a child of this process."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import stat
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from fleetest.common.errors import DependencyUnavailable, WrongState
from fleetest.master.queue import die_with_parent
from fleetest.master.queue.redis_binary import find_redis_server

__all__ = ["EmbeddedRedis"]

_START_TIMEOUT: Final = timedelta(seconds=60)
"""Reading a large append-only file takes a while; 1 GB a few seconds."""

_STOP_TIMEOUT: Final = timedelta(seconds=10)
_UNREADABLE: Final = (
    "reading the append only file",
    "AOF loading aborted",
    "AOF manifest",
    "rdb file reading failure",
)
"""Parts of what Redis 6.2 and 7 log about an append-only file before they give up."""

_LONGEST_SOCKET_PATH: Final = 100
"""Bytes. `sun_path` has 108 on Linux and 104 on macOS, and Redis adds a suffix while it binds."""


class EmbeddedRedis:
    """
    Keeps its data, log and socket in `directory`, and nobody else may look into it. No TCP port is opened.

    It ends when this process ends, however that happens (on macOS a server that outlived us is replaced at the next
    start). Start it from a thread that lives as long as the process: to Linux, the parent is the thread. A
    death of the server is noticed with `wait()` and mended with `start()`; at most the last second is lost.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = _socket_path(directory)
        self._process: asyncio.subprocess.Process | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """For `connect`; the same in every life."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def log_file(self) -> Path:
        return self._directory / "redis.log"

    @property
    def pid(self) -> int | None:
        """Of the server; `None` while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """
        Start the server and return when it answers. Nothing happens when it runs already.

        An append-only file whose end is missing is read as far as it goes. One that cannot be read is set aside,
        and the server starts empty: what it held is rebuilt from the runs' logs.

        Raises:
            DependencyUnavailable: no redis-server is installed, or it does not start.
            WrongState: another process uses the directory.
        """
        if self.pid is not None:
            return
        program = await find_redis_server()
        self._prepare_directory()
        try:
            await self._replace_predecessor()
            await self._launch_on_what_can_be_read(program)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server, which writes everything to disk first. Idempotent."""
        if self._process is not None:
            await _end(self._process)
            self._process = None
        with suppress(OSError):
            self._socket.unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def wait(self) -> int:
        """
        Return when the server has ended, with its exit code (minus the signal's number when a signal ended it).

        Raises:
            WrongState: it was never started.
        """
        if self._process is None:
            raise WrongState("the embedded Redis is not running", hint="Call start() first.")
        return await self._process.wait()

    def _prepare_directory(self) -> None:
        for folder in (self._directory, self._socket.parent):
            _make_private(folder)
        if self._lock is None:
            self._lock = _lock(self._directory / "redis.lock")

    async def _replace_predecessor(self) -> None:
        """We hold the lock, so a server that still listens has lost its parent."""
        with suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_STOP_TIMEOUT.total_seconds()):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(b"SHUTDOWN\r\n")
                    await reader.read()  # ends with its process
                finally:
                    writer.close()
        with suppress(OSError):  # if that matters, the server will say why it cannot listen
            self._socket.unlink()

    async def _launch_on_what_can_be_read(self, program: Path) -> None:
        if await self._launch(program):
            return
        if self._set_data_aside() and await self._launch(program):
            return
        raise DependencyUnavailable(
            f"{program} does not start in {self._directory}: {self._last_words()}",
            hint=f"All it said is in {self.log_file}.",
        )

    async def _launch(self, program: Path) -> bool:
        """Whether it came to answer before it ended."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())),
            *(str(program), *self._options()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for us; we stop it in our turn
        )
        ended = asyncio.create_task(self._process.wait())
        answers = asyncio.create_task(self._until_it_answers())
        try:
            await asyncio.wait(
                (ended, answers),
                timeout=_START_TIMEOUT.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in (ended, answers):
                task.cancel()
            await asyncio.gather(ended, answers, return_exceptions=True)
        if answers.cancelled():
            await _end(self._process)
        return not answers.cancelled()

    async def _until_it_answers(self) -> None:
        while not await self._answers():  # noqa: ASYNC110 - another process has no Event for us
            await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        """Whether it answers a PING; while it reads its file it answers -LOADING."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory.absolute()),
            "logfile": str(self.log_file.absolute()),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            # Short hashes and sorted sets would be lists that are searched: as dear with 128 claims as with a million.
            "hash-max-ziplist-entries": "0",
            "zset-max-ziplist-entries": "0",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _set_data_aside(self) -> bool:
        """Whether there was an append-only file that the server could not read."""
        if not any(complaint in self._last_words() for complaint in _UNREADABLE):
            return False
        for name in ("appendonlydir", "appendonly.aof"):  # Redis 7 and 6
            data = self._directory / name
            with suppress(FileNotFoundError):
                data.rename(data.with_name(f"{name}.unreadable-{os.getpid()}-{self._next_number()}"))
        return True

    def _next_number(self) -> int:
        return sum(1 for _ in self._directory.glob("*.unreadable-*"))

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return "it said nothing"
        return " / ".join(lines[-5:])


def _socket_path(directory: Path) -> Path:
    """In the directory, or, when that path is too long for a socket, in a short one of this user's."""
    path = directory.absolute() / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"fleetest-{os.getuid()}-{name}", "redis.sock")


def _make_private(folder: Path) -> None:
    """
    Raises:
        DependencyUnavailable: it cannot be made, or it is not ours: somebody else could read along.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError("it belongs to somebody else")
        folder.chmod(0o700)
    except OSError as error:
        raise DependencyUnavailable(
            f"cannot use the directory {folder} for Redis: {error}", hint="Choose another data directory."
        ) from error


def _lock(path: Path) -> int:
    """
    Raises:
        WrongState: another process has it.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise WrongState(
            f"another process uses {path.parent}",
            hint="A cluster is running on this data directory: use it, or choose another directory.",
        ) from error
    return descriptor


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT.total_seconds()):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
