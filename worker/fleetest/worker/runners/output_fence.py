"""
Keeps what a session says behind the output that it had written by then.

The session's half, and why, is in `fleetest/worker/resident/marks.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["OutputFence"]

_PATIENCE_SECONDS: Final = 2.0
_MOST_DIGITS: Final = 12

Message = Mapping[str, Any]


class OutputFence:
    """
    Passes on output and messages; a message with a `mark` waits, and those after it, until that mark has come with the
    output. An output that was lost holds nobody up for long.

    Args:
        word: what the session's marks begin with; nobody else knows it.
        on_output: gets the output without the marks.
        on_message: gets the messages, in order.
    """

    def __init__(self, word: str, *, on_output: Callable[[bytes], None], on_message: Callable[[Message], None]) -> None:
        self._beginning = f"\0{word} ".encode("ascii")
        self._mark = re.compile(re.escape(self._beginning) + rb"(\d{1,%d})\0" % _MOST_DIGITS)
        self._on_output = on_output
        self._on_message = on_message
        self._unread = b""
        self._reached = 0
        self._waiting: deque[Message] = deque()
        self._patience: asyncio.TimerHandle | None = None
        self._last_word = 0.0

    def write(self, content: bytes) -> None:
        """Take a piece of the output."""
        *parts, rest = self._mark.split(self._unread + content)  # output and numbers take turns
        for output, number in zip(parts[::2], parts[1::2], strict=True):
            self._pass_on(output)
            self._reach(int(number))
        cut = len(rest) - self._begun(rest)
        self._unread = rest[cut:]
        self._pass_on(rest[:cut])

    def say(self, message: Message) -> None:
        """Take a message."""
        self._waiting.append(message)
        self._release()

    def end(self) -> None:
        """Neither output nor messages come any more."""
        unread, self._unread = self._unread, b""
        self._pass_on(unread)
        self._release_all()
        if self._patience is not None:
            self._patience.cancel()

    def _begun(self, content: bytes) -> int:
        """How many bytes at the end are the beginning of a mark."""
        last = content.rfind(b"\0", -len(self._beginning) - _MOST_DIGITS)
        tail = content[last:] if last >= 0 else b""
        number = tail.removeprefix(self._beginning)
        return len(tail) if self._beginning.startswith(tail) or (number != tail and number.isdigit()) else 0

    def _pass_on(self, content: bytes) -> None:
        if content:
            self._on_output(content)

    def _reach(self, number: int) -> None:
        self._reached = number
        self._release()

    def _release(self) -> None:
        while self._waiting and _mark_of(self._waiting[0]) <= self._reached:
            self._on_message(self._waiting.popleft())
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._last_word = loop.time()
            if self._patience is None:  # else it is looked again when it ends: short cases say thousands of words
                self._patience = loop.call_later(_PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        loop = asyncio.get_running_loop()
        left_seconds = self._last_word + _PATIENCE_SECONDS - loop.time()
        self._patience = None
        if self._waiting and left_seconds > 0:
            self._patience = loop.call_later(left_seconds, self._lose_patience)
        else:
            self._release_all()

    def _release_all(self) -> None:
        self._reached = max(map(_mark_of, self._waiting), default=self._reached)
        self._release()


def _mark_of(message: Message) -> int:
    mark = message.get("mark")
    return mark if isinstance(mark, int) else 0
