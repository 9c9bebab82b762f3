"""What every shard queue promises. An adapter joins by adding how it is opened to `ADAPTERS`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from fleetest.common.clock import ManualClock
from fleetest.common.errors import InvalidRequest
from fleetest.common.tasks import Resources
from fleetest.master.queue.ports import Bid, Claim, QueueEntry, QueuePlace, ShardQueue
from fleetest.master.queue.redis_queue import LOOK_AHEAD, RedisShardQueue

OpenQueue = Callable[..., ShardQueue]

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

# Opens a queue on the same data each time, as another master would.
ADAPTERS: dict[str, Callable[..., ShardQueue]] = {"redis": RedisShardQueue}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(params=sorted(ADAPTERS))
def open_queue(request: pytest.FixtureRequest, redis: Redis, clock: ManualClock) -> OpenQueue:
    def open_one(**changes: timedelta) -> ShardQueue:
        settings = {"claim_ttl": MINUTE, "reserve_after": 5 * MINUTE, **changes}
        return ADAPTERS[request.param](redis, clock=clock, **settings)

    return open_one


@pytest.fixture
def queue(open_queue: OpenQueue) -> ShardQueue:
    return open_queue()


def entry(shard_id: str, **changes: Any) -> QueueEntry:
    defaults: dict[str, Any] = {"run_id": "run", "project": "site", "priority": 50, "enqueued_at": NOON}
    return QueueEntry(shard_id=shard_id, **(defaults | changes))


def entries(*shard_ids: str, **changes: Any) -> list[QueueEntry]:
    return [entry(shard_id, **changes) for shard_id in shard_ids]


def bid(worker_id: str = "w", *, shards: int = 1, cpu: int = 100, **changes: Any) -> Bid:
    room = Resources(cpu_millis=cpu)
    defaults: dict[str, Any] = {"capabilities": {}, "free": room, "capacity": room}
    return Bid(worker_id=worker_id, shards=shards, **(defaults | changes))


def need(cpu: int) -> Resources:
    return Resources(cpu_millis=cpu)


def shards_of(claims: Sequence[Claim]) -> list[str]:
    return [claim.entry.shard_id for claim in claims]


async def claim_all(queue: ShardQueue, **changes: Any) -> list[str]:
    return shards_of(await queue.claim([bid(shards=1000, cpu=10**9, **changes)]))


# Order --------------------------------------------------------------------------------------------------------


async def test_claim_answers_the_entry_as_it_was_enqueued(queue: ShardQueue) -> None:
    full = entry(
        "unit[python=3.12] 1/2:ä",
        run_id="a/b:c",
        project="team: site/ü",
        priority=100,
        requirements={"os": "linux", "note": "a,b=c"},
        resources=Resources(cpu_millis=1, memory_bytes=2**40, disk_bytes=3),
        packed=Resources(memory_bytes=2**39),
        environment_key="abc",
        not_before=NOON - MINUTE,
        cost=2.5,
        weight=3.0,
    )
    big = Resources(cpu_millis=1, memory_bytes=2**41, disk_bytes=3)

    await queue.enqueue([full])
    claims = await queue.claim([bid("w", free=big, capacity=big, capabilities=full.requirements)])

    assert claims == [Claim(entry=full, worker_id="w")]


async def test_higher_priority_comes_first_then_age_then_order_of_the_batch(queue: ShardQueue) -> None:
    old = entry("old", enqueued_at=NOON - MINUTE)
    await queue.enqueue([*entries("second", "first"), old, entry("urgent", priority=51)])

    claimed = await claim_all(queue)

    assert claimed == ["urgent", "old", "second", "first"]


async def test_projects_take_turns_whatever_their_backlog_and_their_queue(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"a{i}", project="a", enqueued_at=NOON - MINUTE) for i in range(40)])
    await queue.enqueue(entries("b0", "b1", project="b"))
    late = entry("b2", project="b", requirements={"os": "linux"}, enqueued_at=NOON + MINUTE)
    await queue.enqueue([late])

    claimed = await queue.claim([bid(shards=8, cpu=10**6, capabilities={"os": "linux"})])

    assert shards_of(claimed) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "a4"]


async def test_turns_go_on_from_one_claim_to_the_next(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a0", "a1", "a2", project="a") + entries("b0", "b1", "b2", project="b"))

    claimed = [shards_of(await queue.claim([bid(worker)])) for worker in "uvwxyz"]

    assert claimed == [["a0"], ["b0"], ["a1"], ["b1"], ["a2"], ["b2"]]


async def test_shares_are_proportional_to_weight_and_cost(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"heavy{i}", project="heavy", weight=3.0) for i in range(30)])
    await queue.enqueue([entry(f"light{i}", project="light") for i in range(30)])
    await queue.enqueue([entry(f"dear{i}", project="dear", cost=2.0) for i in range(30)])

    claimed = shards_of(await queue.claim([bid(shards=27, cpu=10**6)]))

    counts = [sum(name in shard for shard in claimed) for name in ("heavy", "light", "dear")]
    assert counts == [18, 6, 3]


async def test_newcomer_neither_waits_for_the_backlog_nor_makes_up_for_its_absence(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"a{i}", project="a") for i in range(20)])
    await queue.claim([bid(shards=10)])
    await queue.enqueue([entry(f"b{i}", project="b", enqueued_at=NOON + MINUTE) for i in range(20)])

    claimed = shards_of(await queue.claim([bid(shards=6)]))

    assert sorted(claimed) == ["a10", "a11", "a12", "b0", "b1", "b2"]


async def test_backlog_that_was_removed_costs_its_project_nothing(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"old{i}", project="a", run_id="old") for i in range(100)])
    await queue.enqueue(entries("a0", "a1", project="a") + entries("b0", "b1", project="b"))

    await queue.remove("old")

    assert await claim_all(queue) == ["a0", "b0", "a1", "b1"]


async def test_busy_workers_of_one_kind_do_not_disturb_turns_among_another(queue: ShardQueue) -> None:
    gpu, cpu = {"gpu": "1"}, {"gpu": "0"}
    await queue.enqueue([entry(f"g{i}", project="g", requirements=gpu) for i in range(60)])
    await queue.enqueue(entries("a0", "a1", "a2", project="a", requirements=cpu))
    later = NOON + MINUTE
    await queue.enqueue(entries("b0", "b1", "b2", project="b", requirements=cpu, enqueued_at=later))

    claimed = []
    for _ in range(6):
        await queue.claim([bid("busy", shards=10, capabilities=gpu)])
        claimed += shards_of(await queue.claim([bid("other", capabilities=cpu)]))

    assert claimed == ["a0", "b0", "a1", "b1", "a2", "b2"]


# Capabilities -------------------------------------------------------------------------------------------------


async def test_worker_gets_only_what_its_capabilities_satisfy(queue: ShardQueue) -> None:
    linux, mac = {"os": "linux"}, {"os": "mac"}
    await queue.enqueue(
        [
            entry("any"),
            entry("linux", requirements=linux),
            entry("mac", requirements=mac),
            entry("gpu", requirements={"gpu": "1", **linux}),
        ]
    )

    claims = await queue.claim(
        [bid("l", shards=9, capabilities={"x": "y", **linux}), bid("m", shards=9, capabilities=mac)]
    )

    assert {claim.entry.shard_id: claim.worker_id for claim in claims} == {"any": "l", "linux": "l", "mac": "m"}


async def test_queue_that_another_master_made_is_found(open_queue: OpenQueue) -> None:
    ours, theirs = open_queue(), open_queue()
    await ours.enqueue([entry("a", requirements={"os": "linux"})])
    await ours.claim([bid(capabilities={"os": "linux"})])

    await theirs.enqueue([entry("b", requirements={"python": "3.12"})])

    assert await claim_all(ours, capabilities={"python": "3.12"}) == ["b"]


# Resources ----------------------------------------------------------------------------------------------------


async def test_worker_gets_at_most_its_shards_and_what_fits_its_room(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a", "b", "c", "d", resources=need(40)))

    by_room = await queue.claim([bid(shards=9, cpu=100)])
    by_shards = await queue.claim([bid(shards=1, cpu=100)])

    assert (shards_of(by_room), shards_of(by_shards)) == (["a", "b"], ["c"])


@pytest.mark.parametrize("kind", ["cpu_millis", "memory_bytes", "disk_bytes"])
async def test_each_resource_counts(queue: ShardQueue, kind: str) -> None:
    await queue.enqueue([entry("a", resources=Resources(**{kind: 10}))])
    capacity = Resources(**{kind: 10})

    refused = await queue.claim([bid(free=Resources(**{kind: 9}), capacity=capacity)])
    taken = await queue.claim([bid(free=capacity, capacity=capacity)])

    assert (refused, shards_of(taken)) == ([], ["a"])


async def test_worker_is_packed_by_what_entries_take_and_not_by_what_they_ask_for(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a", "b", "c", "d", "e", resources=need(80), packed=need(30)))

    claims = await queue.claim([bid(shards=9, cpu=100)])

    assert shards_of(claims) == ["a", "b", "c"]


async def test_worker_that_has_less_than_an_entry_asks_for_never_gets_it(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a", resources=need(80), packed=need(30))])

    refused = await queue.claim([bid("small", cpu=79)])
    taken = await queue.claim([bid("large", free=need(30), capacity=need(80))])

    assert (refused, shards_of(taken)) == ([], ["a"])


async def test_entry_that_takes_more_than_any_worker_has_gets_an_empty_one(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a", "b", resources=Resources(), packed=need(500)))

    crowded = await queue.claim([bid("crowded", free=need(99), capacity=need(100))])
    empty = await queue.claim([bid("empty", shards=9, cpu=100)])

    assert (crowded, shards_of(empty)) == ([], ["a"])


async def test_claim_looks_past_so_many_entries_that_do_not_fit(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"large{i}", resources=need(200)) for i in range(LOOK_AHEAD)])
    await queue.enqueue([entry("small", priority=49)])

    claims = await queue.claim([bid()])

    assert shards_of(claims) == ["small"]


async def test_claim_does_not_look_further(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"large{i}", resources=need(200)) for i in range(LOOK_AHEAD + 1)])
    await queue.enqueue([entry("small", priority=49)])

    claims = await queue.claim([bid()])

    assert claims == []


async def test_every_worker_gets_its_first_before_any_gets_a_second(queue: ShardQueue) -> None:
    await queue.enqueue([entry(str(i)) for i in range(4)])

    claims = await queue.claim([bid("u", shards=4), bid("v", shards=4), bid("w", shards=4)])

    assert [claim.worker_id for claim in claims] == ["u", "v", "w", "u"]


async def test_workers_of_different_kinds_never_get_the_same_entry(queue: ShardQueue) -> None:
    await queue.enqueue([entry(f"any{i}") for i in range(5)])
    await queue.enqueue([entry(f"linux{i}", requirements={"os": "linux"}) for i in range(5)])

    claims = await queue.claim([bid("plain", shards=9), bid("linux", shards=9, capabilities={"os": "linux"})])

    assert len(shards_of(claims)) == len(set(shards_of(claims))) == 10


async def test_warm_environment_is_preferred_among_equals(queue: ShardQueue) -> None:
    await queue.enqueue([entry("cold", environment_key="x"), entry("warm", environment_key="y")])

    claims = await queue.claim([bid(warm_environment_keys=frozenset({"y", "z"}))])

    assert shards_of(claims) == ["warm"]


WARM: dict[str, Any] = {"warm_environment_keys": frozenset({"env"}), "ahead": 7}


async def test_what_comes_next_follows_in_a_warm_session_and_takes_no_room_besides(queue: ShardQueue) -> None:
    names = [f"unit#{number}" for number in range(40)]
    await queue.enqueue(entries(*names, environment_key="env", resources=need(100)))

    claims = await queue.claim([bid("warm", **(WARM | {"ahead": 3})), bid("cold", ahead=3)])

    assert shards_of(claims) == names[:5]
    assert [(claim.worker_id, claim.follows) for claim in claims] == [
        ("warm", False),
        ("cold", False),
        ("warm", True),
        ("warm", True),
        ("warm", True),
    ]
    await queue.release(claims)
    assert await claim_all(queue) == names


@pytest.mark.parametrize(("waiting", "following"), [(3, 0), (6, 1), (12, 2), (33, 7), (100, 7)])
async def test_three_times_as_many_as_follow_are_left_for_others(
    queue: ShardQueue, waiting: int, following: int
) -> None:
    await queue.enqueue(entries(*[f"unit#{number}" for number in range(waiting)], environment_key="env"))

    claims = await queue.claim([bid(**WARM)])

    assert [claim.follows for claim in claims] == [False, *[True] * following]


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({"enqueued_at": NOON - MINUTE / 2}, True),
        ({"run_id": "other"}, False),
        ({"shard_id": "other#1"}, False),
        ({"project": "other"}, False),
        ({"priority": 51}, False),
        ({"environment_key": "other"}, False),
        ({"not_before": NOON - MINUTE}, False),
        ({"resources": need(1)}, False),
    ],
    ids=lambda changes: next(iter(changes)) if isinstance(changes, dict) else "",
)
async def test_only_what_is_of_the_same_task_and_nothing_special_follows(
    queue: ShardQueue, changes: dict[str, Any], *, follows: bool
) -> None:
    first = entry("unit#0", enqueued_at=NOON - MINUTE, environment_key="env", priority=52)
    following = msgspec.structs.replace(first, **({"shard_id": "unit#1", "enqueued_at": NOON} | changes))
    await queue.enqueue([first, following])
    await queue.enqueue(entries(*[f"unit#{number}" for number in range(2, 20)], environment_key="env"))

    claims = await queue.claim([bid(**WARM)])

    assert [(claim.entry.shard_id, claim.follows) for claim in claims[:1]] == [("unit#0", False)]
    assert [claim.follows for claim in claims[1:]] == [True] * follows


async def test_warm_environment_does_not_outdo_priority(queue: ShardQueue) -> None:
    await queue.enqueue([entry("cold", priority=51), entry("warm", environment_key="y")])

    claims = await queue.claim([bid(warm_environment_keys=frozenset({"y"}))])

    assert shards_of(claims) == ["cold"]


# Reservations -------------------------------------------------------------------------------------------------


async def age_a_large_entry(queue: ShardQueue, clock: ManualClock) -> None:
    """Afterwards `large` has waited for long and worker `w`, of 100, is reserved for its 80."""
    await queue.enqueue([entry("large", resources=need(80))])
    clock.advance(6 * MINUTE)
    assert await queue.claim([bid(free=need(50), capacity=need(100))]) == []


async def test_aged_entry_reserves_a_worker_and_others_get_what_is_left(queue: ShardQueue, clock: ManualClock) -> None:
    await age_a_large_entry(queue, clock)
    await queue.enqueue(entries("small1", "small2", "small3", resources=need(10), priority=99))

    crowded = await queue.claim([bid(shards=9, free=need(79), capacity=need(100))])
    beyond = await queue.claim([bid("v", shards=9, cpu=10)])
    free = await queue.claim([bid(shards=9, free=need(100), capacity=need(100))])

    assert (shards_of(crowded), shards_of(beyond)) == ([], ["small1"])
    assert shards_of(free) == ["large", "small2", "small3"]


async def test_what_is_left_beyond_a_reservation_may_be_used(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry("large", resources=Resources(cpu_millis=10, memory_bytes=80))])
    clock.advance(6 * MINUTE)
    await queue.enqueue(entries("small1", "small2", resources=need(60)))
    free, capacity = Resources(cpu_millis=90, memory_bytes=10), Resources(cpu_millis=100, memory_bytes=100)

    claims = await queue.claim([bid(shards=9, free=free, capacity=capacity)])

    assert shards_of(claims) == ["small1"]


async def test_small_entries_do_not_wait_before_the_large_one_is_aged(queue: ShardQueue) -> None:
    await queue.enqueue([entry("large", resources=need(80)), entry("small", resources=need(50))])

    claims = await queue.claim([bid(free=need(50), capacity=need(100))])

    assert shards_of(claims) == ["small"]


async def test_entry_too_large_for_every_worker_reserves_none(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry("huge", resources=need(101))])
    clock.advance(6 * MINUTE)
    await queue.enqueue([entry("small", resources=need(50))])

    claims = await queue.claim([bid(free=need(50), capacity=need(100))])

    assert shards_of(claims) == ["small"]


async def test_the_worker_with_the_least_missing_is_reserved(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry("large", resources=need(80))])
    clock.advance(6 * MINUTE)
    await queue.enqueue(entries("a", "b", resources=need(10)))

    claims = await queue.claim(
        [bid("far", free=need(10), capacity=need(100)), bid("near", free=need(70), capacity=need(100))]
    )

    assert [(claim.worker_id, claim.entry.shard_id) for claim in claims] == [("far", "a")]


async def test_reservation_ends_when_its_entry_goes_elsewhere(queue: ShardQueue, clock: ManualClock) -> None:
    await age_a_large_entry(queue, clock)
    await queue.enqueue([entry("small", resources=need(50))])

    elsewhere = await queue.claim([bid("other")])
    after = await queue.claim([bid(free=need(50), capacity=need(100))])

    assert (shards_of(elsewhere), shards_of(after)) == (["large"], ["small"])


async def test_reservation_ends_when_its_entry_is_removed(queue: ShardQueue, clock: ManualClock) -> None:
    await age_a_large_entry(queue, clock)
    await queue.enqueue([entry("small", resources=need(50))])

    await queue.remove("run", ["large"])

    assert shards_of(await queue.claim([bid(free=need(50), capacity=need(100))])) == ["small"]


async def test_reservation_ends_when_its_worker_has_become_too_small(queue: ShardQueue, clock: ManualClock) -> None:
    await age_a_large_entry(queue, clock)
    await queue.enqueue([entry("small", resources=need(50))])

    claims = await queue.claim([bid(free=need(60), capacity=need(60))])

    assert shards_of(claims) == ["small"]


async def test_reservation_keeps_what_its_entry_takes(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry("large", resources=need(80), packed=need(40))])
    clock.advance(6 * MINUTE)
    await queue.enqueue(entries("a", "b", resources=need(15)))

    first = await queue.claim([bid(free=need(30), capacity=need(100))])
    then = await queue.claim([bid(shards=9, free=need(60), capacity=need(100))])

    assert (shards_of(first), shards_of(then)) == ([], ["large", "a"])


async def test_reservation_ends_when_its_worker_has_less_than_its_entry_asks_for(
    queue: ShardQueue, clock: ManualClock
) -> None:
    await queue.enqueue([entry("large", resources=need(80), packed=need(40))])
    clock.advance(6 * MINUTE)
    assert await queue.claim([bid(free=need(30), capacity=need(100))]) == []
    await queue.enqueue([entry("small", resources=need(30))])

    claims = await queue.claim([bid(free=need(50), capacity=need(60))])

    assert shards_of(claims) == ["small"]


async def test_reservation_passes_on_when_its_worker_vanishes(open_queue: OpenQueue, clock: ManualClock) -> None:
    queue = open_queue(reservation_ttl=timedelta(0))
    await age_a_large_entry(queue, clock)
    await queue.enqueue([entry("small", resources=need(50))])

    claims = await queue.claim([bid("other", free=need(60), capacity=need(100))])
    back = await queue.claim([bid("w", free=need(60), capacity=need(60))])

    assert (claims, shards_of(back)) == ([], ["small"])


# Delays -------------------------------------------------------------------------------------------------------


async def test_delayed_entry_is_claimed_once_its_delay_is_over(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry("a", not_before=NOON + MINUTE)])

    early = await queue.claim([bid()])
    clock.advance(MINUTE)
    late = await queue.claim([bid()])

    assert (early, shards_of(late)) == ([], ["a"])


async def test_return_expired_counts_entries_whose_delay_is_over(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry(str(i), not_before=NOON + MINUTE) for i in range(1200)])

    before = await queue.return_expired()
    clock.advance(MINUTE)

    assert (before, await queue.return_expired(), await queue.return_expired()) == (0, 1200, 0)


# Two phases ---------------------------------------------------------------------------------------------------


async def test_enqueue_is_idempotent_while_the_entry_waits_or_is_claimed(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a"), entry("a")])
    await queue.enqueue([entry("a", priority=99)])
    first = await claim_all(queue)
    await queue.enqueue([entry("a")])

    assert (first, await claim_all(queue), await queue.depth()) == (["a"], [], 0)


async def test_confirmed_entry_is_forgotten_and_may_come_again(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a")])
    claims = await queue.claim([bid()])

    await queue.confirm(claims)
    await queue.confirm(claims)
    gone = await queue.waiting("run")
    await queue.enqueue([entry("a")])

    assert (gone, await claim_all(queue)) == (frozenset(), ["a"])


async def test_released_entry_is_back_in_its_old_place(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a0", "a1", project="a") + entries("b0", "b1", project="b"))
    claims = await queue.claim([bid()])

    await queue.release(claims)
    await queue.release(claims)

    assert await claim_all(queue) == ["a0", "b0", "a1", "b1"]


async def test_unconfirmed_claim_returns_and_late_answers_change_nothing(open_queue: OpenQueue) -> None:
    queue = open_queue(claim_ttl=timedelta(0))
    await queue.enqueue([entry("a")])
    late = await queue.claim([bid("slow")])

    returned = await queue.return_expired()
    again = await queue.claim([bid("quick")])
    await queue.confirm(late)
    await queue.release(late)

    assert (returned, shards_of(again)) == (1, ["a"])
    assert await queue.waiting("run") == {"a"}
    assert await claim_all(queue) == []


async def test_claim_lasts_until_its_time_is_up(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a")])
    await queue.claim([bid()])

    returned = await queue.return_expired()

    assert (returned, await claim_all(queue)) == (0, [])


async def test_claim_that_follows_a_released_one_has_a_time_of_its_own(open_queue: OpenQueue) -> None:
    hasty, patient = open_queue(claim_ttl=timedelta(0)), open_queue(claim_ttl=MINUTE)
    await hasty.enqueue(entries("a", "b"))
    await hasty.release([claim for claim in await hasty.claim([bid(shards=2)]) if claim.entry.shard_id == "a"])
    await patient.claim([bid()])

    returned = await patient.return_expired()

    assert (returned, await claim_all(patient)) == (1, ["b"])


async def test_claims_say_for_whom_nothing_waits_any_more(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a", resources=Resources(cpu_millis=80)), entry("b", requirements={"os": "linux"})])

    claims = await queue.claim([bid("full", cpu=10), bid("linux", cpu=10, capabilities={"os": "linux"})])

    assert [(claim.worker_id, claim.entry.shard_id) for claim in claims] == [("linux", "b")]
    assert claims.in_vain == frozenset(), "there is something that does not fit"
    rest = await queue.claim([bid("full", cpu=80, shards=2)])
    assert (shards_of(rest), rest.in_vain) == (["a"], {"full"})


async def test_claims_say_how_long_the_first_delay_lasts_still(queue: ShardQueue, clock: ManualClock) -> None:
    soon, later = clock.now() + timedelta(seconds=3), clock.now() + timedelta(seconds=9)
    assert (await queue.claim([bid()])).due_in is None

    await queue.enqueue([entry("later", not_before=later), entry("soon", not_before=soon)])
    clock.advance(timedelta(seconds=1))

    assert (await queue.claim([bid()])).due_in == timedelta(seconds=2)


async def test_earlier_claims_are_confirmed_on_the_way(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a", "b", "c"))
    first = await queue.claim([bid()])

    second = await queue.claim([bid()], confirming=first)

    assert (shards_of(second), await queue.waiting("run")) == (["b"], {"b", "c"})
    assert await queue.claim([], confirming=second) == []
    assert (await queue.waiting("run"), await queue.count("run"), await queue.count("other")) == ({"c"}, 1, 0)


async def test_answers_about_entries_that_are_gone_are_ignored(queue: ShardQueue) -> None:
    unknown = [Claim(entry=entry("never"), worker_id="w")]

    await queue.confirm(unknown)
    await queue.release(unknown)
    await queue.remove("no such run")
    await queue.remove("no such run", ["x"])
    await queue.enqueue([])

    assert (await queue.depth(), await queue.claim([]), await queue.claim([bid()])) == (0, [], [])


async def test_remove_takes_out_what_waits_is_delayed_or_is_claimed(queue: ShardQueue) -> None:
    await queue.enqueue([*entries("claimed", "waiting"), entry("delayed", not_before=NOON + MINUTE)])
    await queue.enqueue([entry("a", run_id="run2"), entry("a", run_id="ru")])
    claims = await queue.claim([bid()])

    await queue.remove("run")
    await queue.release(claims)

    assert (await queue.waiting("run"), await queue.depth()) == (frozenset(), 2)
    assert await claim_all(queue) == ["a", "a"]


async def test_remove_of_some_leaves_the_others(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a", "b", "c"))

    await queue.remove("run", ["a", "c", "unknown"])

    assert await queue.waiting("run") == {"b"}


async def test_delay_of_a_removed_entry_is_forgotten_too(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue([entry("a", not_before=NOON + MINUTE)])
    await queue.remove("run")
    await queue.enqueue([entry("a")])
    first = await claim_all(queue)
    clock.advance(MINUTE)

    returned = await queue.return_expired()

    assert (first, returned, await claim_all(queue)) == (["a"], 0, [])


# What it tells ------------------------------------------------------------------------------------------------


async def test_place_counts_those_that_come_before(queue: ShardQueue) -> None:
    await queue.enqueue(entries("a0", "a1", "a2", project="a") + entries("b0", project="b"))
    await queue.enqueue([entry("urgent", priority=51), entry("other", requirements={"os": "mac"})])

    places = [await queue.place("run", shard) for shard in ("urgent", "a0", "b0", "a1", "a2", "other")]

    assert places == [
        *(QueuePlace(position=position, queue_length=5) for position in range(1, 6)),
        QueuePlace(position=1, queue_length=1),
    ]


async def test_place_of_a_delayed_entry_says_when_it_is_ready(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a"), entry("late", not_before=NOON + MINUTE)])

    place = await queue.place("run", "late")

    assert place == QueuePlace(position=2, queue_length=2, ready_at=NOON + MINUTE)


async def test_claimed_and_unknown_entries_have_no_place(queue: ShardQueue) -> None:
    await queue.enqueue([entry("a")])
    await queue.claim([bid()])

    places = [await queue.place("run", shard) for shard in ("a", "unknown")]

    assert places == [None, None]


async def test_waiting_and_depth_count_what_they_say(queue: ShardQueue) -> None:
    await queue.enqueue([*entries("a", "b/c:d"), entry("late", not_before=NOON + MINUTE)])
    await queue.claim([bid()])

    assert await queue.waiting("run") == {"a", "b/c:d", "late"}
    assert await queue.depth() == 2


async def test_wakeups_begin_at_once_and_follow_every_change(open_queue: OpenQueue, clock: ManualClock) -> None:
    queue = open_queue(claim_ttl=timedelta(0))
    wakeups = open_queue().wakeups()

    async with asyncio.timeout(20):
        await anext(wakeups)
        await queue.enqueue([entry("a"), entry("late", not_before=NOON + MINUTE)])
        await anext(wakeups)
        await queue.release(await queue.claim([bid()]))
        await anext(wakeups)
        await queue.claim([bid()])
        await queue.return_expired()
        await anext(wakeups)
        clock.advance(MINUTE)
        await queue.return_expired()
        await anext(wakeups)


@pytest.mark.parametrize(
    "changes", [{"priority": -1}, {"priority": 101}, {"weight": 0.0}, {"cost": -1.0}, {"cost": float("nan")}]
)
async def test_values_out_of_range_are_refused_before_anything_is_enqueued(
    queue: ShardQueue, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="'bad'"):
        await queue.enqueue([entry("good"), entry("bad", **changes)])

    assert await queue.depth() == 0


# At large -----------------------------------------------------------------------------------------------------


async def test_ten_thousand_entries_are_each_claimed_once(queue: ShardQueue) -> None:
    capabilities = [{"kind": str(i)} for i in range(5)]
    await queue.enqueue(
        [entry(str(i), project=str(i % 3), priority=i % 101, requirements=capabilities[i % 5]) for i in range(10_000)]
    )

    claims = await queue.claim([bid(f"w{i}", shards=500, capabilities=capabilities[i % 5]) for i in range(50)])

    assert len(set(shards_of(claims))) == len(claims) == 10_000
    assert await queue.depth() == 0


@pytest.mark.parametrize("seed", range(8))
async def test_no_entry_is_lost_or_held_twice_whatever_happens(
    open_queue: OpenQueue, clock: ManualClock, seed: int
) -> None:
    # Claims expire at once, but only return_expired() puts them back, so that the walk knows when.
    masters = [open_queue(claim_ttl=timedelta(0)) for _ in range(2)]
    walk = RandomWalk(random.Random(seed), clock)

    for _ in range(150):
        await walk.step(walk.chance.choice(masters))
        clock.advance(timedelta(seconds=walk.chance.randint(0, 60)))
        assert await masters[0].waiting("run") == walk.known.keys()
        assert await masters[1].depth() == len(walk.known) - len(walk.held)

    clock.advance(timedelta(days=1))
    await masters[0].return_expired()
    everything = [bid(str(i), shards=1000, cpu=10**9, capabilities={"os": str(i)}) for i in range(3)]
    assert sorted(shards_of(await masters[1].claim(everything))) == sorted(walk.known)


class RandomWalk:
    """Does to a queue whatever a master may do, and keeps account of what the queue should then hold."""

    def __init__(self, chance: random.Random, clock: ManualClock) -> None:
        self.chance = chance
        self.clock = clock
        self.known: dict[str, QueueEntry] = {}
        self.held: dict[str, Claim] = {}
        self.stale: list[Claim] = []
        claim = [self.claim] * 3
        self.steps = [*claim, self.enqueue, self.enqueue, self.confirm, self.release, self.expire, self.remove]

    async def step(self, queue: ShardQueue) -> None:
        await self.chance.choice(self.steps)(queue)

    async def enqueue(self, queue: ShardQueue) -> None:
        added = [a_random_entry(self.chance, self.clock) for _ in range(self.chance.randint(1, 8))]
        await queue.enqueue(added)
        for each in added:
            self.known.setdefault(each.shard_id, each)

    async def claim(self, queue: ShardQueue) -> None:
        bids = [a_random_bid(self.chance) for _ in range(self.chance.randint(1, 3))]
        for each in await queue.claim(bids):
            assert each.entry.shard_id not in self.held, "held twice"
            assert each.entry == self.known[each.entry.shard_id]
            assert each.entry.not_before is None or each.entry.not_before <= self.clock.now()
            self.held[each.entry.shard_id] = each

    async def confirm(self, queue: ShardQueue) -> None:
        done = self.some_of(self.held.values())
        await queue.confirm([*done, *self.some_late_answers()])
        for each in done:
            del self.held[each.entry.shard_id], self.known[each.entry.shard_id]

    async def release(self, queue: ShardQueue) -> None:
        done = self.some_of(self.held.values())
        await queue.release([*done, *self.some_late_answers()])
        self.stale += [self.held.pop(each.entry.shard_id) for each in done]

    async def expire(self, queue: ShardQueue) -> None:
        await queue.return_expired()
        self.stale += self.held.values()
        self.held.clear()

    async def remove(self, queue: ShardQueue) -> None:
        gone = self.chance.sample(sorted(self.known), k=min(len(self.known), 3))
        await queue.remove("run", gone)
        for shard in gone:
            del self.known[shard]
            self.held.pop(shard, None)

    def some_of(self, claims: Iterable[Claim]) -> list[Claim]:
        all_of_them = list(claims)
        return self.chance.sample(all_of_them, k=self.chance.randint(0, len(all_of_them)))

    def some_late_answers(self) -> list[Claim]:
        """Old claims whose entry is free by now, or in the hands of another worker: they must change nothing."""
        return [each for each in self.some_of(self.stale) if not self.is_held_by(each)]

    def is_held_by(self, claim: Claim) -> bool:
        current = self.held.get(claim.entry.shard_id)
        return current is not None and current.worker_id == claim.worker_id


def a_random_entry(chance: random.Random, clock: ManualClock) -> QueueEntry:
    plain = entry(
        str(chance.randint(0, 200)),
        project=chance.choice("abc"),
        priority=chance.choice([10, 50, 90]),
        enqueued_at=clock.now(),
        requirements=chance.choice([{}, {"os": "0"}, {"os": "1"}, {"os": "2"}]),
        resources=need(chance.choice([0, 10, 90])),
        environment_key=chance.choice(["", "x", "y"]),
    )
    delay = timedelta(seconds=chance.randint(1, 100))
    return msgspec.structs.replace(plain, not_before=clock.now() + delay) if chance.random() < 0.3 else plain


def a_random_bid(chance: random.Random) -> Bid:
    return bid(
        chance.choice("uvw"),
        shards=chance.randint(0, 4),
        capabilities={"os": chance.choice("0123")},
        free=need(chance.randint(0, 100)),
        capacity=need(100),
        warm_environment_keys=frozenset(chance.sample(["x", "y"], k=chance.randint(0, 2))),
    )
