"""The end of what somebody wrote."""

from __future__ import annotations

from collections import deque

__all__ = ["Tail"]


class Tail:
    """Keeps the last `limit_bytes` of a stream of bytes."""

    def __init__(self, limit_bytes: int = 4096) -> None:
        self._limit_bytes = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._size_bytes = 0

    def write(self, content: bytes) -> None:
        self._chunks.append(content[-self._limit_bytes :])
        self._size_bytes += len(self._chunks[-1])
        while self._size_bytes - len(self._chunks[0]) >= self._limit_bytes:
            self._size_bytes -= len(self._chunks.popleft())

    def text(self) -> str:
        """What is kept, decoded; what is not UTF-8 is shown escaped."""
        content = b"".join(self._chunks)[-self._limit_bytes :]
        return content.decode("utf-8", "backslashreplace").strip("\r\n")
