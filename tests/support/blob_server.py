"""A BlobService on a real port, and a network in front of it that can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import grpc

from fleetest.common.blobs import BlobStore
from fleetest.common.clock import SystemClock
from fleetest.master.access.gatekeeper import Gatekeeper
from fleetest.master.activity import Activity
from fleetest.master.blobs.custody import Custody
from fleetest.master.servicers.blobs import BlobServicer
from fleetest.master.servicers.interceptors import ServerInterceptor
from fleetest.master.store.sqlite import SqliteStore
from fleetest.v1 import blob_pb2_grpc

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

__all__ = ["BreakingNetwork", "blob_stub", "serve_blobs"]


@asynccontextmanager
async def serve_blobs(store: BlobStore) -> AsyncIterator[int]:
    """Serve the store as a master does; gives the port."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="fleetest-test-"))
        holds = await stack.enter_async_context(await SqliteStore.open(Path(directory, "store.sqlite")))
        custody = Custody(holds, SystemClock(), workspaces_for=timedelta(days=30), artifacts_for=timedelta(days=90))
        yield await stack.enter_async_context(_serve(BlobServicer(store, custody)))


@asynccontextmanager
async def _serve(servicer: BlobServicer) -> AsyncIterator[int]:
    server = grpc.aio.server(interceptors=[ServerInterceptor(Gatekeeper({}), Activity(SystemClock()))])
    blob_pb2_grpc.add_BlobServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


@asynccontextmanager
async def blob_stub(port: int) -> AsyncIterator[BlobServiceAsyncStub]:
    """A stub with its own connection, which comes back quickly when it was lost."""
    options = [("grpc.initial_reconnect_backoff_ms", 20)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield blob_pb2_grpc.BlobServiceStub(channel)


class BreakingNetwork:
    """
    Forwards connections to a port, and cuts the first ones that carry so many bytes in either direction.

    Args:
        port: where to.
        cuts: one number of bytes for each connection that is to be cut. One that ends by itself leaves its number to
            the next.
    """

    def __init__(self, port: int, *, cuts: list[int]) -> None:
        self._port = port
        self._cuts = list(cuts)
        self.sent_bytes = 0
        self.received_bytes = 0
        self.broken = 0
        self._ends: list[asyncio.StreamWriter] = []
        self._forwarding: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Gives the port to connect to; nothing of any connection is left at the end."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            try:
                yield server.sockets[0].getsockname()[1]
            finally:
                server.close()
                await self._hang_up()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        self._forwarding.append(asyncio.create_task(self._forward(reader, writer)))

    async def _hang_up(self) -> None:
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*(end.wait_closed() for end in self._ends), return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = self._cuts.pop(0) if self._cuts else None
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends.append(upstream_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, upstream_writer, limit, sent=True)),
            asyncio.create_task(self._pump(upstream_reader, writer, limit, sent=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            if True in await asyncio.gather(*pumps, return_exceptions=True):
                self.broken += 1
            elif limit is not None:
                self._cuts.insert(0, limit)
            for end in (writer, upstream_writer):
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, *, sent: bool
    ) -> bool:
        """Whether it was cut."""
        forwarded = 0
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                forwarded += len(data)
                if limit is not None and forwarded > limit:
                    return True
                if sent:
                    self.sent_bytes += len(data)
                else:
                    self.received_bytes += len(data)
                writer.write(data)
                await writer.drain()
        return False
