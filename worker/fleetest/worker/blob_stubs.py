"""Stubs of the BlobService of whichever master is in use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from grpc import aio

from fleetest.common.settings import Secret
from fleetest.v1.blob_pb2_grpc import BlobServiceStub
from fleetest.worker.masters import Masters
from fleetest.worker.session_stream import identified

if TYPE_CHECKING:
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

__all__ = ["BlobStubs"]


class BlobStubs:
    """
    Fulfils `BlobMasters`. Blobs do not belong to a session: any master serves them. Use as an asynchronous context
    manager; leaving it closes every channel.

    Args:
        open_channel: to the master at an address, when it is first needed.
    """

    def __init__(self, masters: Masters, token: Secret, open_channel: Callable[[str], aio.Channel]) -> None:
        self._masters = masters
        self._token = token
        self._open_channel = open_channel
        self._stubs: dict[str, BlobServiceAsyncStub] = {}
        self._channels = AsyncExitStack()

    async def __aenter__(self) -> BlobStubs:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channels.aclose()

    @property
    def stub(self) -> BlobServiceAsyncStub:
        address = self._masters.address
        if address not in self._stubs:
            channel = self._open_channel(address)
            self._channels.push_async_callback(channel.close)
            self._stubs[address] = identified(BlobServiceStub(channel), self._token)
        return self._stubs[address]

    def leave(self, stub: BlobServiceAsyncStub) -> None:
        for address, known in self._stubs.items():
            if known is stub:
                self._masters.leave(address)
