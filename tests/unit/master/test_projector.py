"""What is read often follows the log, on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from fleetest.common.clock import ManualClock
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.ids import new_run_id
from fleetest.common.results import Artifact, PlannedCase
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.master.activity import Activity
from fleetest.master.queue.ports import CommitNotice
from fleetest.master.reports import Artifacts, Ended, Planned, Results, Running
from fleetest.master.runs.hub import Hub
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.summary import row_of, summary_of, summary_of_row
from fleetest.master.store.ports import RunRow
from fleetest.master.store.sqlite import SqliteStore
from tests.support.shared_redis import SharedRedis
from tests.tools.core import Core, open_core, until, unwritable
from tests.tools.story import START, command_task, need, result

DONE = Ended(verdict=Verdict.COMPLETED)


async def row(core: Core, run_id: str) -> RunRow:
    found = await core.store.get_run(run_id)
    assert found is not None
    return found


async def test_a_run_and_its_cases_are_projected_within_a_moment(core: Core) -> None:
    run_id = await core.submit(command_task(retries=1), command_task("b", needs=(need("lint"),)))
    session = await core.connect()
    for outcome in ("failed", "passed"):
        [assigned] = await core.assigned(session)
        await core.report(assigned.ref, Results(results=(result("lint", outcome),)), DONE)

    async def projected() -> bool:
        return (await row(core, run_id)).position == (await core.status(run_id)).position

    await until(projected)

    [case] = await core.store.list_cases(run_id)
    assert (case.outcome, case.flaky, case.index, case.body["attempts"]) == (Outcome.PASSED, True, 0, 2)
    assert (case.body["worker_id"], case.body["shard_id"]) == ("w1", "lint#0")


async def test_a_run_that_ends_while_no_other_waits_is_projected_at_once(core: Core, tmp_path: Path) -> None:
    run_id = await core.submit(command_task())
    keeper = core.book.keeper(run_id)
    await keeper.ask(lambda decider: decider.cancel(by="x", reason="y"))

    async with (
        await SqliteStore.open(tmp_path / "other.sqlite") as store,
        Projector(store, interval=timedelta(hours=1)) as projector,
    ):
        status = await core.status(run_id)
        for position in range(1, status.position + 1):
            projector.take(keeper, status, position, ())

        await until(lambda: store.get_run(run_id))


async def test_a_summary_comes_back_from_its_row(core: Core) -> None:
    run_id = await core.submit(command_task(), command_task("b", needs=(need("lint"),)), labels={"a": "b"})
    session = await core.connect()
    [assigned] = await core.assigned(session)
    artifact = Artifact(path="x", digest="0" * 64, size_bytes=1)
    await core.report(assigned.ref, Results(results=(result("lint"),)), Artifacts(artifacts=(artifact,)), DONE)

    summary = summary_of(await core.status(run_id))
    await core.projector.flush(run_id)

    assert summary_of_row(await row(core, run_id)) == summary
    assert summary_of_row(row_of(summary)) == summary
    lint, after = summary.tasks
    assert (lint.state, lint.shards, lint.shards_done, lint.attempts) == (TaskState.PASSED, 1, 1, 1)
    [left] = lint.artifacts
    assert (left.shard_id, left.artifact.path, left.artifact.attempt) == ("lint#0", "x", 1)
    assert (after.needs, after.state) == (("lint",), TaskState.QUEUED)


async def test_what_the_store_refuses_is_projected_later(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    [assigned] = await core.assigned(session)
    await core.report(assigned.ref, Results(results=(result("lint"),)))

    with unwritable(core.path), pytest.raises(DependencyUnavailable):
        await core.projector.rebuild(core.book.keeper(run_id))
    await core.report(assigned.ref, DONE)
    await core.projector.flush(run_id)

    assert (await row(core, run_id)).state is RunState.PASSED
    assert len(await core.store.list_cases(run_id)) == 1


async def test_a_projector_that_fails_in_the_background_goes_on(core: Core) -> None:
    run_id = await core.submit(command_task())
    core.projector._dirty["broken"] = core.book.keeper(new_run_id())  # no such run
    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    async def projected() -> bool:
        return (await row(core, run_id)).state is RunState.CANCELLED

    await until(projected)


async def test_leaving_a_projector_projects_the_rest(tmp_path: Path, embedded_redis: SharedRedis) -> None:
    async with open_core(tmp_path, embedded_redis.url) as core:
        run_id = await core.submit(command_task())
        await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    async with await SqliteStore.open(tmp_path / "fleetest.sqlite") as store:
        found = await store.get_run(run_id)
    assert found is not None
    assert found.state is RunState.CANCELLED


async def test_durations_are_remembered_once_for_each_run_of_what_is_planned(core: Core) -> None:
    run_id = await core.submit(command_task("list", cases="ls"), command_task("lint"))
    session = await core.connect()
    for _ in range(2):
        for each in await core.assigned(session):
            listed = Planned(cases=(PlannedCase(case_id="a"),))
            told = listed if each.work.kind is ShardKind.PLAN else Results(results=(result("a"),))
            await core.report(each.ref, Running(), told, DONE)
    await core.projector.flush(run_id)
    before = await core.store.load_history("p", "list")

    await core.projector.rebuild(core.book.keeper(run_id))

    assert (await core.status(run_id)).state is RunState.PASSED
    assert before["a"].duration == timedelta(milliseconds=5)
    assert await core.store.load_history("p", "list") == before
    assert await core.store.load_history("p", "lint") == {}  # it is one whole


# -- the book


async def test_keepers_of_ended_runs_are_forgotten_and_those_of_live_ones_kept(core: Core) -> None:
    live = await core.submit(command_task())
    keeper = core.book.keeper(live)
    ended = await core.submit()
    before = core.book.keeper(ended)

    for _ in range(400):
        core.book.keeper(new_run_id())

    assert core.book.keeper(live) is keeper
    assert core.book.keeper(ended) is not before
    assert (await core.status(ended)).state is RunState.PASSED


async def test_a_notice_makes_a_keeper_read_on_and_wakes_followers(core: Core, embedded_redis: SharedRedis) -> None:
    run_id = await core.submit(command_task())
    await core.status(run_id)
    async with open_core(core.path.parent, embedded_redis.url) as other:
        await other.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    with core.hub.follow(run_id) as bell:
        core.book.hear([CommitNotice(run_id=run_id, position=2, events=None)])
        core.book.hear([CommitNotice(run_id=new_run_id(), position=2, events=None)])

        assert bell.is_set()
    assert (await core.status(run_id)).state is RunState.CANCELLED


async def test_a_notice_of_ones_own_commit_wakes_nobody_again(core: Core) -> None:
    run_id = await core.submit(command_task())

    with core.hub.follow(run_id) as bell:
        core.book.hear([CommitNotice(run_id=run_id, position=1, events=None)])

        assert not bell.is_set()


async def test_when_notices_may_have_been_lost_every_keeper_reads_on(core: Core, embedded_redis: SharedRedis) -> None:
    run_id = await core.submit(command_task())
    await core.status(run_id)
    async with open_core(core.path.parent, embedded_redis.url) as other:
        await other.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    with core.hub.follow(run_id) as bell:
        core.book.hear([])

        assert bell.is_set()
    assert (await core.status(run_id)).state is RunState.CANCELLED


async def test_a_commit_stands_although_redis_does_not_answer(core: Core, embedded_redis: SharedRedis) -> None:
    run_id = await core.submit(command_task(), command_task("b"))
    await embedded_redis.stop()

    await core.book.keeper(run_id).ask(lambda decider: decider.cancel("b", by="x", reason="y"))

    assert (await core.status(run_id)).tasks["b"].state is TaskState.CANCELLED


async def test_the_shards_of_a_task_that_ends_leave_the_queue(core: Core) -> None:
    run_id = await core.submit(command_task("a", shards=3), command_task("b"))

    await core.book.keeper(run_id).ask(lambda decider: decider.cancel("a", by="x", reason="y"))
    assert await core.queue.waiting(run_id) == {"b#0"}
    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))

    assert await core.queue.waiting(run_id) == frozenset()


# -- the hub, and whether anybody is there


async def test_a_bell_rings_for_its_run_only_and_while_somebody_follows() -> None:
    hub = Hub()
    with hub.follow("a") as first, hub.follow("a") as second, hub.follow("b") as other:
        hub.ring("a")

        assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
    hub.ring("a")
    assert not hub._bells


async def test_a_master_is_idle_when_nobody_calls_and_nothing_runs(core: Core) -> None:
    limit = timedelta(milliseconds=20)
    clock = ManualClock(START)
    activity = Activity(clock)
    run_id = await core.submit(command_task())
    idle = asyncio.create_task(activity.idle(core.store, limit))

    with activity.call():
        clock.advance(limit)
        await asyncio.sleep(0.05)
        assert not idle.done()
    clock.advance(limit)
    await asyncio.sleep(0.05)
    assert not idle.done(), "a run is active"
    await core.book.keeper(run_id).ask(lambda decider: decider.cancel(by="x", reason="y"))
    await core.projector.flush(run_id)
    clock.advance(limit)

    await asyncio.wait_for(idle, 5)


async def test_a_store_that_does_not_answer_does_not_end_the_master(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.sqlite")
    await store.close()
    clock = ManualClock(START)
    activity = Activity(clock)
    clock.advance(timedelta(seconds=1))

    idle = asyncio.create_task(activity.idle(store, timedelta(milliseconds=10)))
    done, _ = await asyncio.wait([idle], timeout=0.1)
    idle.cancel()

    assert not done
