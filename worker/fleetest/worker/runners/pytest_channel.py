"""
The agent's half of the line to a resident pytest session.

The protocol is described in `fleetest/worker/resident/channel.py`, which cannot be imported here: it runs in the
user's interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fleetest.common.results import CaseResult, PlannedCase
from fleetest.common.states import Outcome

__all__ = ["DESCRIPTOR_LOST", "PROTOCOL", "Channel", "case_result", "planned_cases"]

PROTOCOL: Final = 1
DESCRIPTOR_LOST: Final = 97
"""Exit code of a session that can no longer speak."""

_LINE_LIMIT_BYTES: Final = 64 << 20

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
        self._server: asyncio.Server | None = None
        self._session: _Connection | None = None
        self._ended = asyncio.Event()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self._heard, self._lost), str(self._path))

    def send(self, message: Message) -> None:
        """Nothing happens when the session is gone: that is learnt from its process."""
        if self._session is not None and not self._session.transport.is_closing():
            self._session.transport.write(json.dumps(message).encode("ascii") + b"\n")

    async def drain(self, within: timedelta) -> None:
        """Wait until all that an ended session has said has been read."""
        if self._session is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), within.total_seconds())

    def close(self) -> None:
        if self._session is not None:
            self._session.transport.close()
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

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
        else:
            raise ValueError("a stranger")

    def _lost(self, connection: _Connection, problem: str) -> None:
        if connection is self._session:
            self._ended.set()
            if problem:
                self._on_garbage(f"something wrote into the session's own channel: {problem}")
            else:
                self._on_ended()

    def _is_hello(self, message: Message) -> bool:
        return (
            message["event"] == "hello"
            and message.get("protocol") == PROTOCOL
            and message.get("token") == self._token
        )


class _Connection(asyncio.Protocol):
    """Cuts what comes into lines. Not a stream: that forgets what it has read when the other side dies with a reset."""

    transport: asyncio.Transport

    def __init__(
        self, heard: Callable[[_Connection, bytes], None], lost: Callable[[_Connection, str], None]
    ) -> None:
        self._heard = heard
        self._lost = lost
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._problem = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._problem:
            return
        *lines, rest = data.split(b"\n")
        try:
            for line in lines:
                self._heard(self, b"".join([*self._unread, line]))
                self._unread, self._unread_bytes = [], 0
            self._unread.append(rest)
            self._unread_bytes += len(rest)
            if self._unread_bytes > _LINE_LIMIT_BYTES:
                raise ValueError("a line without end")
        except ValueError as error:
            self._problem = str(error)
            self.transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._lost(self, self._problem)


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
