"""Tasks handed out a second, by the length of the backlog and by how many capability sets it is made of."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from msgspec.structs import replace
from redis.asyncio import Redis

from benchmarks.core.bench import Bench
from benchmarks.core.figures import Aim, Better, Figure
from benchmarks.core.rounds import in_turns, side
from fleetest.common.clock import SystemClock
from fleetest.common.tasks import Resources
from fleetest.master.queue.connection import connect
from fleetest.master.queue.embedded_redis import EmbeddedRedis
from fleetest.master.queue.ports import Bid, QueueEntry
from fleetest.master.queue.redis_queue import RedisShardQueue

__all__ = ["measure"]

_SETS: Final = (1, 50)
_PROJECTS: Final = 5
_FOR_EVER: Final = timedelta(hours=1)
_CAPABILITIES: Final = {f"capability{number}": "1" for number in range(max(_SETS))}
_ONE: Final = Resources(cpu_millis=1)
_ENQUEUED_AT_ONCE: Final = 10_000
_NEW: Final = itertools.count(10_000_000)
"""Names of shards that take the place of those that were claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """How claims are asked for: so many workers in one call, each for so many shards, so many times."""

    workers: int
    shards: int
    calls: int

    def bids(self) -> list[Bid]:
        """Every worker satisfies every set, which is the dearest case: each claim looks at all of them."""
        room = Resources(cpu_millis=self.shards)
        return [
            Bid(worker_id=str(each), capabilities=_CAPABILITIES, shards=self.shards, free=room, capacity=room)
            for each in range(self.workers)
        ]


_BATCH: Final = _Batch(workers=25, shards=4, calls=40)


async def measure(bench: Bench) -> Sequence[Figure]:
    """Ourselves with a long queue beside ourselves with a short one."""
    short, long = 1_000, bench.size(1_000_000, 20_000)
    with bench.directory() as directory:
        async with EmbeddedRedis(directory / "redis") as server, connect(server.url) as redis:
            queues = {}
            for sets in _SETS:
                for backlog in (short, long):
                    queues[_name(backlog, sets)] = await _filled(redis, backlog, sets)
                    bench.say(f"  {_name(backlog, sets)}: filled")
            sides = {name: partial(_claims, queue) for name, queue in queues.items()}
            measured = await in_turns(sides, rounds=bench.rounds, say=bench.say)
    return [
        Figure(
            name=f"tasks/s with {long:,} queued over {sets} capability set{'s' if sets > 1 else ''}",
            unit="tasks/s",
            better=Better.HIGHER,
            ours=side(_name(long, sets), "tasks/s", measured),
            peers=(side(_name(short, sets), "tasks/s", measured),),
            aims=(Aim(limit=0.9, against=_name(short, sets)),),
            notes=(f"{_BATCH.workers} workers ask for {_BATCH.shards} shards each, in one call.",),
        )
        for sets in _SETS
    ]


def _name(backlog: int, sets: int) -> str:
    return f"{backlog:,} queued, {sets} set{'s' if sets > 1 else ''}"


async def _filled(redis: Redis, backlog: int, sets: int) -> RedisShardQueue:
    """A queue with this backlog, in a partition of its own."""
    queue = RedisShardQueue(
        redis,
        partition=f"{backlog}-{sets}",
        claim_ttl=_FOR_EVER,
        reserve_after=_FOR_EVER,
        clock=SystemClock(),
    )
    for first in range(0, backlog, _ENQUEUED_AT_ONCE):
        await queue.enqueue(list(_entries(range(first, min(first + _ENQUEUED_AT_ONCE, backlog)), sets)))
    return queue


def _entries(numbers: Sequence[int], sets: int) -> Iterator[QueueEntry]:
    """Shards of a few projects, spread evenly over the capability sets."""
    now = datetime.now(UTC)
    for number in numbers:
        yield QueueEntry(
            run_id="run",
            shard_id=str(number),
            project=f"project{number // sets % _PROJECTS}",
            priority=50,
            enqueued_at=now,
            requirements={f"capability{number % sets}": "1"},
            resources=_ONE,
        )


async def _claims(queue: RedisShardQueue) -> Mapping[str, float]:
    """
    Time the claims alone. As many of the same kind are queued after each, so that the backlog is always as long, and as
    mixed, as it is said; what is claimed was never touched since it was queued.
    """
    bids = _BATCH.bids()
    seconds, claimed = 0.0, 0
    for _ in range(_BATCH.calls):
        start = time.perf_counter()
        claims = await queue.claim(bids)
        seconds += time.perf_counter() - start
        if len({claim.entry.shard_id for claim in claims}) != _BATCH.workers * _BATCH.shards:
            raise RuntimeError(f"{len(claims)} claims are not as many as there should be, or not all different")
        claimed += len(claims)
        await queue.confirm(claims)
        now = datetime.now(UTC)
        await queue.enqueue([replace(claim.entry, shard_id=str(next(_NEW)), enqueued_at=now) for claim in claims])
    return {"tasks/s": claimed / seconds}
