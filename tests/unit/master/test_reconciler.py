"""Coordination is made to agree with the log again, on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from msgspec.structs import replace

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.ids import new_run_id
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.common.tasks import Access, Timeouts, Use
from fleetest.master.queue.ports import Presence, ResourceHold, WorkerRegistry
from fleetest.master.queue.redis_registry import RedisWorkerRegistry
from fleetest.master.reconciler import STOP_MARGIN, Reconciler
from fleetest.master.reports import Ended
from fleetest.master.runs.announcer import Announcer
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.events import encode
from fleetest.master.runs.hub import Hub
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.task_status import Attempt, ShardStatus
from fleetest.master.sessions import AttemptRef, Session, Sessions, Stop
from fleetest.master.store.ports import Commit
from tests.support.shared_redis import SharedRedis
from tests.tools.core import INTERVAL, LEASE_TTL, Core, instructions, until
from tests.tools.story import BACKOFF, START, command_task, pytest_task, result, submitted

SECOND = timedelta(seconds=1)


async def shard_of(core: Core, run_id: str, shard_id: str = "lint#0") -> ShardStatus:
    shard = (await core.status(run_id)).shard(shard_id)
    assert shard is not None
    return shard


async def attempt_of(core: Core, run_id: str) -> Attempt | None:
    return (await shard_of(core, run_id)).attempt


async def leased(core: Core, *, connected: bool = False) -> tuple[str, Session]:
    """A run whose shard a worker has; its stream is at another master unless `connected`."""
    run_id = await core.submit(command_task())
    session = await core.connect()
    [_] = await core.assigned(session)
    if not connected:
        core.sessions.remove(session)
    return run_id, session


async def expire(core: Core, worker_id: str = "w1") -> None:
    await core.redis.delete(f"fleetest:{{workers}}:session:{worker_id}")


def another_master(core: Core) -> RunBook:
    """It dies before it tells or projects anything."""
    return RunBook(
        store=core.store,
        queue=core.queue,
        resources=core.resources,
        announcer=Announcer(core.feed),
        secrets=core.secrets,
        projector=Projector(core.store),
        hub=Hub(),
        sessions=Sessions(),
        clock=core.clock,
        backoff=BACKOFF,
    )


def another_reconciler(core: Core, registry: WorkerRegistry) -> Reconciler:
    return Reconciler(
        store=core.store,
        queue=core.queue,
        resources=core.resources,
        registry=registry,
        secrets=core.secrets,
        book=core.book,
        projector=core.projector,
        dispatcher=core.dispatcher,
        sessions=core.sessions,
        clock=core.clock,
        interval=INTERVAL,
        lease_ttl=LEASE_TTL,
    )


# -- queues


async def test_after_redis_forgot_everything_what_waits_is_queued_again(core: Core) -> None:
    run_id = await core.submit(command_task(shards=3), pytest_task())
    await core.redis.flushall()

    await core.reconciler.look()

    assert await core.queue.waiting(run_id) == {"lint#0", "lint#1", "lint#2", "unit#plan"}


async def test_what_is_on_its_way_into_the_queue_is_not_queued_a_second_time(core: Core) -> None:
    run_id = await core.submit(command_task(shards=3))
    status = await core.status(run_id)
    await core.redis.flushall()

    enqueuing = asyncio.create_task(core.book.enqueue(status, status.tasks["lint"].shards.values()))
    await asyncio.sleep(0)  # its first step
    under_way = core.book.enqueues(run_id)
    await enqueuing

    assert under_way
    assert not core.book.enqueues(run_id)
    assert await core.queue.waiting(run_id) == {"lint#0", "lint#1", "lint#2"}


async def test_what_runs_while_redis_forgets_everything_goes_on(core: Core) -> None:
    run_id, session = await leased(core, connected=True)
    await core.redis.flushall()

    for _ in range(20):
        core.clock.advance(INTERVAL)
        core.hear_from(session)
        await core.reconciler.look()

    assert await attempt_of(core, run_id) is not None


async def test_entries_that_wait_for_nothing_are_taken_out(core: Core) -> None:
    run_id = await core.submit(command_task())
    await core.book.keeper(run_id).ask(lambda decider: decider.start_attempt("lint#0", "w", "w-1"))
    assert await core.queue.waiting(run_id) == {"lint#0"}

    await core.reconciler.look()

    assert await core.queue.waiting(run_id) == frozenset()


async def test_a_delayed_retry_and_its_delay_survive_the_loss_of_redis(core: Core) -> None:
    run_id, session = await leased(core)
    attempt = await attempt_of(core, run_id)
    assert attempt is not None
    await core.book.keeper(run_id).ask(lambda decider: decider.attempt_declined("lint#0", attempt.token, "no"))
    await core.redis.flushall()

    await core.reconciler.look()

    place = await core.queue.place(run_id, "lint#0")
    assert place is not None
    assert place.ready_at is not None
    core.clock.advance(SECOND)
    core.sessions.add(session)
    await core.reconciler.look()
    assert len(await core.assigned(session)) == 1


# -- leases


async def test_attempts_of_a_vanished_worker_are_lost_after_its_lease(core: Core) -> None:
    run_id, _ = await leased(core)
    await expire(core)

    core.clock.advance(LEASE_TTL - SECOND)
    await core.reconciler.look()
    before = await attempt_of(core, run_id)
    core.clock.advance(SECOND)
    await core.reconciler.look()

    assert before is not None
    shard = await shard_of(core, run_id)
    assert (shard.waiting, shard.reason) == (True, "its worker is gone")
    assert await core.queue.waiting(run_id) == {"lint#0"}


async def test_attempts_of_a_worker_whose_stream_is_silent_are_lost(core: Core) -> None:
    """A frozen process keeps its connection."""
    run_id, _ = await leased(core, connected=True)
    await expire(core)

    core.clock.advance(LEASE_TTL)
    await core.reconciler.look()

    assert (await shard_of(core, run_id)).waiting


async def test_attempts_of_a_replaced_instance_are_lost_at_once(core: Core) -> None:
    run_id, _ = await leased(core)
    await expire(core)
    await core.register("w1", instance="w1-2")

    await core.reconciler.look()

    assert (await shard_of(core, run_id)).waiting


async def test_a_worker_that_the_registry_does_not_know_has_a_lease_to_come_back(core: Core) -> None:
    run_id, session = await leased(core)
    await core.redis.flushall()

    await core.reconciler.look()
    core.clock.advance(LEASE_TTL - SECOND)
    await core.reconciler.look()
    assert await attempt_of(core, run_id) is not None

    await core.registry.register(session.presence, lease_ttl=LEASE_TTL)
    await core.reconciler.look()
    await core.redis.flushall()
    core.clock.advance(LEASE_TTL - SECOND)
    await core.reconciler.look()
    assert await attempt_of(core, run_id) is not None

    core.clock.advance(LEASE_TTL)
    await core.reconciler.look()
    assert await attempt_of(core, run_id) is None


async def test_stream_that_begins_during_a_look_is_not_ended_by_it(core: Core) -> None:
    presence = await core.register()
    session = Session(replace(presence, stream="new"))

    class SlowRegistry(RedisWorkerRegistry):
        async def list(self) -> Sequence[Presence]:
            seen = await super().list()
            await self.attach(session.presence, lease_ttl=LEASE_TTL)
            core.sessions.add(session)
            return seen

    await another_reconciler(core, SlowRegistry(core.redis)).look()

    assert not session.over


async def test_after_redis_was_away_workers_have_a_lease_to_come_back(core: Core, embedded_redis: SharedRedis) -> None:
    run_id, session = await leased(core)
    await expire(core)
    core.clock.advance(LEASE_TTL * 10)
    await embedded_redis.stop()
    watch = asyncio.create_task(core.reconciler.run())
    core.reconciler.look_soon()
    await asyncio.sleep(0)
    with pytest.raises(DependencyUnavailable):
        await core.queue.depth()
    await until(lambda: _failed_once(core))
    await embedded_redis.start()
    core.reconciler.look_soon()
    await core.registry.register(replace(session.presence, last_seen_at=core.clock.now()), lease_ttl=LEASE_TTL)
    await core.reconciler.look()
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch

    assert await attempt_of(core, run_id) is not None


async def test_an_attempt_that_began_after_the_look_is_not_taken_for_the_one_that_was_seen(core: Core) -> None:
    run_id, _ = await leased(core)
    first = await attempt_of(core, run_id)
    assert first is not None
    await expire(core)
    await core.register("w1", instance="w1-2")
    elsewhere = another_master(core).keeper(run_id)
    await elsewhere.ask(lambda decider: decider.attempt_declined("lint#0", first.token, "no"))
    await elsewhere.ask(lambda decider: decider.start_attempt("lint#0", "w1", "w1-2"))

    await core.reconciler.look()

    second = await attempt_of(core, run_id)
    assert second is not None
    assert (second.instance, second.number) == ("w1-2", 2)


# -- limits


async def test_a_task_that_waits_longer_than_its_queue_timeout_ends(core: Core) -> None:
    limit = timedelta(minutes=1)
    run_id = await core.submit(command_task(timeouts=Timeouts(queue=limit)), command_task("other"))
    started = (await core.status(run_id)).tasks["lint"].queued_at
    assert started is not None
    core.clock.advance(started + limit - core.clock.now())

    await core.reconciler.look()
    assert (await core.status(run_id)).tasks["lint"].state is TaskState.QUEUED
    core.clock.advance(SECOND)
    await core.reconciler.look()

    assert (await core.status(run_id)).tasks["lint"].state is TaskState.TIMED_OUT
    assert await core.queue.waiting(run_id) == {"other#0"}


async def test_an_attempt_that_does_not_confirm_its_stop_is_ended_without_it(core: Core) -> None:
    run_id, session = await leased(core, connected=True)
    grace = timedelta(seconds=5)
    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="ann", reason="enough", grace=grace))

    core.clock.advance(grace + STOP_MARGIN)
    core.hear_from(session)
    await core.reconciler.look()
    assert await attempt_of(core, run_id) is not None
    core.clock.advance(SECOND)
    core.hear_from(session)
    await core.reconciler.look()

    assert (await core.status(run_id)).state is RunState.CANCELLED


async def test_a_stop_that_lets_the_running_case_finish_has_no_limit_of_its_own(core: Core) -> None:
    run_id, session = await leased(core, connected=True)
    other = await core.submit(command_task("a", shards=2), fail_fast=True)
    keeper = core.book.keeper(other)
    tokens = [
        await keeper.ask(lambda decider, shard=shard: decider.start_attempt(shard, "w1", "w1-1"))
        for shard in ("a#0", "a#1")
    ]
    session._attempts |= {AttemptRef(run_id=other, shard_id=f"a#{n}", token=token) for n, token in enumerate(tokens)}
    await keeper.ask(lambda decider: decider.cases_finished("a#0", tokens[0], [result("a", "failed")]))

    core.clock.advance(timedelta(hours=1))
    core.hear_from(session)
    await core.reconciler.look()

    assert (await core.status(other)).tasks["a"].live == 2
    assert await attempt_of(core, run_id) is not None


async def test_a_stop_is_repeated_until_it_is_confirmed(core: Core) -> None:
    run_id, session = await leased(core, connected=True)
    attempt = await attempt_of(core, run_id)
    assert attempt is not None
    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="ann", reason="enough"))
    instructions(session)

    await core.reconciler.look()
    assert instructions(session) == []  # it has just been said
    core.clock.advance(INTERVAL + SECOND)
    await core.reconciler.look()

    [told] = instructions(session)
    assert isinstance(told, Stop)
    assert told.refs == (AttemptRef(run_id=run_id, shard_id="lint#0", token=attempt.token),)
    assert (told.reason, told.finish_running_case) == ("enough", False)


# -- projections and secrets


async def test_projections_that_another_master_left_behind_are_made_again(core: Core) -> None:
    run_id, _ = await leased(core)
    attempt = await attempt_of(core, run_id)
    assert attempt is not None
    await core.projector.flush(run_id)
    row = await core.store.get_run(run_id)
    assert row is not None
    other = another_master(core).keeper(run_id)
    await other.ask(lambda decider: decider.cases_finished("lint#0", attempt.token, [result("lint")]))
    await other.ask(lambda decider: decider.artifacts_saved("lint#0", attempt.token, [], ["lost"]))
    core.book.keeper(run_id).hear(4)

    await core.reconciler.look()

    current = await core.store.get_run(run_id)
    assert current is not None
    assert (row.position, current.position) == (2, 4)
    assert [case.case_id for case in await core.store.list_cases(run_id)] == ["lint"]


async def test_a_run_that_ended_without_being_listed_as_ended_is_listed_so(core: Core) -> None:
    run_id = new_run_id()
    await core.store.append(Commit(run_id=run_id, position=1, at=START, events=encode([submitted(command_task())])))
    await core.projector.rebuild(core.book.keeper(run_id))
    status = await core.status(run_id)
    assert status.state is RunState.RUNNING
    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    await core.reconciler.look()

    row = await core.store.get_run(run_id)
    assert row is not None
    assert row.state is RunState.CANCELLED


async def test_secrets_go_with_the_commit_that_ends_their_run(core: Core) -> None:
    run_id = await core.submit(command_task(secrets=("TOKEN",)), secrets={"TOKEN": "x"})
    assert await core.secrets.get(run_id) == {"TOKEN": "x"}

    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    assert await core.secrets.get(run_id) == {}


async def test_secrets_that_outlived_their_run_go_at_the_next_look_and_no_others(core: Core) -> None:
    ended, running = [await core.submit(command_task(), secrets={"TOKEN": "x"}) for _ in range(2)]
    await core.book.keeper(ended).ask(lambda decider: decider.cancel(by="x", reason="y"))
    await core.projector.flush(ended)
    for run_id in (ended, not_begun := new_run_id()):
        await core.secrets.put(run_id, {"TOKEN": "x"}, ttl=timedelta(hours=1))

    await core.reconciler.look()

    assert await core.secrets.held() == {running, not_begun}


# -- the loop


async def test_what_is_wrong_with_one_run_does_not_keep_it_from_the_others(core: Core) -> None:
    run_id = await core.submit(command_task())
    broken = await core.submit(command_task())
    await core.store.append(Commit(run_id=broken, position=2, at=START, events=b"from the future"))
    core.book.hear(())
    await core.redis.flushall()

    await core.reconciler.look()

    assert await core.queue.waiting(run_id) == {"lint#0"}


async def test_the_loop_looks_at_intervals_and_when_it_is_asked_to(core: Core) -> None:
    run_id = await core.submit(command_task())
    loop = asyncio.create_task(core.reconciler.run())
    try:
        for _ in range(2):
            await core.redis.flushall()
            core.reconciler.look_soon()
            await until(lambda: _queued(core, run_id))
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def _queued(core: Core, run_id: str) -> bool:
    return bool(await core.queue.waiting(run_id))


async def _failed_once(core: Core) -> bool:
    return core.reconciler._undisturbed_since == core.clock.now()


# -- named resources

ALONE = (Use(resource="shop", access=Access.EXCLUSIVE),)


async def holders(core: Core) -> list[str]:
    return sorted(hold.run_id for hold in (await core.resources.view()).holds)


async def test_what_is_held_survives_the_loss_of_redis_and_keeps_out_others_all_the_time(core: Core) -> None:
    await core.reconciler.look()
    owner = await core.submit(command_task(uses=ALONE))
    session = await core.connect()
    [owned] = await core.assigned(session)
    await core.redis.flushall()
    waiting = await core.submit(command_task(uses=ALONE))
    free = await core.submit(command_task())

    assert [each.ref.run_id for each in await core.assigned(session)] == [free]
    core.hear_from(session)
    await core.reconciler.look()
    assert (await holders(core), await core.assigned(session)) == ([owner], [])

    await core.report(owned.ref, Ended(verdict=Verdict.COMPLETED))
    assert [each.ref.run_id for each in await core.assigned(session)] == [waiting]


async def test_a_worker_that_is_lost_gives_back_what_it_held(core: Core) -> None:
    await core.reconciler.look()
    lost = await core.submit(command_task(uses=ALONE, priority=1))
    session = await core.connect()
    assert len(await core.assigned(session)) == 1
    core.sessions.remove(session)
    waiting = await core.submit(command_task(uses=ALONE))
    other = await core.connect("w2")
    assert await core.assigned(other) == []
    await expire(core)
    core.clock.advance(LEASE_TTL)
    core.hear_from(other)

    await core.reconciler.look()

    assert [each.ref.run_id for each in await core.assigned(other)] == [waiting]
    assert await holders(core) == [waiting]
    assert await core.queue.waiting(lost) == {"lint#0"}


async def test_what_a_dead_master_left_held_is_given_back(core: Core) -> None:
    await core.reconciler.look()
    running, ended = await core.submit(command_task()), await core.submit(command_task())
    await core.book.keeper(ended).ask(lambda decider: decider.cancel(by="test", reason="no more"))
    left = [
        ResourceHold(run_id=run_id, shard_id="lint#0", token=3, project="p", uses=ALONE)
        for run_id in (running, ended, "019a0000-0000-7000-8000-00000000ffff")
    ]
    await core.resources.restore(left)

    await core.reconciler.look()

    assert await holders(core) == []
