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
        on_garbage: called once when the session says what is no message; nothing more is read then.
    """

    def __init__(
        self, path: Path, *, token: str, on_message: Callable[[Message], None], on_garbage: Callable[[str], None]
    ) -> None:
        self._path = path
        self._token = token
        self._on_message = on_message
        self._on_garbage = on_garbage
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ended = asyncio.Event()

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LINE_LIMIT_BYTES)

    def send(self, message: Message) -> None:
        """Nothing happens when the session is gone: that is learnt from its process."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode("ascii") + b"\n")

    async def drain(self, within: timedelta) -> None:
        """Wait until all that an ended session has said has been read."""
        if self._writer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), within.total_seconds())

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._writer is not None or not self._is_hello(await reader.readline()):
                return
            self._writer = writer
            await self._read(reader)
        except (OSError, ValueError) as error:
            self._on_garbage(str(error))
        finally:
            if writer is self._writer:
                self._ended.set()
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            if not isinstance(message, dict) or not isinstance(message.get("event"), str):
                raise ValueError(f"not a message: {line[:80]!r}")  # noqa: TRY004 - what was read is wrong, no argument
            self._on_message(message)

    def _is_hello(self, line: bytes) -> bool:
        try:
            message = json.loads(line)
        except ValueError:
            return False
        return (
            isinstance(message, dict)
            and message.get("event") == "hello"
            and message.get("protocol") == PROTOCOL
            and message.get("token") == self._token
        )


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
