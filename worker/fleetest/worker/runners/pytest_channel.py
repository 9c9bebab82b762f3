"""
The agent's half of the line to a resident pytest session.

The protocol is described in `fleetest/worker/resident/channel.py`, which cannot be imported here: it runs in the
user's interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fleetest.common.limits import MAX_ASSERTIONS
from fleetest.common.results import Assertion, CaseResult, PlannedCase
from fleetest.common.states import Outcome

__all__ = ["DESCRIPTOR_LOST", "PROTOCOL", "Channel", "case_result", "fingerprints", "planned_cases"]

PROTOCOL: Final = 1
DESCRIPTOR_LOST: Final = 97
"""Exit code of a session that can no longer speak."""

_LINE_LIMIT_BYTES: Final = 64 << 20
_READ_BYTES: Final = 1 << 18
_MUCH_BYTES: Final = 1 << 16  # not far from what the kernel holds; whoever says so much would be held up
_LONGEST_PATH_BYTES: Final = 100  # with some to spare: 107 on Linux, 103 on macOS
_EVERYBODY: Final = 0o666  # the session may be another user's; its directory keeps strangers out

Message = Mapping[str, Any]


class Channel:
    """
    Listens for one session, and speaks with it.

    Args:
        token: what the session must say first; whoever says something else is hung up on.
        on_message: gets each message of the session, in order.
        on_garbage: called with the reason when the line carried what is no message; nothing more is read then.
        on_ended: called when the session's end was closed, as it is when its process ends.
    """

    def __init__(
        self,
        path: Path,
        *,
        token: str,
        on_message: Callable[[Message], None],
        on_garbage: Callable[[str], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._path = path
        self._token = token
        self._on_message = on_message
        self._on_garbage = on_garbage
        self._on_ended = on_ended
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._session: _Connection | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    def listen(self) -> None:
        self._listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        _bind(self._listener, self._path)
        self._path.chmod(_EVERYBODY)
        self._listener.listen()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def send(self, message: Message) -> None:
        """Nothing happens when the session is gone: that is learnt from its process."""
        if self._session is not None:
            self._session.unsent.put_nowait(json.dumps(message).encode("ascii") + b"\n")

    def read_later(self, pause: timedelta) -> None:
        """Read nothing before so much time has passed, or all is to be read."""
        if self._session is not None:
            self._session.read_later(pause)

    async def drain(self, within: timedelta) -> None:
        """Wait until all that an ended session has said has been read."""
        if self._session is not None:
            self._session.read_on()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), within.total_seconds())

    async def close(self) -> None:
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in list(self._connections):
            await self._hang_up(connection)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self) -> None:
        # Not in a task: who is cancelled when a connection has just been taken loses it, unclosed.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            accepted, _ = self._listener.accept()
            self._connections.add(_Connection(accepted, on_line=self._heard, on_end=self._heard_last))

    def _heard_last(self, connection: _Connection, problem: str) -> None:
        self._spawn(self._end(connection, problem))

    async def _hang_up(self, connection: _Connection) -> None:
        await connection.close()
        self._connections.discard(connection)

    async def _end(self, connection: _Connection, problem: str) -> None:
        await self._hang_up(connection)
        if connection is self._session:
            self._ended.set()
            if problem:
                self._on_garbage(f"something wrote into the session's own channel: {problem}")
            else:
                self._on_ended()

    def _heard(self, connection: _Connection, line: bytes) -> None:
        """
        Raises:
            ValueError: the line is no message, or its sender is not the session.
        """
        message = json.loads(line)
        if not isinstance(message, dict) or not isinstance(message.get("event"), str):
            raise ValueError(f"not a message: {line[:80]!r}")  # noqa: TRY004 - what was read is wrong, no argument
        if connection is self._session:
            self._on_message(message)
        elif self._session is None and self._is_hello(message):
            self._session = connection
            connection.writer = asyncio.create_task(connection.write())
        else:
            raise ValueError("a stranger")

    def _is_hello(self, message: Message) -> bool:
        return (
            message["event"] == "hello" and message.get("protocol") == PROTOCOL and message.get("token") == self._token
        )


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind to a path of any length, where the kernel takes 107 bytes: by way of a descriptor of its directory."""
    if len(os.fsencode(path)) <= _LONGEST_PATH_BYTES or not Path("/proc/self/fd").is_dir():
        listener.bind(str(path))
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


class _Connection:
    """
    One end of the line, read to its last byte even when the other end dies with something unread.

    asyncio's streams and transports do not: an error of writing makes them drop what has come in. And `sock_recv` asks
    the kernel to watch anew for each piece, which short cases send by the thousand.

    Args:
        on_line: gets each line; raises ValueError for one after which no more is wanted.
        on_end: called once, when there is nothing more to read, with the reason when that is a bad line.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_line: Callable[[_Connection, bytes], None],
        on_end: Callable[[_Connection, str], None],
    ) -> None:
        self._socket = connection
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._on_line = on_line
        self._on_end = on_end
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self.unsent: asyncio.Queue[bytes] = asyncio.Queue()
        self.writer: asyncio.Task[None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._may_rest = False
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def read_later(self, pause: timedelta) -> None:
        """Read nothing before so much time has passed, unless `read_on` comes first, or much is said."""
        if self._resting is None and self._may_rest:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            self._resting = loop.call_later(pause.total_seconds(), self.read_on)

    def read_on(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
            asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def close(self) -> None:
        """Idempotent."""
        self._may_rest = False
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
        if self.writer is not None:
            self.writer.cancel()
            await asyncio.wait([self.writer])
        self._socket.close()

    def _read(self) -> None:
        try:
            content = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        problem = ""
        try:
            self._take(content)
        except ValueError as error:
            problem = str(error)
        self._may_rest = not problem and 0 < len(content) < _MUCH_BYTES
        if problem or not content:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._on_end(self, problem)

    def _take(self, content: bytes) -> None:
        """
        Raises:
            ValueError: a line is not wanted, or longer than any message.
        """
        *ends, rest = content.split(b"\n")
        for end in ends:
            line = b"".join([*self._unread, end])
            self._unread, self._unread_bytes = [], 0
            self._on_line(self, line)
        self._unread.append(rest)
        self._unread_bytes += len(rest)
        if self._unread_bytes > _LINE_LIMIT_BYTES:
            raise ValueError("a line without end")

    async def write(self) -> None:
        """Send what is put into `unsent`, until the other end is gone."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                await loop.sock_sendall(self._socket, await self.unsent.get())


def case_result(message: Message, *, started_at: datetime | None = None) -> CaseResult:
    """
    The result that a message holds.

    Raises:
        ValueError: it does not hold one.
    """
    try:
        return CaseResult(
            case_id=message["id"],
            outcome=Outcome(message["outcome"]),
            duration=timedelta(seconds=message["duration"]),
            started_at=started_at,
            message=message["message"],
            details=message.get("details", ""),
            stdout=message.get("stdout", ""),
            stderr=message.get("stderr", ""),
            log=message.get("log", ""),
            file=message["file"],
            line=message["line"],
            truncated=message["truncated"],
            properties=message["properties"],
            uncacheable=str(message.get("uncacheable", "")),
            assertions=tuple(
                Assertion(name=str(name)[:1000], passed=bool(passed), message=str(text)[:4000])
                for name, passed, text in message.get("assertions", ())[:MAX_ASSERTIONS]
            ),
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a result: {error}") from error


def planned_cases(message: Message) -> list[PlannedCase]:
    """
    The cases that a message holds.

    Raises:
        ValueError: it does not hold cases.
    """
    try:
        return [
            PlannedCase(case_id=case_id, file=file, line=line, group=group)
            for case_id, file, line, group in message["cases"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a list of cases: {error}") from error


def fingerprints(message: Message) -> dict[str, str]:
    """
    The digests, by file, that a message holds.

    Raises:
        ValueError: it does not hold any.
    """
    files = message.get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError("not a mapping of files to digests")
    return files
