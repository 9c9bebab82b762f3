"""
The shard queue in Redis.

One partition is one hash slot, so that Redis Cluster works. Its keys begin with `fleetest:{partition}:` and hold

==============  ==========  ==============================================================================
entries         hash        id to record (`records.py`) of whatever waits or is claimed
index           sorted set  the same ids, in the order of their bytes: finds a run's entries
queue:NAME      sorted set  what waits for a worker, in the order of `records.py`
delayed         sorted set  id to microseconds, by the masters' clock, at which it joins its queue
claims          sorted set  id to microseconds, by Redis's clock, until which the claim must be confirmed
holders         hash        id to the worker that claimed it, and the field of `fair` that was charged
reservations    hash        id to the worker that keeps room for it, until when, and how much
fair            hash        virtual times and finish tags (`claim.lua`)
queues          hash        NAME to required capabilities
used            sorted set  NAME to seconds at which something was last put in or taken out
version         string      changes whenever a queue comes or goes
uses            hash        NAME to what its entries use of named resources, where they use any
holds           hash        id to what a claimed or leased shard has of named resources (`prelude.lua`)
resources       hash        who has each resource, and who comes next; see `prelude.lua`
==============  ==========  ==============================================================================

Redis must not evict keys: `maxmemory-policy noeviction`, which is its default.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.tasks import Resources
from fleetest.master.queue.capabilities import KnownQueues, canonical, queue_name
from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.partition import Partition, Script
from fleetest.master.queue.ports import Bid, Claim, Claims, QueueEntry, QueuePlace
from fleetest.master.queue.records import (
    Recorded,
    RecordedUse,
    check_entry,
    decode_entry,
    entry_id,
    first_id_after_run,
    first_id_of_run,
    microseconds,
    queue_of,
    record_entry,
    shard_of,
    time_of,
    uses_of,
)

__all__ = ["LOOK_AHEAD", "RedisShardQueue"]

LOOK_AHEAD: Final = 16
"""How many entries that do not fit a claim looks past."""

_BATCH: Final = 500
"""Entries that one script call moves at most, so that it keeps others waiting for milliseconds only."""

_FORGET_QUEUE_AFTER: Final = timedelta(days=1)

_T = TypeVar("_T")


class RedisShardQueue:
    """
    Fulfils `ShardQueue`. Any number of masters may share a partition.

    Args:
        partition: one until a single Redis is too slow; each is a queue of its own.
        claim_ttl: how long a claim waits for its confirmation.
        reserve_after: how long an entry waits before a worker is kept free for it.
        reservation_ttl: how long a worker that does not bid keeps its reservation.
        clock: tells when delays are over and how old entries are; claims expire by Redis's own clock.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        partition: str = "0",
        claim_ttl: timedelta,
        reserve_after: timedelta,
        clock: Clock,
        reservation_ttl: timedelta = timedelta(minutes=5),
    ) -> None:
        self._redis = redis
        self._partition = Partition(redis, partition)
        self._claim_ttl = claim_ttl
        self._reserve_after = reserve_after
        self._reservation_ttl = reservation_ttl
        self._clock = clock
        self._known = KnownQueues()

    async def enqueue(self, entries: Sequence[QueueEntry]) -> None:
        """
        Each batch of 500, and each gang, is atomic; a failure in between leaves whole batches, and the call may be
        repeated.

        Raises:
            InvalidRequest: a priority, cost or weight is out of range; nothing was enqueued.
            DependencyUnavailable: Redis does not answer.
        """
        alone, gangs = entries, list[Sequence[QueueEntry]]()
        if any(entry.gang for entry in entries):
            alone, gangs = [entry for entry in entries if not entry.gang], _gangs(entries)
        for entry in entries:
            check_entry(entry)
        batches = (
            (some, [record_entry(entry, number * _BATCH + index) for index, entry in enumerate(some)])
            for number, some in enumerate(_batches(alone))
        )
        for some, their_records in chain(batches, ((gang, _record_gang(gang)) for gang in gangs)):
            wanted = {each.queue: entry.requirements for entry, each in zip(some, their_records, strict=True)}
            request = {
                "now": self._now(),
                "entries": [
                    (each.identifier, _due(entry), each.queue, each.member, number > 0 and entry.gang > 0)
                    for number, (entry, each) in enumerate(zip(some, their_records, strict=True))
                ],
                "requirements": {name: canonical(requirements) for name, requirements in wanted.items()},
                "uses": {
                    each.queue: msgspec.json.encode(_uses(entry)).decode()
                    for entry, each in zip(some, their_records, strict=True)
                    if entry.uses
                },
            }
            await self._partition.call(Script.ENQUEUE, request, list(wanted), [each.record for each in their_records])

    async def claim(self, bids: Sequence[Bid], *, confirming: Sequence[Claim] = ()) -> Claims:
        if not bids:
            await self.confirm(confirming)
            return Claims()
        while (answer := await self._claim_from(self._known, bids, confirming)) is None:
            self._known = await self._read_known()
        _, numbers = _classes(self._known, bids)
        due, left, gangs, *pairs = answer
        return Claims(
            (
                Claim(entry=decode_entry(raw), worker_id=bids[number - 1].worker_id)
                for number, raw in zip(pairs[::2], pairs[1::2], strict=True)
            ),
            in_vain=frozenset(bid.worker_id for bid, number in zip(bids, numbers, strict=True) if number not in left),
            due_in=None if due is None else max(time_of(int(float(due))) - self._clock.now(), timedelta()),
            gang_waits=bool(gangs),
        )

    async def confirm(self, claims: Sequence[Claim]) -> None:
        for some in _batches(claims):
            await self._partition.call(Script.CONFIRM, {"claims": _held(some)})

    async def release(self, claims: Sequence[Claim]) -> None:
        for some in _batches(claims):
            queues = {_queue_name(claim.entry) for claim in some}
            await self._partition.call(Script.RELEASE, {"claims": _held(some)}, list(queues))

    async def remove(self, run_id: str, shard_ids: Sequence[str] | None = None) -> None:
        shards = await self.waiting(run_id) if shard_ids is None else shard_ids
        for some in _batches([entry_id(run_id, shard_id) for shard_id in shards]):
            queues = await self._queues_of(some)
            await self._partition.call(Script.REMOVE, {"ids": some}, list(queues))

    async def return_expired(self) -> int:
        returned = 0
        while True:
            request = {
                "version": self._known.version,
                "now": self._now(),
                "limit": _BATCH,
                "forget_queue_after": _in_microseconds(_FORGET_QUEUE_AFTER),
            }
            moved: int | None = await self._partition.call(Script.RETURN_DUE, request, self._known.names)
            if moved is None:
                self._known = await self._read_known()
                continue
            returned += moved
            if moved < _BATCH:
                return returned

    async def place(self, run_id: str, shard_id: str) -> QueuePlace | None:
        """As if every project had an equal weight, and had just been served."""
        identifier = entry_id(run_id, shard_id)
        queues = await self._queues_of([identifier])
        found = await self._partition.call(Script.PLACE, {"id": identifier}, list(queues))
        if found is None:
            return None
        position, length, due = found
        ready_at = None if due is None else time_of(int(float(due)))
        return QueuePlace(position=position, queue_length=length, ready_at=ready_at)

    async def waiting(self, run_id: str) -> frozenset[str]:
        low, high = f"[{first_id_of_run(run_id)}", f"({first_id_after_run(run_id)}"
        with redis_errors():
            ids: Any = await self._redis.zrangebylex(self._partition.key("index"), low, high)
        return frozenset(map(shard_of, ids))

    async def count(self, run_id: str) -> int:
        low, high = f"[{first_id_of_run(run_id)}", f"({first_id_after_run(run_id)}"
        with redis_errors():
            return int(await self._redis.zlexcount(self._partition.key("index"), low, high))

    async def depth(self) -> int:
        """Entries that wait, delayed ones included; claimed ones are not."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hlen(self._partition.key("entries"))
                pipeline.zcard(self._partition.key("claims"))
                entries, claims = await pipeline.execute()
        return int(entries - claims)

    async def wakeups(self) -> AsyncGenerator[None, None]:
        """
        The first is told as soon as we listen, and another whenever we had to connect again: what came before then
        is found by claiming.
        """
        backoff = Backoff(first=timedelta(milliseconds=50), longest=timedelta(seconds=2))
        failures = 0
        while True:
            try:
                async with aclosing(self._messages()) as messages:
                    async for _ in messages:
                        failures = 0
                        yield
            except DependencyUnavailable:
                failures += 1
                await asyncio.sleep(backoff.delay(failures).total_seconds())

    async def _messages(self) -> AsyncGenerator[None, None]:
        """
        Every message, among them the answer to our subscription, which the client repeats by itself when it
        connects again: from that answer on nothing is missed.
        """
        with redis_errors():
            async with self._redis.pubsub() as subscription:
                await subscription.subscribe(self._partition.channel)
                while True:
                    if await subscription.get_message(timeout=None) is not None:  # None: a health check
                        yield

    async def _claim_from(
        self, known: KnownQueues, bids: Sequence[Bid], confirming: Sequence[Claim]
    ) -> list[Any] | None:
        classes, numbers = _classes(known, bids)
        request = {
            "version": known.version,
            "now": self._now(),
            "look_ahead": LOOK_AHEAD,
            "due_limit": _BATCH,
            "claim_ttl": _in_microseconds(self._claim_ttl),
            "reserve_after": _in_microseconds(self._reserve_after),
            "reservation_ttl": _in_microseconds(self._reservation_ttl),
            "classes": [{"name": _class_name(queues), "queues": queues} for queues in classes],
            "bids": [_bid(bid, number) for bid, number in zip(bids, numbers, strict=True)],
            "claims": _held(confirming),
            "uses": {name: known.uses[name] for name in known.uses if any(name in queues for queues in classes)},
        }
        answer: list[Any] | None = await self._partition.call(Script.CLAIM, request, sorted(set().union(*classes)))
        return answer

    async def _read_known(self) -> KnownQueues:
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(self._partition.key("version"))
                pipeline.hgetall(self._partition.key("queues"))
                pipeline.hgetall(self._partition.key("uses"))
                version, queues, uses = await pipeline.execute()
        return KnownQueues(
            (version or b"").decode(),
            {name.decode(): msgspec.json.decode(wanted, type=dict[str, str]) for name, wanted in queues.items()},
            {name.decode(): msgspec.json.decode(used, type=list[RecordedUse]) for name, used in uses.items()},
        )

    async def _queues_of(self, ids: Sequence[str]) -> set[str]:
        with redis_errors():
            records: Any = await self._redis.hmget(self._partition.key("entries"), list(ids))
        return {queue_of(raw) for raw in records if raw is not None}

    def _now(self) -> int:
        return microseconds(self._clock.now())


def _uses(entry: QueueEntry) -> tuple[RecordedUse, ...]:
    return uses_of(entry.project, entry.uses, max(entry.gang, 1)) if entry.uses else ()


def _queue_name(entry: QueueEntry) -> str:
    return queue_name(entry.requirements, _uses(entry))


def _gangs(entries: Sequence[QueueEntry]) -> list[Sequence[QueueEntry]]:
    """Each by itself, the one that is due last first: it waits for all of them."""
    gangs = defaultdict[tuple[str, str], list[QueueEntry]](list)
    for entry in entries:
        if entry.gang:
            gangs[entry.run_id, entry.shard_id.rpartition("#")[0]].append(entry)
    return [sorted(gang, key=_due, reverse=True) for gang in gangs.values()]


def _record_gang(gang: Sequence[QueueEntry]) -> list[Recorded]:
    ids = tuple(entry_id(entry.run_id, entry.shard_id) for entry in gang)
    first, *others = gang
    return [record_entry(first, 0, members=ids), *(record_entry(entry, 0, follows=True) for entry in others)]


def _in_microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _due(entry: QueueEntry) -> int:
    return 0 if entry.not_before is None else microseconds(entry.not_before)


def _held(claims: Sequence[Claim]) -> list[tuple[str, str, bool]]:
    return [
        (entry_id(claim.entry.run_id, claim.entry.shard_id), claim.worker_id, bool(claim.entry.uses))
        for claim in claims
    ]


def _classes(known: KnownQueues, bids: Sequence[Bid]) -> tuple[Sequence[tuple[str, ...]], Sequence[int]]:
    """The classes of these bidders, by the queues that they satisfy, and of each bidder the number of its class."""
    satisfied = [known.satisfied_by(bid.capabilities) for bid in bids]
    classes = {queues: number for number, queues in enumerate(dict.fromkeys(satisfied), start=1)}
    return tuple(classes), [classes[queues] for queues in satisfied]


def _class_name(queues: tuple[str, ...]) -> str:
    """Names the class of all workers that satisfy these queues."""
    return queue_name(dict.fromkeys(queues, ""))


def _bid(bid: Bid, worker_class: int) -> dict[str, Any]:
    return {
        "worker": bid.worker_id,
        "class": worker_class,
        "shards": bid.shards,
        "slots": bid.slots,
        "free": _amounts(bid.free),
        "capacity": _amounts(bid.capacity),
        "warm": dict.fromkeys(bid.warm_environment_keys, True),
    }


def _amounts(resources: Resources) -> tuple[int, int, int]:
    return resources.cpu_millis, resources.memory_bytes, resources.disk_bytes


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
