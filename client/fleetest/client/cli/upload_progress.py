"""How far an upload is: one line on a terminal that is written over, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TextIO

from fleetest.client.view.words import size_text

__all__ = ["UploadProgress", "sent_text"]

_INTERVAL_SECONDS: Final = 0.2
_WIDTH: Final = 60


def sent_text(files: int, size_bytes: int) -> str:
    """`3 of them new (1.2 MiB sent)`, or that nothing had to be sent."""
    return f"{files:,} of them new ({size_text(size_bytes)} sent)" if files else "none of them new"


class UploadProgress:
    """
    Shows bytes; leaves no trace.

    Args:
        stream: where to; nothing is written when it is no terminal.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_at = clock()
        self._wrote = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._wrote:
            self._stream.write(f"\r{' ' * _WIDTH}\r")
            self._stream.flush()

    def announce(self, line: str) -> None:
        """What is done before the first byte is sent."""
        if self._stream.isatty():
            self._draw(line)

    def show(self, sent_bytes: int, total_bytes: int) -> None:
        """Told by the upload; draws a few times a second."""
        now = self._clock()
        if not self._stream.isatty() or now - self._shown_at < _INTERVAL_SECONDS:
            return
        self._shown_at = now
        self._draw(f"uploading: {size_text(sent_bytes)} of {size_text(total_bytes)}")

    def _draw(self, line: str) -> None:
        self._wrote = True
        self._stream.write(f"\r{line:<{_WIDTH}}")
        self._stream.flush()
