"""Two masters on one Redis and one store: what the one learns or decides, the other acts upon."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from fleetest.common.states import Outcome, RunState, Verdict
from fleetest.common.tasks import CachePolicy
from fleetest.master.cache.entries import CachedCase, entry_key
from fleetest.master.reports import Ended, Output, Results
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import Drain, Session, Stop, Want
from tests.support.shared_redis import SharedRedis
from tests.tools.core import CAPACITY, LEASE_TTL, Core, instructions, open_core, until
from tests.tools.story import command_task, pytest_task, result

DONE = Ended(verdict=Verdict.COMPLETED)


class Two(NamedTuple):
    """`b` holds the worker's stream."""

    a: Core
    b: Core
    worker: Session


@asynccontextmanager
async def hearing(core: Core) -> AsyncIterator[None]:
    """What `Master` does with the feed and with its peers."""
    told = asyncio.Event()

    async def hear() -> None:
        async for notices in core.feed.notices():
            told.set()
            core.book.hear(notices)
            await core.book.pass_on_stops(notices)

    loops = [asyncio.create_task(hear()), asyncio.create_task(core.peers.run())]
    try:
        async with asyncio.timeout(20):
            await told.wait()
        yield
    finally:
        for loop in loops:
            loop.cancel()
        for loop in loops:
            with suppress(asyncio.CancelledError):
                await loop


@pytest.fixture
async def two(tmp_path: Path, embedded_redis: SharedRedis) -> AsyncIterator[Two]:
    url = embedded_redis.url
    async with open_core(tmp_path, url) as a, open_core(tmp_path, url) as b, hearing(a), hearing(b):
        yield Two(a, b, await b.connect(stream="at b"))


class Behind(NamedTuple):
    """A keeper that has not heard of the newest commits."""

    run_id: str
    known: RunStatus

    async def status(self) -> RunStatus:
        return self.known

    async def newest_status(self) -> RunStatus:
        return self.known


async def _nothing() -> None:
    """Nothing is done."""


async def said(session: Session, kind: type) -> list[object]:
    """What of this kind the worker is told, once it is told any."""
    found: list[object] = []

    async def told() -> bool:
        found.extend(each for each in instructions(session) if isinstance(each, kind))
        return bool(found)

    await until(told)
    return found


async def test_output_that_one_master_takes_in_wakes_followers_at_the_other(two: Two) -> None:
    run_id = await two.a.submit(command_task())
    [given] = await two.b.assigned(two.worker)

    with two.a.hub.follow(run_id) as bell:
        async with asyncio.timeout(20):
            while not bell.is_set():  # words are lost on whoever has not subscribed yet
                await two.b.report(given.ref, Output(offset_bytes=0, content=b"hello"))
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await bell.wait()


async def test_what_is_cancelled_at_one_master_stops_at_the_other(two: Two) -> None:
    run_id = await two.a.submit(command_task())
    [given] = await two.b.assigned(two.worker)

    await two.a.book.keeper(run_id).ask(lambda decider: decider.cancel(by="ann", reason="enough"))

    [stop] = await said(two.worker, Stop)
    assert isinstance(stop, Stop)
    assert (stop.refs, stop.reason) == ((given.ref,), "enough")


async def test_what_a_worker_was_given_is_known_at_the_other_master(two: Two) -> None:
    await two.a.submit(command_task())
    await two.b.assigned(two.worker)

    async def seen() -> bool:
        worker = await two.a.registry.get("w1")
        return worker is not None and worker.slots_used == 1

    await until(seen)


async def test_a_worker_drained_at_one_master_is_told_by_the_other(two: Two) -> None:
    await two.a.registry.drain("w1")

    async def told() -> bool:
        two.a.peers.worker_changed("w1")  # said again, since a word may be lost
        return any(isinstance(each, Drain) for each in instructions(two.worker))

    await until(told)
    assert two.worker.bid() is None


async def test_a_worker_that_moved_to_another_master_gets_nothing_from_the_one_before(two: Two) -> None:
    moved = replace(two.worker.presence, stream="at a")
    await two.a.registry.attach(moved, lease_ttl=LEASE_TTL)

    async def over() -> bool:
        two.a.peers.worker_changed("w1")
        return two.worker.over

    await until(over)
    run_id = await two.a.submit(command_task())
    assert await two.b.assigned(two.worker) == []
    here = Session(moved)
    two.a.sessions.add(here)
    here.ask(Want(number=1, shards=1, free=CAPACITY))
    [given] = await two.a.assigned(here)
    assert given.ref.run_id == run_id


async def test_an_attempt_that_a_master_gave_to_a_stream_that_had_moved_is_given_again(two: Two) -> None:
    run_id = await two.a.submit(command_task())
    [given] = await two.b.assigned(two.worker)  # on a stream from which nobody reads any more
    moved = replace(two.worker.presence, stream="at a")
    await two.a.registry.attach(moved, lease_ttl=LEASE_TTL)
    here = Session(moved)
    two.a.sessions.add(here)

    await two.a.reconciler.look()
    before = (await two.a.status(run_id)).shard("lint#0")
    assert before is not None
    assert before.attempt is not None
    two.a.clock.advance(LEASE_TTL + timedelta(seconds=1))
    two.a.hear_from(here)
    await two.a.reconciler.look()

    here.ask(Want(number=1, shards=1, free=CAPACITY))
    [again] = await two.a.assigned(here)
    assert again.ref.token > given.ref.token


async def test_what_one_master_committed_and_did_not_project_the_other_projects(two: Two) -> None:
    run_id = await two.a.submit(command_task("one"), command_task("two"))
    refs = {each.work.task.name: each.ref for each in await two.b.assigned(two.worker)}
    two.b.projector._flush_all = _nothing  # type: ignore[method-assign]  # as one that is about to die
    await two.b.report(refs["one"], Results(results=(result("one"),)), DONE)
    await two.a.report(refs["two"], Results(results=(result("two", "failed"),)), DONE)

    row = await two.a.projector.current(two.a.book.keeper(run_id))

    assert row is not None
    assert row.state is RunState.FAILED
    cases = await two.a.store.list_cases(run_id)
    assert {case.case_id: case.outcome for case in cases} == {"one": Outcome.PASSED, "two": Outcome.FAILED}


async def test_what_another_master_commits_meanwhile_is_projected_the_next_time(two: Two) -> None:
    run_id = await two.a.submit(command_task())
    [given] = await two.b.assigned(two.worker)
    before = copy.deepcopy(await two.b.status(run_id))
    await two.b.report(given.ref, Results(results=(result("lint"),)), DONE)

    await two.a.projector.rebuild(Behind(run_id, before))
    row = await two.a.projector.current(two.a.book.keeper(run_id))

    assert row is not None
    assert row.state is RunState.PASSED
    assert [case.case_id for case in await two.a.store.list_cases(run_id)] == ["lint"]


async def test_a_run_that_another_master_takes_in_is_found_though_it_was_missed_before(two: Two) -> None:
    run_id = await two.a.submit(command_task())
    late = two.b.book.keeper(run_id)
    late._status = type(await late.status())(run_id)  # as it was before the run was taken in

    with suppress(LookupError):
        await two.b.projector.current(late)

    assert (await two.b.status(run_id)).position == 1


async def test_what_is_cached_at_one_master_goes_when_another_hears_that_it_is_invalid(two: Two) -> None:
    key = entry_key("p", pytest_task(cache=CachePolicy()), "test_a.py", "f")
    passed = {"one": CachedCase(run_id="r1", at=two.b.clock.now())}
    await two.b.cache.keep("p", {key: passed}, {})
    two.a.clock.advance(timedelta(seconds=1))

    await two.a.cache.invalidate("p")

    async def gone() -> bool:
        return not await two.b.cache._layer.get([key])

    await until(gone)
    assert await two.b.cache.look_up("p", [key]) == {}


async def test_masters_that_look_at_the_same_time_repair_each_thing_once(two: Two) -> None:
    run_id = await two.a.submit(command_task(shards=3))
    given = await two.b.assigned(two.worker)
    await two.a.registry.end("w1", two.worker.presence.session_id)
    two.b.sessions.remove(two.worker)
    await two.a.redis.delete("fleetest:{0}:2:entries", f"fleetest:{{0}}:2:index:{run_id}")
    for core in (two.a, two.b):
        core.clock.advance(LEASE_TTL + timedelta(seconds=1))

    await asyncio.gather(*(core.reconciler.look() for core in (two.a, two.b) for _ in range(3)))

    status = await two.b.book.keeper(run_id).newest_status()
    assert len(given) == 3
    assert [shard.mishaps for shard in status.tasks["lint"].shards.values()] == [1, 1, 1]
    assert await two.a.queue.waiting(run_id) == {"lint#0", "lint#1", "lint#2"}
    assert await two.a.queue.depth() == 3
