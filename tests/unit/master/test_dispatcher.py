"""Waiting shards and willing workers are brought together, on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.ids import new_run_id
from fleetest.common.states import ShardKind, TaskState, Verdict
from fleetest.common.tasks import Access, OnLost, Resources, Use
from fleetest.master.dispatcher import Dispatcher
from fleetest.master.queue.ports import QueueEntry, ResourceHold
from fleetest.master.queue.redis_ledger import RedisResourceLedger
from fleetest.master.reports import Ended, Planned, Running
from fleetest.master.sessions import Assign, Assigned, Begin, Expect, Session, Stop, Want
from fleetest.master.store.ports import Commit
from fleetest.master.turned_down import TurnedDown
from tests.support.shared_redis import SharedRedis
from tests.tools.core import Core, instructions, open_core, until, unwritable
from tests.tools.story import START, cases, command_task, pytest_task, submitted


async def test_a_waiting_shard_goes_to_a_worker_that_wants_it(core: Core) -> None:
    run_id = await core.submit(command_task(shards=2, env={"A": "1"}))
    session = await core.connect(shards=1)

    [assigned] = await core.assigned(session)

    assert (assigned.ref.run_id, assigned.ref.shard_id, assigned.ref.token) == (run_id, "lint#0", 2)
    assert (assigned.work.kind, assigned.number, assigned.shard_index) == (ShardKind.EXECUTE, 1, 0)
    assert (assigned.work.task.env, assigned.case_ids, assigned.work.shard_count) == ({"A": "1"}, (), 2)
    assert await core.queue.waiting(run_id) == {"lint#1"}
    assert (await core.status(run_id)).tasks["lint"].state is TaskState.LEASED


async def test_a_run_goes_on_while_its_very_many_shards_are_queued_and_leaves_none_of_them_behind(core: Core) -> None:
    run_id = new_run_id()
    keeper = core.book.keeper(run_id)
    await keeper.ask(lambda decider: decider.submit(submitted(command_task(shards=1_200))))
    being_queued = core.book.enqueues(run_id)

    await keeper.ask(lambda decider: decider.cancel(by="ann", reason="enough"))

    assert being_queued
    assert not core.book.enqueues(run_id)
    assert not await core.queue.waiting(run_id)


async def test_what_is_wanted_while_the_queue_is_asked_is_not_answered_before_it_is_asked_for_that(core: Core) -> None:
    session = await core.connect(shards=1)
    dispatching = asyncio.create_task(core.dispatcher.dispatch())
    await asyncio.sleep(0)

    session.ask(Want(number=2, shards=1, free=session.presence.free))
    await dispatching
    too_early = instructions(session)
    await core.dispatcher.dispatch()

    assert too_early == []
    assert instructions(session) == [Assign(want_number=2, assigned=())]


async def test_the_shards_of_a_plan_carry_their_cases(core: Core) -> None:
    run_id = await core.submit(pytest_task(shards=2))
    session = await core.connect(shards=9)
    [planning] = await core.assigned(session)
    await core.report(planning.ref, Planned(cases=cases("a", "b", "c")))

    assigned = await core.assigned(session)

    assert (planning.work.kind, planning.work.shard_count) == (ShardKind.PLAN, 1)
    assert sorted(each.case_ids for each in assigned) == [("a", "c"), ("b",)]
    assert {each.work.shard_count for each in assigned} == {2}
    assert {each.ref.run_id for each in assigned} == {run_id}


async def test_workers_with_room_are_told_to_expect_what_another_one_plans(core: Core) -> None:
    run_id = await core.submit(pytest_task(requirements={"os": "linux"}))
    other = await core.connect("other", shards=2, capabilities={"os": "linux"})
    wrong = await core.connect("wrong", capabilities={"os": "macos"})
    core.sessions.know_speeds({"other": 0.5})
    planner = await core.connect("planner", shards=1, capabilities={"os": "linux"})

    await core.dispatcher.dispatch()

    told = {
        session.presence.worker_id: [each for each in instructions(session) if isinstance(each, Expect)]
        for session in (other, wrong, planner)
    }
    assert [(each.run_id, each.task.name, each.slots) for each in told["other"]] == [(run_id, "unit", 2)]
    assert not told["wrong"]
    assert not told["planner"]


@pytest.mark.parametrize(("lasting", "seconds"), [(("unit",), 0), ((), 0.3)])
async def test_slots_get_ready_at_once_for_what_is_known_to_last(
    core: Core, lasting: tuple[str, ...], seconds: float
) -> None:
    await core.submit(pytest_task(), lasting=lasting)
    other = await core.connect("other", shards=1)
    core.sessions.know_speeds({"other": 0.5})
    await core.connect("planner", shards=1)

    await core.dispatcher.dispatch()

    told = [each for each in instructions(other) if isinstance(each, Expect)]
    assert [each.after.total_seconds() for each in told] == [seconds]


async def test_nobody_is_told_to_expect_a_task_with_secrets(core: Core) -> None:
    await core.submit(pytest_task(secrets=("TOKEN",)), secrets={"TOKEN": "x"})
    sessions = [await core.connect(name) for name in ("w1", "w2")]

    await core.dispatcher.dispatch()

    assert not [told for session in sessions for told in instructions(session) if isinstance(told, Expect)]


async def test_a_want_is_answered_even_when_there_is_nothing(core: Core) -> None:
    session = await core.connect()

    await core.dispatcher.dispatch()
    await core.dispatcher.dispatch()

    assert instructions(session) == [Assign(want_number=1, assigned=())]


async def test_a_worker_for_whom_nothing_waits_is_not_asked_for_again_before_there_is_news(core: Core) -> None:
    session = await core.connect(shards=1)
    await core.dispatcher._hand_out()
    before = await _asked(core)

    session.ask(Want(number=2, shards=4, free=session.presence.free))
    await core.dispatcher._hand_out()
    asked_in_vain = await _asked(core) - before
    await core.submit(command_task())
    core.dispatcher.wake()
    begun = await core.dispatcher._hand_out()

    assert (asked_in_vain, begun) == (0, 1)
    assert [told.want_number for told in instructions(session) if isinstance(told, Assign)] == [1, 2, 2]


async def test_a_worker_is_asked_for_again_when_it_has_more_room_than_before(core: Core) -> None:
    await core.submit(command_task(resources=Resources(cpu_millis=3000)))
    session = await core.connect(shards=0)
    session.ask(Want(number=1, shards=1, free=Resources(cpu_millis=1000)))
    assert await core.dispatcher._hand_out() == 0

    session.ask(Want(number=2, shards=1, free=Resources(cpu_millis=3000)))

    assert await core.dispatcher._hand_out() == 1


async def test_one_round_serves_many_workers_and_runs(core: Core) -> None:
    runs = [await core.submit(command_task(shards=2)) for _ in range(3)]
    sessions = [await core.connect(f"w{index}", shards=2) for index in range(3)]

    await core.dispatcher.dispatch()

    told = [told for session in sessions for told in instructions(session)]
    refs = [each.ref for answer in told if isinstance(answer, Assign) for each in answer.assigned]
    assert sorted(ref.run_id for ref in refs) == sorted(runs * 2)
    assert [(await core.store.read(run_id))[-1].position for run_id in runs] == [2, 2, 2]


async def test_what_a_worker_was_given_is_taken_off_what_it_wants(core: Core) -> None:
    await core.submit(command_task(shards=5, resources=Resources(cpu_millis=3000)))
    session = await core.connect(shards=4)

    given = await core.assigned(session)

    assert len(given) == 2
    assert session.want == Want(
        number=1, shards=2, free=Resources(cpu_millis=2000, memory_bytes=8 << 30, disk_bytes=8 << 30)
    )


async def test_a_session_that_is_quick_is_given_several_shards_in_one_commit(core: Core) -> None:
    run_id = await core.submit(command_task(shards=20, resources=Resources(cpu_millis=8000)))
    session = await core.connect(shards=1)
    [first] = await core.assigned(session)
    warm = frozenset({first.work.environment_key})

    session.ask(Want(number=2, shards=1, free=session.presence.capacity, warm_environment_keys=warm, ahead=3))
    given = await core.assigned(session)

    assert [(each.ref.shard_id, each.follows) for each in given] == [
        ("lint#1", False),
        ("lint#2", True),
        ("lint#3", True),
        ("lint#4", True),
    ]
    assert len({each.ref.token for each in given}) == 1
    assert len(await core.queue.waiting(run_id)) == 15


async def test_a_draining_worker_gets_nothing(core: Core) -> None:
    await core.submit(command_task())
    session = await core.connect(draining=True)

    assert await core.assigned(session) == []


async def test_claims_go_back_when_the_store_fails(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()

    with unwritable(core.path):
        assert await core.assigned(session) == []

    assert await core.queue.waiting(run_id) == {"lint#0"}
    assert len(await core.assigned(session)) == 1


async def test_a_leftover_entry_of_a_shard_that_waits_no_more_is_dropped(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    await core.book.keeper(run_id).ask(lambda decider: decider.start_attempt("lint#0", "other", "other-1"))

    assert await core.assigned(session) == []

    assert await core.queue.waiting(run_id) == frozenset()


async def test_an_entry_of_a_run_that_does_not_exist_is_dropped(core: Core) -> None:
    run_id = new_run_id()
    await core.queue.enqueue([_entry(run_id)])
    session = await core.connect()

    assert await core.assigned(session) == []

    assert await core.queue.waiting(run_id) == frozenset()


async def test_an_entry_of_a_run_that_cannot_be_read_is_dropped(core: Core) -> None:
    run_id = new_run_id()
    await core.store.append(Commit(run_id=run_id, position=1, at=START, events=b"from the future"))
    await core.queue.enqueue([_entry(run_id)])
    session = await core.connect()

    assert await core.assigned(session) == []

    assert await core.queue.waiting(run_id) == frozenset()


async def test_a_task_gets_its_secrets_and_no_others(core: Core) -> None:
    task = command_task(secrets=("TOKEN",), credentials={"SHOP_TOKEN": "OF_THE_SHOP"})
    await core.submit(task, secrets={"TOKEN": "s3cret", "OF_THE_SHOP": "sesame", "OTHER": "x"})
    session = await core.connect()

    [assigned] = await core.assigned(session)

    assert assigned.work.secrets == {"TOKEN": "s3cret", "SHOP_TOKEN": "sesame"}
    assert "s3cret" not in repr(assigned)


async def test_a_task_whose_secret_is_gone_fails_and_says_so(core: Core) -> None:
    run_id = await core.submit(command_task(secrets=("TOKEN",), retries=3))
    session = await core.connect()

    assert await core.assigned(session) == []

    task = (await core.status(run_id)).tasks["lint"]
    assert task.state is TaskState.FAILED
    assert task.reason.startswith("the secret TOKEN is no longer held")


async def test_what_began_for_a_stream_that_ended_meanwhile_waits_again(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    again = Session(session.presence)
    dispatch = asyncio.create_task(core.dispatcher.dispatch())
    await asyncio.sleep(0)

    core.sessions.add(again)
    await dispatch

    status = await core.status(run_id)
    shard = status.shard("lint#0")
    assert shard is not None
    assert (shard.waiting, shard.attempts, shard.mishaps) == (True, 1, 0)
    assert shard.reason == "declined by w1: its stream ended before this was sent"
    assert instructions(again) == []


async def test_what_began_is_sent_although_redis_dies_before_the_claim_is_confirmed(
    tmp_path: Path, embedded_redis: SharedRedis
) -> None:
    async with open_core(tmp_path, embedded_redis.url, busy_timeout=timedelta(seconds=30)) as core:
        run_id = await core.submit(command_task())
        session = await core.connect()

        with unwritable(core.path):
            dispatch = asyncio.create_task(core.assigned(session))
            await until(lambda: _claimed(core))
            assert embedded_redis.pid is not None
            os.kill(embedded_redis.pid, signal.SIGKILL)
            await embedded_redis.wait()

        assert [each.ref.shard_id for each in await dispatch] == ["lint#0"]
        assert (await core.status(run_id)).tasks["lint"].live == 1


async def test_dispatching_without_redis_says_so(core: Core, embedded_redis: SharedRedis) -> None:
    await core.connect()
    await embedded_redis.stop()

    with pytest.raises(DependencyUnavailable):
        await core.dispatcher.dispatch()


async def test_the_loop_dispatches_whatever_comes_and_survives_failures(
    core: Core, embedded_redis: SharedRedis
) -> None:
    session = await core.connect(shards=3)
    first = await core.submit(command_task())
    loop = asyncio.create_task(core.dispatcher.run())
    try:
        with unwritable(core.path):
            await until(lambda: _told(session))  # that there is nothing: the store took no attempt
        await until(lambda: _leased(core, first))

        with capture_logs() as logs:
            await embedded_redis.stop()
            core.dispatcher.wake()
            await until(lambda: _logged(logs, "dispatch_failed"))
        await embedded_redis.start()
        second = await core.submit(command_task())
        await until(lambda: _leased(core, second))
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def _logged(logs: Sequence[Mapping[str, object]], event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


async def _asked(core: Core) -> int:
    """How many scripts of the queue Redis has run."""
    return int((await core.redis.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def _told(session: Session) -> bool:
    return not session.instructions.empty()


async def _leased(core: Core, *run_ids: str) -> bool:
    return all([(await core.status(run_id)).tasks["lint"].live == 1 for run_id in run_ids])


async def _claimed(core: Core) -> bool:
    return await core.queue.depth() == 0


def _entry(run_id: str) -> QueueEntry:
    return QueueEntry(
        run_id=run_id,
        shard_id="lint#0",
        project="p",
        priority=50,
        enqueued_at=START,
        requirements={},
        resources=Resources(),
    )


class _TooLate(RedisResourceLedger):
    """Redis loses everything between the commit of an attempt and the next word of it."""

    async def keep(self, holds: Sequence[ResourceHold], worker_ids: Sequence[str]) -> Sequence[ResourceHold]:
        await self._redis.flushall()
        return await super().keep(holds, worker_ids)


async def test_an_attempt_that_lost_its_resources_before_it_was_sent_is_not_sent(core: Core) -> None:
    await core.reconciler.look()
    run_id = await core.submit(
        command_task(uses=(Use(resource="shop", access=Access.EXCLUSIVE),)), command_task("free")
    )
    session = await core.connect()
    dispatcher = Dispatcher(core.sessions, core.queue, core.book, core.secrets, _TooLate(core.redis), TurnedDown())

    await dispatcher.dispatch()

    assert [
        each.work.task.name for told in instructions(session) if isinstance(told, Assign) for each in told.assigned
    ] == ["free"]
    shard = (await core.status(run_id)).shard("lint#0")
    assert shard is not None
    assert shard.waiting
    assert "others were given its resources" in shard.reason


async def test_a_gang_goes_to_several_workers_at_once_and_begins_when_all_are_ready(core: Core) -> None:
    run_id = await core.submit(command_task(shards=3, gang=OnLost.ABORT))
    first = await core.connect("w1", shards=2)
    assert await core.assigned(first) == []
    second = await core.connect("w2", shards=1)

    await core.dispatcher.dispatch()

    given = {session: assigned_to(session) for session in (first, second)}
    assert [len(given[session]) for session in (first, second)] == [2, 1]
    refs = [each.ref for each in (*given[first], *given[second])]
    assert len({ref.token for ref in refs}) == 1
    for ref in refs[:2]:
        await core.report(ref, Running())
    assert begun(first) == []
    await core.report(refs[2], Running())
    assert [(each.ref, each.after.total_seconds()) for each in (*begun(first), *begun(second))] == [
        (ref, 1.0) for ref in refs
    ]

    core.clock.advance(timedelta(seconds=5))
    await core.reconciler.look()
    assert [each.after for each in begun(second)] == [timedelta()]

    await core.report(refs[0], Ended(verdict=Verdict.ERRORED, reason="disk full"))
    assert [(each.refs, each.reason) for each in instructions(second) if isinstance(each, Stop)] == [
        ((refs[2],), "disk full")
    ]
    assert await core.queue.waiting(run_id) == frozenset()
    await core.report(refs[1], Ended(verdict=Verdict.CANCELLED))
    await core.report(refs[2], Ended(verdict=Verdict.CANCELLED))
    assert await core.queue.waiting(run_id) == {"lint#0", "lint#1", "lint#2"}


def assigned_to(session: Session) -> list[Assigned]:
    return [each for told in instructions(session) if isinstance(told, Assign) for each in told.assigned]


def begun(session: Session) -> list[Begin]:
    return [each for each in instructions(session) if isinstance(each, Begin)]


async def test_slots_that_one_worker_has_free_are_remembered_until_the_gang_has_all(core: Core) -> None:
    await core.submit(command_task(shards=4, gang=OnLost.ABORT))
    first = await core.connect("w1", shards=2)
    for _ in range(2):
        await core.dispatcher._hand_out()

    await core.connect("w2", shards=2)
    await core.dispatcher._hand_out()

    assert len(assigned_to(first)) == 2
