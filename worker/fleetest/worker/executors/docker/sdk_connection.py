"""Both directions of an exec's streams, over the connection that the Docker SDK has opened for them."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, Final

__all__ = ["SdkConnection"]

_CHUNK_BYTES: Final = 1 << 16
_HEADER: Final = struct.Struct(">BxxxL")
_OUTPUT: Final = 1


class SdkConnection:
    """
    Fulfils `ExecConnection`; see "attach to a container" in the Engine's API for what is read.

    Args:
        connection: what `exec_start` answers with `socket=True`.
        terminal: whether the process has one: then its streams are one, and come without frames.
    """

    def __init__(self, connection: Any, *, terminal: bool) -> None:
        # What came together with the answer's header lies in this buffer, not in the connection.
        self._buffer = connection._response.raw._fp.fp  # noqa: SLF001 - the SDK offers no other way
        self._socket: socket.socket = getattr(connection, "_sock", connection)
        self._response = connection._response  # noqa: SLF001 - as above
        self._terminal = terminal
        self._socket.settimeout(None)

    def read(self) -> tuple[int, bytes]:
        if self._terminal:
            return _OUTPUT, self._buffer.read1(_CHUNK_BYTES)
        header = self._buffer.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return _OUTPUT, b""
        stream, size = _HEADER.unpack(header)
        return stream, self._buffer.read(size)

    def write(self, content: bytes) -> None:
        self._socket.sendall(content)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(Exception):
            self._response.close()
