"""10,000 tasks that do nothing: what is left is what a task costs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import NOOP_WORKER, serving
from benchmarks.core.figures import BEST, OURS, Aim, Better, Figure
from benchmarks.core.peer import Peer, peer
from benchmarks.core.rounds import Measurement, NotHere, in_turns, side
from benchmarks.noop.client import run_noops
from fleetest.client import AsyncClient

__all__ = ["PEERS", "SLOTS", "measure"]

PEERS: Final = {
    "Celery": "celery",
    "dask.distributed": "dask",
    "Ray": "ray",
    "Dramatiq": "dramatiq",
}
"""By the name that readers know: the program in `benchmarks/peers`."""

SLOTS: Final = 32
"""Of each of our two workers: how many tasks it takes in advance, as peers prefetch."""

_SLOW: Final = frozenset({"Celery", "dask.distributed"})
"""Peers that are given a fifth of the tasks, so that a round stays short: their rate does not grow with the number."""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Tasks/s of everybody, in turns."""
    count = bench.size(10_000, 500)
    missing: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(bench.directory())
        cluster = await stack.enter_async_context(serving(directory, slots=SLOTS, program=NOOP_WORKER))
        client = await stack.enter_async_context(cluster.client())
        sides: dict[str, Measurement] = {OURS: partial(_ours, client, count)}
        for name, program in PEERS.items():
            try:
                started = await stack.enter_async_context(peer(bench, program))
            except NotHere as reason:
                missing[name] = str(reason)
            else:
                sides[name] = partial(_theirs, started, count // 5 if name in _SLOW else count)
        measured = await in_turns(sides, rounds=bench.rounds, say=bench.say)
    return [
        Figure(
            name=f"{count:,} no-op tasks, 2 workers",
            unit="tasks/s",
            better=Better.HIGHER,
            ours=side(OURS, "tasks/s", measured),
            peers=tuple(side(name, "tasks/s", measured, missing) for name in PEERS),
            aims=(Aim(limit=3, against=BEST), Aim(limit=5, against=BEST)),
            notes=(
                "Each of our tasks has its own claim, lease, attempt and result in the durable store.",
                "The peers keep everything in memory.",
                f"{' and '.join(sorted(_SLOW))} are given {count // 5:,} tasks.",
            ),
        )
    ]


async def _ours(client: AsyncClient, count: int) -> Mapping[str, float]:
    return {"tasks/s": count / await run_noops(client, count)}


async def _theirs(started: Peer, count: int) -> Mapping[str, float]:
    return {"tasks/s": await started.many(count)}
