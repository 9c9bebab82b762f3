"""10,000 tasks that do nothing: what is left is what a task costs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from benchmarks.core.bench import Bench
from benchmarks.core.figures import BEST, OURS, Aim, Better, Figure
from benchmarks.core.peer import Peer
from benchmarks.core.rounds import in_turns, side
from benchmarks.noop.client import run_noops
from benchmarks.noop.everybody import PEERS, SLOTS, everybody
from fleetest.client import AsyncClient

__all__ = ["measure"]

_SLOW: Final = frozenset({"Celery", "dask.distributed"})
"""Peers that are given a fifth of the tasks, so that a round stays short: their rate does not grow with the number."""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Tasks/s of everybody, in turns."""
    count = bench.size(10_000, 500)
    async with everybody(bench) as all_of_them:
        theirs = {
            name: partial(_theirs, peer, count // 5 if name in _SLOW else count)
            for name, peer in all_of_them.peers.items()
        }
        measured = await in_turns(
            {OURS: partial(_ours, all_of_them.client, count), **theirs}, rounds=bench.rounds, say=bench.say
        )
    return [
        Figure(
            name=f"{count:,} no-op tasks, 2 workers",
            unit="tasks/s",
            better=Better.HIGHER,
            ours=side(OURS, "tasks/s", measured),
            peers=tuple(side(name, "tasks/s", measured, all_of_them.missing) for name in PEERS),
            aims=(Aim(limit=3, against=BEST), Aim(limit=5, against=BEST)),
            notes=(
                "Each of our tasks has its own claim, lease, attempt and result in the durable store.",
                f"A worker of ours has {SLOTS} slots: it takes so many tasks in advance, and does one after the other.",
                "The peers keep everything in memory.",
                f"{' and '.join(sorted(_SLOW))} are given {count // 5:,} tasks.",
            ),
        )
    ]


async def _ours(client: AsyncClient, count: int) -> Mapping[str, float]:
    return {"tasks/s": count / await run_noops(client, count)}


async def _theirs(peer: Peer, count: int) -> Mapping[str, float]:
    return {"tasks/s": await peer.many(count)}
