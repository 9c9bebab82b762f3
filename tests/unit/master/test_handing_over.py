"""Workers that have nothing to do are given work in the commit that would queue it, on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.states import TaskState, Verdict
from fleetest.common.tasks import Access, OnLost, Resources, Use
from fleetest.master.reports import Ended, Planned
from fleetest.master.sessions import Assign, Assigned, Expect, Session, Want
from fleetest.master.store.sqlite_shortcut import SMALL_BYTES
from fleetest.master.submission import Submission
from fleetest.master.turned_down import TurnedDown
from tests.support.shared_redis import SharedRedis
from tests.tools.core import Core, instructions, open_core, unwritable
from tests.tools.story import cases, command_task, pytest_task

SUITE = "version: 1\nname: s\nproject: p\ntasks: {lint: {command: [lint]}}"

TOO_LARGE_TO_BE_COMMITTED_AT_ONCE = command_task(env={"LARGE": "x" * 2 * SMALL_BYTES})


@pytest.fixture
async def core(tmp_path: Path, embedded_redis: SharedRedis) -> AsyncIterator[Core]:
    async with open_core(tmp_path, embedded_redis.url, turned_down=TurnedDown()) as core:
        yield core


async def idle(core: Core, worker_id: str = "w1", *, shards: int = 4, **settings: object) -> Session:
    """A worker that asked for work, and heard that there is none."""
    session = await core.connect(worker_id, shards=shards, **settings)
    await core.dispatcher.dispatch()
    assert instructions(session) == [Assign(want_number=1, assigned=())]
    return session


def given(session: Session) -> list[Assigned]:
    return [each for told in instructions(session) if isinstance(told, Assign) for each in told.assigned]


async def test_an_idle_worker_is_given_what_is_submitted_in_the_same_commit(core: Core) -> None:
    session = await idle(core)

    run_id = await core.submit(command_task())

    [assigned] = given(session)
    assert (assigned.ref.run_id, assigned.ref.shard_id, assigned.ref.token) == (run_id, "lint#0", 1)
    assert [commit.position for commit in await core.store.read(run_id)] == [1]
    assert (await core.status(run_id)).tasks["lint"].state is TaskState.LEASED
    assert session.want == Want(number=1, shards=3, free=session.presence.free)
    assert await core.queue.waiting(run_id) == frozenset()


async def test_the_shards_of_a_plan_begin_with_it_and_the_others_get_ready_meanwhile(core: Core) -> None:
    sessions = [await idle(core, name) for name in ("w1", "w2")]
    await core.submit(pytest_task(shards=2))
    told = [instructions(session) for session in sessions]
    [planning] = [each for some in told for each in some if isinstance(each, Assign)]
    [ref] = [each.ref for each in planning.assigned]

    await core.report(ref, Planned(cases=cases("a", "b")), Ended(verdict=Verdict.COMPLETED))

    assert any(isinstance(each, Expect) for some in told for each in some)
    assert sorted(each.case_ids for session in sessions for each in given(session)) == [("a",), ("b",)]
    assert len(await core.store.read(ref.run_id)) == 2


async def test_each_idle_worker_gets_what_fits_and_the_rest_is_queued(core: Core) -> None:
    first = await idle(core, "w1", shards=9)
    second = await idle(core, "w2", shards=1)
    other = await idle(core, "w3", capabilities={"os": "macos"}, capacity=Resources(cpu_millis=1000))

    run_id = await core.submit(command_task(shards=6, resources=Resources(cpu_millis=3000)))

    assert [len(given(session)) for session in (first, second, other)] == [2, 1, 0]
    assert len(await core.queue.waiting(run_id)) == 3


async def test_nobody_who_waits_is_passed_over(core: Core) -> None:
    session = await core.connect(shards=0)
    session.ask(Want(number=1, shards=1, free=Resources(cpu_millis=1000)))
    large = await core.submit(command_task(resources=Resources(cpu_millis=3000)))
    await core.dispatcher.dispatch()

    small = await core.submit(command_task(resources=Resources(cpu_millis=1000)))

    assert given(session) == []
    assert await core.queue.waiting(large) == await core.queue.waiting(small) == {"lint#0"}


async def test_what_needs_more_than_a_worker_goes_through_the_queue(core: Core) -> None:
    session = await idle(core)
    database = Use(resource="database", access=Access.EXCLUSIVE)

    run_id = await core.submit(
        command_task("user", uses=(database,)),
        command_task("secretive", secrets=("TOKEN",)),
        command_task("together", shards=2, gang=OnLost.ABORT),
        secrets={"TOKEN": "x"},
    )

    assert given(session) == []
    assert await core.queue.waiting(run_id) == {"user#0", "secretive#0", "together#0", "together#1"}


async def test_nothing_is_given_when_the_commit_fails(core: Core) -> None:
    session = await idle(core)
    before = session.want

    with unwritable(core.path), pytest.raises(DependencyUnavailable):
        await core.submit(command_task())

    assert instructions(session) == []
    assert session.want == before


async def test_a_second_submission_with_the_same_key_gives_nothing(core: Core) -> None:
    session = await idle(core)
    submission = Submission(suite_text=SUITE, idempotency_key="k")
    first = await core.desk.submit(submission)
    before, [assigned] = session.want, given(session)

    second = await core.desk.submit(submission)

    assert second == replace(first, already=True)
    assert (assigned.ref.run_id, given(session), session.want) == (first.run_id, [], before)


async def test_what_began_for_a_stream_that_ended_meanwhile_waits_again(core: Core) -> None:
    session = await idle(core)
    submitting = asyncio.create_task(core.submit(TOO_LARGE_TO_BE_COMMITTED_AT_ONCE))
    while session.want is not None and session.want.shards == 4:
        await asyncio.sleep(0)

    core.sessions.add(Session(session.presence))
    run_id = await submitting
    await core.book.keeper(run_id).ask(lambda _: None)

    shard = (await core.status(run_id)).shard("lint#0")
    assert shard is not None
    assert (shard.waiting, shard.attempts, shard.mishaps) == (True, 1, 0)
    assert given(session) == []


async def test_what_a_master_began_and_never_sent_since_it_died_is_made_by_another(
    core: Core, tmp_path: Path, embedded_redis: SharedRedis
) -> None:
    worker = await idle(core)
    run_id = await core.submit(command_task())
    [never_sent] = given(worker)

    async with open_core(tmp_path, embedded_redis.url) as other:
        forget = await other.leases.settle(worker.presence, set())
        again = Session(worker.presence)
        other.sessions.add(again)
        again.ask(Want(number=2, shards=1, free=worker.presence.free))
        [assigned] = await other.assigned(again)
        refused = await other.report(never_sent.ref, Ended(verdict=Verdict.COMPLETED))

    assert forget == []
    assert (assigned.ref.shard_id, assigned.number) == ("lint#0", 2)
    assert (assigned.ref.run_id, refused) == (run_id, {never_sent.ref})


async def test_what_a_worker_asks_for_while_its_attempt_is_committed_is_less_that_attempt(core: Core) -> None:
    session = await idle(core)
    submitting = asyncio.create_task(core.submit(TOO_LARGE_TO_BE_COMMITTED_AT_ONCE))
    while session.want is not None and session.want.shards == 4:
        await asyncio.sleep(0)

    session.ask(Want(number=2, shards=4, free=session.presence.free))
    await submitting

    assert session.want == Want(number=2, shards=3, free=session.presence.free)
    assert [told.want_number for told in instructions(session) if isinstance(told, Assign)] == [2]
