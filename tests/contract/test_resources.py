"""What every shard queue and its ledger promise of named resources. An adapter joins by adding itself to `ADAPTERS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from fleetest.common.clock import ManualClock
from fleetest.common.tasks import Access, Resources, Use
from fleetest.master.queue.connection import connect
from fleetest.master.queue.ports import Bid, Claim, QueueEntry, ResourceHold, ResourceLedger, ShardQueue
from fleetest.master.queue.redis_ledger import RedisResourceLedger
from fleetest.master.queue.redis_queue import LOOK_AHEAD, RedisShardQueue

OpenQueue = Callable[..., ShardQueue]

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SHARED, EXCLUSIVE = Access.SHARED, Access.EXCLUSIVE

ADAPTERS: dict[str, tuple[Callable[..., ShardQueue], Callable[..., ResourceLedger]]] = {
    "redis": (RedisShardQueue, RedisResourceLedger)
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(params=sorted(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> tuple[Callable[..., ShardQueue], Callable[..., ResourceLedger]]:
    return ADAPTERS[request.param]


@pytest.fixture
def open_queue(adapter: Any, redis: Redis, clock: ManualClock) -> OpenQueue:
    def open_one(**changes: timedelta) -> ShardQueue:
        queue: ShardQueue = adapter[0](
            redis, clock=clock, **{"claim_ttl": MINUTE, "reserve_after": 5 * MINUTE, **changes}
        )
        return queue

    return open_one


@pytest.fixture
def queue(open_queue: OpenQueue) -> ShardQueue:
    return open_queue()


@pytest.fixture
async def ledger(adapter: Any, redis: Redis) -> ResourceLedger:
    ledger: ResourceLedger = adapter[1](redis)
    await ledger.restore([], recovery=await ledger.recover())
    return ledger


def use(access: Access | int, resource: str = "shop", *, size: int = 5) -> Use:
    if isinstance(access, int):
        return Use(resource=resource, access=Access.COUNTED, amount=access, size=size)
    return Use(resource=resource, access=access)


def entry(shard_id: str, *uses: Use, **changes: Any) -> QueueEntry:
    defaults: dict[str, Any] = {"run_id": "run", "project": "site", "priority": 50, "enqueued_at": NOON}
    return QueueEntry(shard_id=shard_id, uses=uses, **(defaults | changes))


def bid(worker_id: str = "w", *, shards: int = 100, **changes: Any) -> Bid:
    room = Resources(cpu_millis=1000)
    return Bid(worker_id=worker_id, shards=shards, **({"capabilities": {}, "free": room, "capacity": room} | changes))


def shards_of(claims: Sequence[Claim]) -> list[str]:
    return [claim.entry.shard_id for claim in claims]


def hold(claim: Claim, token: int) -> ResourceHold:
    each = claim.entry
    return ResourceHold(run_id=each.run_id, shard_id=each.shard_id, token=token, project=each.project, uses=each.uses)


async def begin(ledger: ResourceLedger, claims: Sequence[Claim], *, token: int = 7) -> Sequence[ResourceHold]:
    """The attempts' commits are durable."""
    return await ledger.keep([hold(claim, token) for claim in claims], [claim.worker_id for claim in claims])


async def held(ledger: ResourceLedger) -> dict[str, int]:
    return {each.shard_id: each.token for each in (await ledger.view()).holds}


# Who keeps out whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (use(SHARED), use(SHARED), True),
        (use(SHARED), use(EXCLUSIVE), False),
        (use(EXCLUSIVE), use(SHARED), False),
        (use(EXCLUSIVE), use(EXCLUSIVE), False),
        (use(EXCLUSIVE), use(EXCLUSIVE, "depot"), True),
        (use(3), use(2), True),
        (use(3), use(3), False),
        (use(EXCLUSIVE), use(1), False),
        (use(1), use(EXCLUSIVE), False),
    ],
)
async def test_two_tasks_run_together_only_if_neither_keeps_out_the_other(
    queue: ShardQueue, ledger: ResourceLedger, first: Use, second: Use, *, together: bool
) -> None:
    await queue.enqueue([entry("a#0", first), entry("b#0", second, enqueued_at=NOON + MINUTE)])

    claims = await queue.claim([bid()])

    assert shards_of(claims) == (["a#0", "b#0"] if together else ["a#0"])
    await begin(ledger, claims)
    assert shards_of(await queue.claim([bid()])) == []

    await ledger.give_back([hold(claims[0], 7)])

    assert shards_of(await queue.claim([bid()])) == ([] if together else ["b#0"])


async def test_shards_of_one_task_share_what_it_has_exclusively(queue: ShardQueue, ledger: ResourceLedger) -> None:
    alone = use(EXCLUSIVE)
    await queue.enqueue([entry("a#0", alone), entry("a#1", alone), entry("a#0", alone, run_id="other")])

    first = await queue.claim([bid(shards=1)])
    second = await queue.claim([bid()])
    await begin(ledger, [*first, *second])
    await ledger.give_back([hold(first[0], 7)])

    assert (shards_of(first), shards_of(second)) == (["a#0"], ["a#1"])
    assert await queue.claim([bid()]) == []


async def test_each_shard_takes_its_own_of_a_pool(queue: ShardQueue, ledger: ResourceLedger) -> None:
    await queue.enqueue([entry(f"a#{i}", use(2)) for i in range(4)])

    claims = await queue.claim([bid()])

    assert shards_of(claims) == ["a#0", "a#1"]


async def test_a_project_has_resources_of_its_own_and_the_cluster_has_others(
    queue: ShardQueue, ledger: ResourceLedger
) -> None:
    own, common = use(EXCLUSIVE), use(EXCLUSIVE, "cluster/depot")
    await queue.enqueue([entry("a#0", own), entry("b#0", own, project="desk/s")])
    await queue.enqueue([entry("c#0", common), entry("d#0", common, project="desk/s")])

    claims = await queue.claim([bid()])

    assert len(claims) == 3
    assert {"a#0", "b#0"} < set(shards_of(claims))
    assert {(each.project, *each.uses) for each in (await ledger.view()).holds} >= {("site", own), ("desk/s", own)}


async def test_a_task_that_uses_two_takes_both_or_none(queue: ShardQueue, ledger: ResourceLedger) -> None:
    await queue.enqueue([entry("a#0", use(EXCLUSIVE, "depot"))])
    await begin(ledger, await queue.claim([bid()]))
    await queue.enqueue([entry("b#0", use(EXCLUSIVE), use(EXCLUSIVE, "depot")), entry("c#0", use(EXCLUSIVE))])

    assert shards_of(await queue.claim([bid()])) == ["c#0"]


# Others do not wait ------------------------------------------------------------------------------------------------


async def test_those_that_wait_for_a_resource_are_in_nobodys_way(queue: ShardQueue, ledger: ResourceLedger) -> None:
    await queue.enqueue([entry("owner#0", use(EXCLUSIVE))])
    await begin(ledger, await queue.claim([bid()]))
    await queue.enqueue([entry(f"blocked#{i}", use(EXCLUSIVE), priority=99) for i in range(5 * LOOK_AHEAD)])
    await queue.enqueue([entry("free#0", enqueued_at=NOON + MINUTE), entry("other#0", use(SHARED, "depot"))])

    claims = await queue.claim([bid()])

    assert sorted(shards_of(claims)) == ["free#0", "other#0"]
    assert claims.in_vain == {"w"}


async def test_a_lower_priority_is_looked_at_behind_many_that_wait_for_the_same(
    queue: ShardQueue, ledger: ResourceLedger
) -> None:
    await queue.enqueue([entry("owner#0", use(EXCLUSIVE))])
    await begin(ledger, await queue.claim([bid()]))
    await queue.enqueue([entry(f"blocked#{i}", use(EXCLUSIVE), priority=99) for i in range(5 * LOOK_AHEAD)])
    await queue.enqueue([entry("owner#1", use(EXCLUSIVE), priority=1)])

    assert shards_of(await queue.claim([bid()])) == ["owner#1"]


async def test_giving_back_wakes_those_who_wait(queue: ShardQueue, ledger: ResourceLedger) -> None:
    await queue.enqueue([entry("a#0", use(EXCLUSIVE))])
    claims = await queue.claim([bid()])
    await begin(ledger, claims)
    wakeups = queue.wakeups()
    await anext(wakeups)

    await ledger.give_back([hold(claims[0], 7)])

    await anext(wakeups)


# Order -------------------------------------------------------------------------------------------------------------


async def wait_for_long(queue: ShardQueue, ledger: ResourceLedger, clock: ManualClock) -> Claim:
    """Afterwards `load` has waited for long for what `reader#0` shares."""
    await queue.enqueue([entry("reader#0", use(SHARED))])
    [reader] = await queue.claim([bid()])
    await begin(ledger, [reader])
    await queue.enqueue([entry("load#0", use(EXCLUSIVE)), entry("load#1", use(EXCLUSIVE))])
    clock.advance(6 * MINUTE)
    return reader


async def test_a_stream_of_those_who_share_does_not_starve_who_wants_it_alone(
    queue: ShardQueue, ledger: ResourceLedger, clock: ManualClock
) -> None:
    reader = await wait_for_long(queue, ledger, clock)
    late = [entry(f"late#{i}", use(SHARED), enqueued_at=clock.now()) for i in range(3)]
    await queue.enqueue([*late, entry("free#0", enqueued_at=clock.now())])

    assert shards_of(await queue.claim([bid()])) == ["free#0"]
    assert (await ledger.view()).first_in_line == {("site", "shop"): ("run", "load")}

    await ledger.give_back([hold(reader, 7)])
    load = await queue.claim([bid()])

    assert shards_of(load) == ["load#0", "load#1"]
    assert (await ledger.view()).first_in_line == {}
    await begin(ledger, load)
    await ledger.give_back([hold(each, 7) for each in load])
    assert shards_of(await queue.claim([bid()])) == ["late#0", "late#1", "late#2"]


async def test_a_higher_priority_goes_before_who_is_first_in_line(
    queue: ShardQueue, ledger: ResourceLedger, clock: ManualClock
) -> None:
    await wait_for_long(queue, ledger, clock)
    assert await queue.claim([bid()]) == []
    await queue.enqueue([entry("urgent#0", use(SHARED), priority=51, enqueued_at=clock.now())])

    assert shards_of(await queue.claim([bid()])) == ["urgent#0"]


async def test_nobody_lines_up_before_it_is_aged_or_without_a_worker_that_is_large_enough(
    queue: ShardQueue, ledger: ResourceLedger, clock: ManualClock
) -> None:
    huge = Resources(cpu_millis=10**6)
    await queue.enqueue([entry("reader#0", use(SHARED))])
    await begin(ledger, await queue.claim([bid()]))
    await queue.enqueue([entry("load#0", use(EXCLUSIVE), resources=huge)])
    clock.advance(6 * MINUTE)
    await queue.enqueue([entry("young#0", use(EXCLUSIVE), enqueued_at=clock.now())])
    await queue.enqueue([entry("late#0", use(SHARED), enqueued_at=clock.now())])

    assert shards_of(await queue.claim([bid()])) == ["late#0"]


async def test_who_is_first_in_line_keeps_nobody_out_once_it_is_removed(
    queue: ShardQueue, ledger: ResourceLedger, clock: ManualClock
) -> None:
    await wait_for_long(queue, ledger, clock)
    await queue.claim([bid()])
    await queue.enqueue([entry("late#0", use(SHARED), enqueued_at=clock.now())])

    await queue.remove("run", ["load#0", "load#1"])

    assert shards_of(await queue.claim([bid()])) == ["late#0"]


async def test_two_that_want_the_same_two_alone_do_not_wait_for_one_another(
    queue: ShardQueue, ledger: ResourceLedger, clock: ManualClock
) -> None:
    shop, depot = use(EXCLUSIVE), use(EXCLUSIVE, "depot")
    await queue.enqueue([entry("s#0", shop), entry("d#0", depot)])
    shop_owner, depot_owner = sorted(await queue.claim([bid()]), key=lambda claim: claim.entry.shard_id, reverse=True)
    await begin(ledger, [shop_owner, depot_owner])
    await queue.enqueue([entry("x#0", shop, depot), entry("y#0", depot, shop, use(SHARED, "z"))])
    clock.advance(6 * MINUTE)
    assert await queue.claim([bid()]) == []

    await ledger.give_back([hold(shop_owner, 7), hold(depot_owner, 7)])

    assert shards_of(await queue.claim([bid()])) == ["x#0"]


# Ends --------------------------------------------------------------------------------------------------------------


async def test_a_claim_that_comes_to_nothing_gives_back_what_it_took(
    open_queue: OpenQueue, ledger: ResourceLedger
) -> None:
    ours, theirs = open_queue(claim_ttl=timedelta(0)), open_queue()
    await ours.enqueue([entry("a#0", use(EXCLUSIVE))])

    claims = await ours.claim([bid()])
    await theirs.release(claims)
    assert await held(ledger) == {}
    claims = await ours.claim([bid()])
    await theirs.return_expired()
    assert await held(ledger) == {}
    claims = await ours.claim([bid()])
    await theirs.remove("run")
    assert await held(ledger) == {}
    await ours.enqueue([entry("a#0", use(EXCLUSIVE))])
    await theirs.confirm(await ours.claim([bid()]))
    assert await held(ledger) == {}


async def test_an_attempt_whose_claim_has_run_out_holds_nothing(open_queue: OpenQueue, ledger: ResourceLedger) -> None:
    ours, theirs = open_queue(claim_ttl=timedelta(0)), open_queue()
    await ours.enqueue([entry("a#0", use(EXCLUSIVE)), entry("b#0", use(EXCLUSIVE), enqueued_at=NOON + MINUTE)])
    late = await ours.claim([bid()])
    await theirs.return_expired()
    await theirs.remove("run", ["a#0"])
    await begin(ledger, await theirs.claim([bid("v")]), token=3)

    assert await begin(ledger, late) == []
    assert await held(ledger) == {"b#0": 3}


async def test_a_claim_without_an_attempt_is_forgotten_with_what_it_took(
    queue: ShardQueue, ledger: ResourceLedger
) -> None:
    await queue.enqueue([entry("a#0", use(EXCLUSIVE))])

    assert await begin(ledger, await queue.claim([bid()]), token=0) == []

    assert (await held(ledger), await queue.waiting("run")) == ({}, frozenset())


async def test_what_a_later_attempt_holds_is_not_given_back_for_an_earlier_one(
    queue: ShardQueue, ledger: ResourceLedger
) -> None:
    await queue.enqueue([entry("a#0", use(EXCLUSIVE))])
    claims = await queue.claim([bid()])
    await begin(ledger, claims, token=9)

    await ledger.give_back([hold(claims[0], 7)])

    assert await held(ledger) == {"a#0": 9}


# After a loss ------------------------------------------------------------------------------------------------------


async def test_nobody_is_given_a_resource_before_it_is_known_who_has_it(
    queue: ShardQueue, ledger: ResourceLedger, redis: Redis
) -> None:
    alone = use(EXCLUSIVE)
    await redis.flushall()
    await queue.enqueue([entry("b#0", alone), entry("free#0")])
    assert shards_of(await queue.claim([bid()])) == ["free#0"]

    recovery = await ledger.recover()
    lives = ResourceHold(run_id="run", shard_id="a#0", token=4, project="site", uses=(alone,))
    assert await ledger.restore([lives], recovery=recovery)

    assert (await ledger.view()).known
    assert await queue.claim([bid()]) == []
    await ledger.give_back([lives])
    assert shards_of(await queue.claim([bid()])) == ["b#0"]


async def test_a_search_that_began_before_a_second_loss_counts_for_nothing(
    queue: ShardQueue, ledger: ResourceLedger, redis: Redis
) -> None:
    recovery = await ledger.recover()
    await redis.flushall()

    assert not await ledger.restore([], recovery=recovery)

    assert not (await ledger.view()).known


async def test_what_is_held_already_is_not_held_twice(queue: ShardQueue, ledger: ResourceLedger) -> None:
    await queue.enqueue([entry("a#0", use(3))])
    claims = await queue.claim([bid()])
    await begin(ledger, claims)

    await ledger.restore([hold(claims[0], 7)])
    await ledger.give_back([hold(claims[0], 7)])
    await queue.enqueue([entry("b#0", use(5))])

    assert shards_of(await queue.claim([bid()])) == ["b#0"]


# At large ----------------------------------------------------------------------------------------------------------

_USES = st.one_of(st.sampled_from([SHARED, EXCLUSIVE]), st.integers(1, 5))
_ENTRIES = st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 2), _USES, st.booleans())
_STEPS = st.lists(
    st.tuples(st.sampled_from(["enqueue", "enqueue", "claim", "keep", "end", "expire", "remove"]), _ENTRIES),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_never_exclusive_together_with_anything_and_never_more_than_there_are(
    adapter: Any, redis_url: str, steps: Sequence[Any]
) -> None:
    async with connect(redis_url) as redis:
        await redis.flushall()
        clock = ManualClock(NOON)
        masters = [adapter[0](redis, clock=clock, claim_ttl=timedelta(0), reserve_after=MINUTE) for _ in range(2)]
        ledger: ResourceLedger = adapter[1](redis)
        await ledger.restore([], recovery=await ledger.recover())
        walk = Walk(masters, ledger, clock)

        for number, (step, values) in enumerate(steps):
            await walk.step(step, number, values)
            walk.check()
            assert await held(ledger) == walk.held()

        await walk.finish()


class Walk:
    """Does what masters do with tasks that use resources, and keeps account of who should have what."""

    def __init__(self, masters: Sequence[ShardQueue], ledger: ResourceLedger, clock: ManualClock) -> None:
        self.masters = masters
        self.ledger = ledger
        self.clock = clock
        self.known: dict[str, QueueEntry] = {}
        self.claimed: dict[str, Claim] = {}
        self.live: dict[str, Claim] = {}
        self.tokens: dict[str, int] = {}
        self.token = 0

    async def step(self, step: str, number: int, values: tuple[int, int, int, Access | int, bool]) -> None:
        task, shard, worker, how, both = values
        queue = self.masters[number % 2]
        self.clock.advance(timedelta(seconds=7 * worker))
        match step:
            case "enqueue":
                uses = (use(how), use(SHARED, "cluster/depot")) if both else (use(how),)
                await self.enqueue(queue, task, entry(f"t{task}#{shard}", *uses, priority=50 + worker))
            case "claim":
                claims = await queue.claim([bid(f"w{worker}", shards=shard + 1)])
                self.claimed |= {claim.entry.shard_id: claim for claim in claims}
            case "keep":
                await self.keep()
            case "end":
                for shard_id in [each for each in self.live if each.startswith(f"t{task}#")]:
                    await self.end(shard_id)
            case "expire":
                await queue.return_expired()
                self.claimed.clear()
            case _:
                await self.remove(queue, [each for each in self.known if each.startswith(f"t{task}#")])

    async def enqueue(self, queue: ShardQueue, task: int, added: QueueEntry) -> None:
        others = self.all_of(task)
        if added.shard_id not in {each.shard_id for each in others} and all(each.uses == added.uses for each in others):
            self.known[added.shard_id] = msgspec.structs.replace(added, enqueued_at=self.clock.now())
            await queue.enqueue([self.known[added.shard_id]])

    async def remove(self, queue: ShardQueue, gone: Sequence[str]) -> None:
        await queue.remove("run", gone)
        for shard_id in gone:
            del self.known[shard_id]
            self.claimed.pop(shard_id, None)

    def all_of(self, task: int) -> list[QueueEntry]:
        everything = [*self.known.values(), *(claim.entry for claim in self.live.values())]
        return [each for each in everything if each.shard_id.startswith(f"t{task}#")]

    async def keep(self) -> None:
        self.token += 1
        kept = await begin(self.ledger, list(self.claimed.values()), token=self.token)
        assert len(kept) == len(self.claimed)
        for shard_id in self.claimed:
            del self.known[shard_id]
        self.live |= self.claimed
        self.tokens |= dict.fromkeys(self.claimed, self.token)
        self.claimed.clear()

    async def end(self, shard_id: str) -> None:
        await self.ledger.give_back([hold(self.live.pop(shard_id), self.tokens.pop(shard_id))])

    def held(self) -> dict[str, int]:
        return {**dict.fromkeys(self.claimed, 0), **{shard_id: self.tokens[shard_id] for shard_id in self.live}}

    def check(self) -> None:
        users = [claim.entry for claim in [*self.claimed.values(), *self.live.values()]]
        taken = Counter[Access]()
        tasks: dict[Access, set[str]] = {access: set() for access in Access}
        for each in users:
            taken[each.uses[0].access] += each.uses[0].amount
            tasks[each.uses[0].access].add(each.shard_id.partition("#")[0])
        assert taken[Access.COUNTED] <= 5
        assert not tasks[EXCLUSIVE] or (len(tasks[EXCLUSIVE]) == 1 and not tasks[SHARED] | tasks[Access.COUNTED])

    async def finish(self) -> None:
        """Whatever was left comes to its end: nothing waits for ever."""
        await self.masters[0].return_expired()
        self.claimed.clear()
        while self.known or self.live:
            for shard_id in list(self.live):
                await self.end(shard_id)
            for claim in await self.masters[1].claim([bid()]):
                self.claimed[claim.entry.shard_id] = claim
            assert self.claimed or not self.known
            await self.keep()
        assert await held(self.ledger) == {}
