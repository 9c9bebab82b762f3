"""
The shard queue in Redis.

One partition is one hash slot, so that Redis Cluster works. Its keys begin with `fleetest:{partition}:` and the version
of their layout, and hold

==============  ==========  ==============================================================================
entries         hash        id to record (`records.py`) of whatever waits or is claimed
index:RUN       set         those of these ids that are of one run
queue:NAME      sorted set  what waits for a worker, in the order of `records.py`; NAME is SET:project
delayed         sorted set  id to microseconds, by the masters' clock, at which it joins its queue
claims          sorted set  ids that were claimed at once to microseconds, by Redis's clock, until which they must be
                            confirmed; those that are meanwhile stay there until then
holders         hash        id to the worker that claimed it, the field of `fair` that was charged, and the same time
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
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.tasks import Resources
from fleetest.master.queue.capabilities import KnownQueues, canonical, class_name, queue_name
from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.partition import Partition, Script
from fleetest.master.queue.ports import Bid, Claim, Claims, QueueEntry, QueuePlace
from fleetest.master.queue.records import (
    RecordedUse,
    are_of_one_kind,
    check_entry,
    decode_entry,
    entry_id,
    members_of,
    microseconds,
    queue_of,
    record_kind,
    run_key,
    shard_of,
    time_of,
    uses_of,
)

__all__ = ["LOOK_AHEAD", "RedisShardQueue"]

LOOK_AHEAD: Final = 16
"""How many entries that do not fit a claim looks past."""

_BATCH: Final = 500
"""Entries that one script call moves at most, so that it keeps others waiting for milliseconds only."""

_LOTS: Final = 20
"""Claims of earlier calls that one script call looks through at most."""

_FORGET_QUEUE_AFTER: Final = timedelta(minutes=2)
"""A claim looks at all queues that there are; one that comes again has their list read once more."""

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
        Each batch of 500 of a run, and each gang, is atomic; a failure in between leaves whole batches, and the call
        may be repeated.

        Raises:
            InvalidRequest: a priority, cost or weight is out of range; nothing was enqueued.
            DependencyUnavailable: Redis does not answer.
        """
        for entry in entries:
            check_entry(entry)
        alone, gangs = entries, list[Sequence[QueueEntry]]()
        if any(entry.gang for entry in entries):
            alone, gangs = [entry for entry in entries if not entry.gang], _gangs(entries)
        for of_run in _by_run(alone):
            for some in _batches(of_run):
                places, batch = zip(*some, strict=True)
                await self._put(batch, _kinds(batch), places)
        for gang in gangs:
            await self._put(gang, _kinds_of_gang(gang), [0] * len(gang))

    async def _put(self, entries: Sequence[QueueEntry], kinds: Sequence[bytes], places: Sequence[int]) -> None:
        """In one script. `kinds` are those of the entries, `places` their places among those of the same age."""
        of_kind = dict(zip(kinds, entries, strict=True))
        numbers = {kind: number for number, kind in enumerate(of_kind, start=1)}
        wanted = {_queue_name(entry): entry for entry in of_kind.values()}
        run = run_key(entries[0].run_id)
        request = {
            "run": run,
            "now": self._now(),
            "members": members_of(entries, places),
            "numbers": [numbers[kind] for kind in kinds],
            "requirements": {name: canonical(entry.requirements) for name, entry in wanted.items()},
            "uses": {name: msgspec.json.encode(_uses(entry)).decode() for name, entry in wanted.items() if entry.uses},
        }
        await self._partition.call(Script.ENQUEUE, request, queues=list(wanted), runs=[run], kinds=list(of_kind))

    async def claim(self, bids: Sequence[Bid], *, confirming: Sequence[Claim] = ()) -> Claims:
        if not bids:
            await self.confirm(confirming)
            return Claims()
        while True:
            classes, numbers = _classes(self._known, bids)
            answer = await self._claim_from(classes, numbers, bids, confirming)
            if answer is not None:
                break
            self._known = await self._read_known()
        due, left, gangs, kinds, *triples = answer
        return Claims(
            (
                Claim(
                    entry=decode_entry(member, kinds[kind - 1]),
                    worker_id=bids[abs(number) - 1].worker_id,
                    follows=number < 0,
                )
                for number, member, kind in zip(triples[::3], triples[1::3], triples[2::3], strict=True)
            ),
            in_vain=frozenset(bid.worker_id for bid, number in zip(bids, numbers, strict=True) if number not in left),
            due_in=None if due is None else max(time_of(int(float(due))) - self._clock.now(), timedelta()),
            gang_waits=bool(gangs),
        )

    async def confirm(self, claims: Sequence[Claim]) -> None:
        for some in _batches(claims):
            held = _held(some)
            await self._partition.call(Script.CONFIRM, {"claims": held}, runs=_runs(held))

    async def release(self, claims: Sequence[Claim]) -> None:
        for some in _batches(claims):
            queues = {_queue_name(claim.entry) for claim in some}
            held = [(entry_id(claim.entry.run_id, claim.entry.shard_id), claim.worker_id) for claim in some]
            await self._partition.call(Script.RELEASE, {"claims": held}, queues=list(queues))

    async def remove(self, run_id: str, shard_ids: Sequence[str] | None = None) -> None:
        shards = await self.waiting(run_id) if shard_ids is None else shard_ids
        for some in _batches([entry_id(run_id, shard_id) for shard_id in shards]):
            queues = await self._queues_of(some)
            request = {"run": run_key(run_id), "ids": some}
            await self._partition.call(Script.REMOVE, request, queues=list(queues), runs=[run_key(run_id)])

    async def return_expired(self) -> int:
        returned = 0
        while True:
            request = {
                "version": self._known.version,
                "now": self._now(),
                "limit": _BATCH,
                "lots": _LOTS,
                "forget_queue_after": _in_microseconds(_FORGET_QUEUE_AFTER),
            }
            answer: tuple[int, int] | None = await self._partition.call(
                Script.RETURN_DUE, request, queues=self._known.names
            )
            if answer is None:
                self._known = await self._read_known()
                continue
            moved, more = answer
            returned += moved
            if not more:
                return returned

    async def place(self, run_id: str, shard_id: str) -> QueuePlace | None:
        """Among what needs the same, as if every project had an equal weight, and had just been served."""
        identifier = entry_id(run_id, shard_id)
        found: Any = 0
        for queue in await self._queues_of([identifier]):
            while found == 0:
                request = {"id": identifier, "version": self._known.version}
                found = await self._partition.call(Script.PLACE, request, queues=self._known.like(queue))
                if found == 0:
                    self._known = await self._read_known()
        if not found:
            return None
        position, length, due = found
        ready_at = None if due is None else time_of(int(float(due)))
        return QueuePlace(position=position, queue_length=length, ready_at=ready_at)

    async def waiting(self, run_id: str) -> frozenset[str]:
        with redis_errors():
            ids: Any = await self._redis.smembers(self._partition.index(run_key(run_id)))
        return frozenset(map(shard_of, ids))

    async def count(self, run_id: str) -> int:
        with redis_errors():
            return int(await self._redis.scard(self._partition.index(run_key(run_id))))

    async def depth(self) -> int:
        """Entries that wait, delayed ones included; claimed ones are not."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hlen(self._partition.key("entries"))
                pipeline.hlen(self._partition.key("holders"))
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
        self,
        classes: Sequence[tuple[str, ...]],
        numbers: Sequence[int],
        bids: Sequence[Bid],
        confirming: Sequence[Claim],
    ) -> list[Any] | None:
        known, held = self._known, _held(confirming)
        queues = sorted(set().union(*classes))
        number_of = {name: number for number, name in enumerate(queues, start=1)}
        request = {
            "version": known.version,
            "now": self._now(),
            "look_ahead": LOOK_AHEAD,
            "due_limit": _BATCH,
            "claim_ttl": _in_microseconds(self._claim_ttl),
            "reserve_after": _in_microseconds(self._reserve_after),
            "reservation_ttl": _in_microseconds(self._reservation_ttl),
            "classes": [
                {"name": class_name(names), "queues": [number_of[name] for name in names]} for names in classes
            ],
            "bids": [_bid(bid, number) for bid, number in zip(bids, numbers, strict=True)],
            "claims": held,
            "uses": {name: known.uses[name] for name in known.uses if name in number_of},
        }
        answer: list[Any] | None = await self._partition.call(Script.CLAIM, request, queues=queues, runs=_runs(held))
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
    return queue_name(entry.requirements, entry.project, _uses(entry))


def _by_run(entries: Sequence[QueueEntry]) -> Iterable[Sequence[tuple[int, QueueEntry]]]:
    """With their places among all."""
    of_runs = defaultdict[str, list[tuple[int, QueueEntry]]](list)
    for place, entry in enumerate(entries):
        of_runs[entry.run_id].append((place, entry))
    return of_runs.values()


def _gangs(entries: Sequence[QueueEntry]) -> list[Sequence[QueueEntry]]:
    """Each by itself, the one that is due last first: it waits for all of them."""
    gangs = defaultdict[tuple[str, str], list[QueueEntry]](list)
    for entry in entries:
        if entry.gang:
            gangs[entry.run_id, entry.shard_id.rpartition("#")[0]].append(entry)
    return [sorted(gang, key=_due, reverse=True) for gang in gangs.values()]


def _kinds(entries: Sequence[QueueEntry]) -> list[bytes]:
    """Those of one kind mostly come one after the other."""
    kinds: list[bytes] = []
    for last, entry in zip([None, *entries], entries, strict=False):
        alike = last is not None and are_of_one_kind(last, entry)
        kinds.append(kinds[-1] if alike else record_kind(entry))
    return kinds


def _kinds_of_gang(gang: Sequence[QueueEntry]) -> list[bytes]:
    ids = tuple(entry_id(entry.run_id, entry.shard_id) for entry in gang)
    first, *others = gang
    return [record_kind(first, members=ids), *(record_kind(entry, follows=True) for entry in others)]


def _in_microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _due(entry: QueueEntry) -> int:
    return 0 if entry.not_before is None else microseconds(entry.not_before)


def _held(claims: Sequence[Claim]) -> list[tuple[str, str, list[str], list[str]]]:
    """By run and worker: the ids of the entries, and of those that use anything."""
    held: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for claim in claims:
        entry = claim.entry
        ids, users = held.setdefault((entry.run_id, claim.worker_id), ([], []))
        ids.append(entry_id(entry.run_id, entry.shard_id))
        if entry.uses:
            users.append(ids[-1])
    return [(run_key(run_id), worker_id, ids, users) for (run_id, worker_id), (ids, users) in held.items()]


def _runs(held: Sequence[tuple[str, str, list[str], list[str]]]) -> list[str]:
    return list(dict.fromkeys(run for run, *_ in held))


def _classes(known: KnownQueues, bids: Sequence[Bid]) -> tuple[Sequence[tuple[str, ...]], Sequence[int]]:
    """The classes of these bidders, by the queues that they satisfy, and of each bidder the number of its class."""
    satisfied = [known.satisfied_by(bid.capabilities) for bid in bids]
    classes = {queues: number for number, queues in enumerate(dict.fromkeys(satisfied), start=1)}
    return tuple(classes), [classes[queues] for queues in satisfied]


def _bid(bid: Bid, worker_class: int) -> dict[str, Any]:
    return {
        "worker": bid.worker_id,
        "class": worker_class,
        "shards": bid.shards,
        "slots": bid.slots,
        "free": _amounts(bid.free),
        "capacity": _amounts(bid.capacity),
        "warm": dict.fromkeys(bid.warm_environment_keys, True),
        "ahead": bid.ahead,
    }


def _amounts(resources: Resources) -> tuple[int, int, int]:
    return resources.cpu_millis, resources.memory_bytes, resources.disk_bytes


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
