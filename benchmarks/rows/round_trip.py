"""One task's round trip on an idle cluster: from its submission until the client holds its result."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from benchmarks.core.bench import Bench
from benchmarks.core.figures import BEST, OURS, Aim, Better, Figure
from benchmarks.core.peer import Peer
from benchmarks.core.rounds import in_turns, side
from benchmarks.noop.client import run_noops
from benchmarks.noop.everybody import PEERS, everybody
from fleetest.client import AsyncClient

__all__ = ["measure"]

_PERCENTILES: Final = (50, 99)


async def measure(bench: Bench) -> Sequence[Figure]:
    """One after the other, so that nobody waits for anybody; percentiles of each round, medians of these."""
    count = bench.size(200, 20)
    async with everybody(bench) as all_of_them:
        theirs = {name: partial(_theirs, peer, count) for name, peer in all_of_them.peers.items()}
        measured = await in_turns(
            {OURS: partial(_ours, all_of_them.client, count), **theirs}, rounds=bench.rounds, say=bench.say
        )
    return [
        Figure(
            name=f"round trip of one task, idle, p{percentile}",
            unit="ms",
            better=Better.LOWER,
            ours=side(OURS, f"p{percentile}", measured),
            peers=tuple(side(name, f"p{percentile}", measured, all_of_them.missing) for name in PEERS),
            aims=(Aim(limit=1, against=BEST),),
            notes=(f"{count} round trips in each round. Ours is a run of its own: submitted, kept, and followed.",),
        )
        for percentile in _PERCENTILES
    ]


async def _ours(client: AsyncClient, count: int) -> Mapping[str, float]:
    return _percentiles([await run_noops(client, 1) for _ in range(count)])


async def _theirs(peer: Peer, count: int) -> Mapping[str, float]:
    return _percentiles(await peer.one(count))


def _percentiles(seconds: Sequence[float]) -> Mapping[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{percentile}": cuts[percentile - 1] * 1000 for percentile in _PERCENTILES}
