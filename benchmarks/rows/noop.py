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

_SHARES: Final = {"Celery": 10, "dask.distributed": 10, "Ray": 2, "Dramatiq": 2}
"""
What part of the tasks peers are given, so that a round stays short: none of them takes less than three seconds, and
their rates do not grow with the number.
"""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Tasks/s of everybody, in turns."""
    count = bench.size(10_000, 500)
    async with everybody(bench) as all_of_them:
        theirs = {name: partial(_theirs, peer, count // _SHARES[name]) for name, peer in all_of_them.peers.items()}
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
                f"Given: {', '.join(f'{name} {count // share:,} tasks' for name, share in _SHARES.items())}.",
            ),
        )
    ]


async def _ours(client: AsyncClient, count: int) -> Mapping[str, float]:
    return {"tasks/s": count / await run_noops(client, count)}


async def _theirs(peer: Peer, count: int) -> Mapping[str, float]:
    return {"tasks/s": await peer.many(count)}
