"""
How many claims a second the queue serves, by the length of the backlog and the number of its capability sets.

The worker satisfies every set, which is the dearest case: each claim looks at all of them. Cases are measured in
turns, so that a busy machine slows all of them alike.

::

    python benchmarks/queue_claims.py
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis.asyncio import Redis

from fleetest.common.clock import SystemClock
from fleetest.common.tasks import Resources
from fleetest.master.queue.connection import connect
from fleetest.master.queue.embedded_redis import EmbeddedRedis
from fleetest.master.queue.ports import Bid, Claim, QueueEntry
from fleetest.master.queue.redis_queue import RedisShardQueue

ROUNDS = 5
BACKLOGS = (1_000, 100_000)
SETS = (1, 50)
PROJECTS = 5
RUN_SECONDS = timedelta(minutes=10)
CAPABILITIES = {f"capability{number}": "1" for number in range(max(SETS))}
ONE = Resources(cpu_millis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How claims are asked for: so many workers in one call, each for so many shards, so many times."""

    workers: int
    shards: int
    calls: int

    @property
    def claims(self) -> int:
        return self.workers * self.shards

    def bids(self) -> list[Bid]:
        room = Resources(cpu_millis=self.shards)
        return [
            Bid(worker_id=str(each), capabilities=CAPABILITIES, shards=self.shards, free=room, capacity=room)
            for each in range(self.workers)
        ]


BATCHES = (Batch(workers=1, shards=1, calls=100), Batch(workers=25, shards=4, calls=5))


async def main() -> None:
    """Measure every case with every batch, and print the medians."""
    with tempfile.TemporaryDirectory(prefix="fleetest-bench-") as directory:
        async with EmbeddedRedis(Path(directory)) as server, connect(server.url) as redis:
            queues = {(backlog, sets): await filled(redis, backlog, sets) for sets in SETS for backlog in BACKLOGS}
            for batch in BATCHES:
                samples: dict[tuple[int, int], list[float]] = {case: [] for case in queues}
                for _ in range(ROUNDS):
                    for case, queue in queues.items():
                        samples[case].append(await claims_per_second(queue, batch))
                report(batch, {case: statistics.median(values) for case, values in samples.items()})


async def filled(redis: Redis, backlog: int, sets: int) -> RedisShardQueue:
    """A queue with this backlog, of this number of capability sets, in a partition of its own."""
    queue = RedisShardQueue(
        redis,
        partition=f"{backlog}-{sets}",
        claim_ttl=RUN_SECONDS,
        reserve_after=RUN_SECONDS,
        clock=SystemClock(),
    )
    await queue.enqueue(list(entries(backlog, sets)))
    return queue


def entries(backlog: int, sets: int) -> Iterator[QueueEntry]:
    """Shards of a few projects, spread evenly over the capability sets."""
    now = datetime.now(UTC)
    for number in range(backlog):
        yield QueueEntry(
            run_id="run",
            shard_id=str(number),
            project=f"project{number // sets % PROJECTS}",
            priority=50,
            enqueued_at=now,
            requirements={f"capability{number % sets}": "1"},
            resources=ONE,
        )


async def claims_per_second(queue: RedisShardQueue, batch: Batch) -> float:
    """Time the claims alone; they are released afterwards, so that the backlog stays as it is."""
    claims: list[Claim] = []
    bids = batch.bids()
    start = time.perf_counter()
    for _ in range(batch.calls):
        claims += await queue.claim(bids)
    elapsed = time.perf_counter() - start
    assert len(claims) == batch.claims * batch.calls
    await queue.release(claims)
    return len(claims) / elapsed


def report(batch: Batch, medians: dict[tuple[int, int], float]) -> None:
    """One row for each case."""
    print(f"\n{batch.claims} claims a call ({batch.workers} workers, {batch.shards} shards each)")
    print(f"{'sets':>6} {'queued':>9} {'claims/s':>10} {'against the shortest backlog':>30}")
    for (backlog, sets), value in medians.items():
        ratio = value / medians[BACKLOGS[0], sets]
        print(f"{sets:>6} {backlog:>9,} {value:>10,.0f} {ratio:>30.2f}")


if __name__ == "__main__":
    asyncio.run(main())
