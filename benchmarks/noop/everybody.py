"""All who can do tasks, with two workers each, up and idle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import NOOP_WORKER, serving
from benchmarks.core.peer import Peer, peer
from benchmarks.core.rounds import NotHere
from fleetest.client import AsyncClient

__all__ = ["PEERS", "Everybody", "everybody"]

PEERS: Final = {
    "Celery": "celery",
    "dask.distributed": "dask",
    "Ray": "ray",
    "Dramatiq": "dramatiq",
}
"""By the name that readers know: the program in `benchmarks/peers`."""

SLOTS: Final = 128
"""Of each of our workers: how many tasks it takes in advance, as peers prefetch. It does one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Everybody:
    """
    Args:
        client: of our cluster.
        missing: why a peer is not there.
    """

    client: AsyncClient
    peers: Mapping[str, Peer]
    missing: Mapping[str, str]


@asynccontextmanager
async def everybody(bench: Bench) -> AsyncIterator[Everybody]:
    """Start all of them; a peer that does not start is left out."""
    peers: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(bench.directory())
        cluster = await stack.enter_async_context(serving(directory, slots=SLOTS, program=NOOP_WORKER))
        client = await stack.enter_async_context(cluster.client())
        for name, program in PEERS.items():
            try:
                peers[name] = await stack.enter_async_context(peer(bench, program))
            except NotHere as reason:
                missing[name] = str(reason)
        yield Everybody(client=client, peers=peers, missing=missing)
