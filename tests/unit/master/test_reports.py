"""What workers report, and what they hold, on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.ids import new_run_id
from fleetest.common.limits import MAX_CASES_PER_TASK
from fleetest.common.results import Artifact, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, TaskState, Verdict
from fleetest.master.reports import Artifacts, Done, Ended, Output, Planned, Report, Results, Running
from fleetest.master.runs.events import DoneAttempt
from fleetest.master.sessions import AttemptRef
from tests.tools.core import Core, unwritable
from tests.tools.story import cases, command_task, pytest_task, result

DONE = Ended(verdict=Verdict.COMPLETED)
ARTIFACT = Artifact(path="out.txt", digest="0" * 64, size_bytes=3)


async def attempt(core: Core, *, kind: str = "command") -> AttemptRef:
    task = command_task() if kind == "command" else pytest_task()
    await core.submit(task)
    session = await core.connect()
    [assigned] = await core.assigned(session)
    return assigned.ref


async def test_an_attempt_is_reported_from_its_beginning_to_its_end(core: Core) -> None:
    ref = await attempt(core)

    refused = await core.report(
        ref,
        Running(),
        Output(offset_bytes=0, content=b"hello"),
        Results(results=(result("lint"),)),
        Artifacts(artifacts=(ARTIFACT,), problems=("big.bin is too large",)),
        Ended(verdict=Verdict.COMPLETED, usage=ResourceUsage(peak_memory_bytes=5)),
    )

    status = await core.status(ref.run_id)
    task = status.tasks["lint"]
    assert refused == frozenset()
    assert (task.state, task.usage.peak_memory_bytes) == (TaskState.PASSED, 5)
    saved = replace(ARTIFACT, attempt=1, created_at=core.clock.now())
    assert task.artifacts == {("lint#0", "out.txt"): saved}
    assert list(await core.custody.artifacts_of(ref.run_id)) == [("lint#0/out.txt", ARTIFACT.digest)]
    [(_, piece)] = await core.store.read_output(ref.run_id, "lint")
    assert (piece.shard_id, piece.token, piece.content) == ("lint#0", ref.token, b"hello")
    assert len(await core.store.read(ref.run_id)) == 3  # submitted, started, and all the rest


async def test_output_wakes_those_who_follow(core: Core) -> None:
    ref = await attempt(core)

    with core.hub.follow(ref.run_id) as bell:
        await core.report(ref, Output(offset_bytes=0, content=b"hello"))

        assert bell.is_set()


async def test_reports_that_are_sent_again_change_nothing(core: Core) -> None:
    ref = await attempt(core)
    some = (Running(), Output(offset_bytes=0, content=b"x"), Results(results=(result("lint", "failed"),)))
    await core.report(ref, *some)

    refused = await core.report(ref, *some)

    task = (await core.status(ref.run_id)).tasks["lint"]
    assert refused == frozenset()
    assert task.cases["lint"].tries == 1
    assert len(await core.store.read_output(ref.run_id, "lint")) == 1


async def test_reports_of_an_attempt_that_is_over_are_refused(core: Core) -> None:
    ref = await attempt(core)
    await core.report(ref, DONE)

    refused = await core.report(ref, Results(results=(result("lint", "failed"),)), DONE)

    assert refused == {ref}


@pytest.mark.parametrize("content", [Running(), Planned(cases=cases("a")), DONE], ids=["running", "planned", "ended"])
async def test_reports_on_runs_and_shards_that_do_not_exist_are_refused(core: Core, content: object) -> None:
    ref = await attempt(core)
    nowhere = AttemptRef(run_id=new_run_id(), shard_id="lint#0", token=1)
    no_shard = AttemptRef(run_id=ref.run_id, shard_id="nobody#3", token=1)

    assert await core.report(nowhere, content) == {nowhere}
    assert await core.report(no_shard, content) == {no_shard}


async def test_one_refused_attempt_does_not_keep_the_others_reports_out(core: Core) -> None:
    good = await attempt(core)
    stale = AttemptRef(run_id=good.run_id, shard_id="lint#0", token=good.token + 5)

    refused = await core.inbox.take(
        [Report(ref=stale, content=DONE), Report(ref=good, content=Results(results=(result("lint"),)))]
    )

    assert refused == {stale}
    assert (await core.status(good.run_id)).tasks["lint"].counts.passed == 1


async def test_short_attempts_are_done_at_once_each_at_most_once(core: Core) -> None:
    refs = [await attempt(core), await attempt(core)]
    done = [
        Done(run_id=ref.run_id, attempts=[DoneAttempt(shard_id="lint#0", token=ref.token, results=(result("lint"),))])
        for ref in refs
    ]

    first, again = await core.inbox.take([], done), await core.inbox.take([], done)

    assert (first, again) == (frozenset(), frozenset(refs))
    assert [(await core.status(ref.run_id)).tasks["lint"].counts.passed for ref in refs] == [1, 1]


async def test_when_the_store_fails_the_whole_batch_is_to_be_sent_again(core: Core) -> None:
    ref = await attempt(core)
    batch = (Results(results=(result("lint"),)), DONE)
    with unwritable(core.path), pytest.raises(DependencyUnavailable):
        await core.report(ref, *batch)

    assert await core.report(ref, *batch) == frozenset()

    assert (await core.status(ref.run_id)).tasks["lint"].state is TaskState.PASSED


async def test_a_plan_is_made_with_what_earlier_runs_took(core: Core) -> None:
    for expected in (None, timedelta(milliseconds=10)):
        ref = await attempt(core, kind="pytest")
        await core.report(ref, Planned(cases=cases("a", "b"), deselected=3), DONE)
        task = (await core.status(ref.run_id)).tasks["unit"]
        assert (task.predicted, task.deselected) == (expected, 3)
        session = await core.connect()
        [assigned] = await core.assigned(session)
        await core.report(assigned.ref, Results(results=(result("a"), result("b"))), DONE)
        await core.projector.flush(ref.run_id)


async def test_more_cases_than_a_task_may_have_are_an_error(core: Core) -> None:
    ref = await attempt(core, kind="pytest")
    case = PlannedCase(case_id="same")

    await core.report(ref, Planned(cases=(case,) * (MAX_CASES_PER_TASK + 1)), DONE)

    task = (await core.status(ref.run_id)).tasks["unit"]
    assert task.state is TaskState.FAILED
    assert task.cases["collection"].outcome is Outcome.ERROR


async def test_a_declined_attempt_waits_again_and_declining_twice_is_harmless(core: Core) -> None:
    ref = await attempt(core)

    await core.inbox.decline(ref, "no slot")
    await core.inbox.decline(ref, "no slot")
    await core.inbox.decline(AttemptRef(run_id=new_run_id(), shard_id="x#0", token=1), "who?")

    shard = (await core.status(ref.run_id)).shard("lint#0")
    assert shard is not None
    assert (shard.waiting, shard.attempts) == (True, 1)


async def test_reports_of_many_runs_are_taken_side_by_side(core: Core) -> None:
    refs = [await attempt(core) for _ in range(5)]

    refused = await core.inbox.take([Report(ref=ref, content=DONE) for ref in refs])

    assert refused == frozenset()
    states = await asyncio.gather(*(core.status(ref.run_id) for ref in refs))
    assert {status.tasks["lint"].state for status in states} == {TaskState.PASSED}


# -- leases: what a worker holds when its stream begins


async def test_a_worker_keeps_what_both_sides_know_of(core: Core) -> None:
    ref = await attempt(core)
    session = core.sessions.get("w1")
    assert session is not None

    forget = await core.leases.settle(session.presence, {ref})

    assert forget == []
    assert (await core.status(ref.run_id)).tasks["lint"].live == 1


async def test_an_attempt_that_never_reached_its_worker_waits_again(core: Core) -> None:
    ref = await attempt(core)
    session = core.sessions.get("w1")
    assert session is not None

    forget = await core.leases.settle(session.presence, set())

    shard = (await core.status(ref.run_id)).shard("lint#0")
    assert forget == []
    assert shard is not None
    assert (shard.waiting, shard.reason) == (True, "it never reached its worker")
    assert await core.queue.waiting(ref.run_id) == {"lint#0"}


async def test_a_worker_forgets_what_is_no_longer_its_own(core: Core) -> None:
    ref = await attempt(core)
    other = (await core.connect("w2", shards=0)).presence
    unknown = [
        AttemptRef(run_id=new_run_id(), shard_id="lint#0", token=1),
        AttemptRef(run_id="garbage", shard_id="lint#0", token=1),
        AttemptRef(run_id=ref.run_id, shard_id="lint#9", token=1),
        AttemptRef(run_id=ref.run_id, shard_id="lint#0", token=ref.token + 1),
    ]

    forget = await core.leases.settle(other, {ref, *unknown})

    assert set(forget) == {ref, *unknown}
    assert (await core.status(ref.run_id)).tasks["lint"].live == 1
