"""A network between a driver and a server on a Unix socket, which loses chosen answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

__all__ = ["LosingNetwork"]


class LosingNetwork:
    """
    Forwards connections, and breaks one after its request was delivered and before its answer is.

    Args:
        target: the server's socket.

    Attributes:
        socket: where to connect instead.
        lost: how many answers.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.lost = 0
        self._word: bytes | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="fleetest-network-")
        self.socket = Path(self._directory.name, "network.sock")
        self._connections: set[asyncio.Task[None]] = set()

    def lose_answer_to(self, word: bytes) -> None:
        """The next request that holds this is done, and its answer lost with its connection."""
        self._word = word

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[LosingNetwork]:
        """Nothing of any connection is left at the end."""
        with self._directory:
            server = await asyncio.start_unix_server(self._accept, self.socket)
            try:
                yield self
            finally:
                server.close()
                for connection in self._connections:
                    connection.cancel()
                await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self.target)
        try:
            with suppress(ConnectionError):
                while request := await _message(reader):
                    server_writer.write(request)
                    losing = self._word is not None and self._word in request
                    if losing:
                        self._word = None
                    answer = await _message(server_reader)
                    if losing:
                        self.lost += 1
                        return
                    writer.write(answer)
        finally:
            for end in (writer, server_writer):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One message of MongoDB's wire protocol, which begins with its length; empty at the end."""
    try:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(int.from_bytes(length, "little") - 4)
    except asyncio.IncompleteReadError:
        return b""
