from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleetest.client.async_client import AsyncClient
from fleetest.client.connection import Persistence
from fleetest.client.events import RunEnded
from fleetest.common.errors import (
    DependencyUnavailable,
    Forbidden,
    NotFound,
    Unauthenticated,
)
from fleetest.common.suite import Problem, SuiteInvalid
from tests.unit.client.scripted_master import RUN_ID, ScriptedMaster, commits, passing_run, run_ended


async def positions(client, **options):
    return [commit.position async for commit in client.watch(RUN_ID, **options)]


async def test_every_call_says_who_calls(master, at_once):
    async with AsyncClient(master.address, token="secret", persistence=at_once) as client:
        await client.get_run()
        await positions(client)

    for _, _, metadata in master.calls:
        assert metadata["authorization"] == "Bearer secret"
        assert metadata["fleetest-protocol"] == "1"
    ids = {metadata["x-request-id"] for _, _, metadata in master.calls}
    assert len(ids) == len(master.calls) == 2


async def test_without_a_token_none_is_sent(master, at_once):
    async with AsyncClient(master.address, persistence=at_once) as client:
        await client.get_run()

    assert "authorization" not in master.calls[0][2]


async def test_call_is_made_again_when_the_master_was_unavailable(master, at_once):
    told = []
    master.faults.extend([DependencyUnavailable("redis is gone")] * 2)

    async with AsyncClient(master.address, persistence=at_once, on_trouble=told.append) as client:
        run = await client.get_run()

    assert run.run_id == RUN_ID
    assert len(told) == 2
    assert told[1] == f"{master.address} does not answer; trying again for 20 s"


async def test_call_moves_to_the_next_address(master, at_once):
    async with AsyncClient(f"127.0.0.1:1,{master.address}", persistence=at_once) as client:
        run = await client.get_run()

    assert run.run_id == RUN_ID


async def test_nobody_at_any_address_is_said_once_patience_is_over():
    told = []
    hasty = Persistence(patience=timedelta())
    async with AsyncClient("127.0.0.1:1,127.0.0.1:2", persistence=hasty, on_trouble=told.append) as client:
        with pytest.raises(DependencyUnavailable, match=r"no master answers at 127\.0\.0\.1:1, ") as caught:
            await client.get_run()

    assert told == ["127.0.0.1:1 does not answer; trying again for 0 s"]  # at the other address
    assert "FLEETEST_MASTER" in caught.value.hint


async def test_whoever_has_heard_of_a_run_waits_longer_for_the_rest(master, at_once):
    master.cuts.extend([1, 0, 0, 0])
    hasty = replace(at_once, patience=timedelta())
    async with AsyncClient(master.address, persistence=hasty) as client:
        seen = await positions(client)

    assert seen == [1, 2, 3, 4]


async def test_a_unix_socket_serves_as_well(tmp_path, at_once):
    master = ScriptedMaster()
    with master.serving(f"unix://{tmp_path}/m.sock") as address:
        async with AsyncClient(address, persistence=at_once) as client:
            assert (await client.server_info()).version == "9.9"


@pytest.mark.parametrize("error", [NotFound("no run x", hint="see ls"), Unauthenticated("who?"), Forbidden("no")])
async def test_what_the_master_raises_arrives_and_is_not_tried_again(master, at_once, error):
    master.faults.append(error)
    async with AsyncClient(master.address, persistence=at_once) as client:
        with pytest.raises(type(error)) as caught:
            await client.get_run("x")

    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert len(master.calls) == 1


async def test_every_problem_of_a_suite_arrives(master, at_once):
    problems = [
        Problem(source="s.yaml", line=2, column=3, message="unknown key", hint="Did you mean 'x'?"),
        Problem(source="s.yaml", line=4, column=1, message="cycle"),
    ]
    master.faults.append(SuiteInvalid(problems))
    async with AsyncClient(master.address, persistence=at_once) as client:
        with pytest.raises(SuiteInvalid) as caught:
            await client.submit("version: 1")

    assert list(caught.value.problems) == problems


async def test_watch_goes_on_after_breaks_without_gap_or_repetition(master, at_once):
    master.cuts.extend([1, 0, 2])
    async with AsyncClient(master.address, persistence=at_once) as client:
        seen = await positions(client)

    assert seen == [1, 2, 3, 4]
    assert [request.after_position for request in master.requests("WatchRun")] == [0, 1, 1, 3]


async def test_a_submission_that_is_followed_is_one_call(master, at_once):
    async with AsyncClient(master.address, persistence=at_once) as client:
        submission = await client.submit("version: 1", followed=True)
        seen = [commit.position async for commit in client.watch(submission.run_id)]
        again = await positions(client)

    assert seen == again == [1, 2, 3, 4]
    assert [name for name, _, _ in master.calls] == ["StartRuns", "WatchRun"]


async def test_runs_one_after_the_other_share_a_stream_until_it_breaks(master, at_once):
    told, seen = [], []
    async with AsyncClient(master.address, persistence=at_once, on_trouble=told.append) as client:
        for cut in (None, None, 0, 4, None):  # none; before the answer; after the run's end
            master.cuts.extend([] if cut is None else [cut])
            submission = await client.submit("version: 1", followed=True)
            await client.wait_for_news(submission.run_id, at_most=timedelta(minutes=1))
            seen.append([commit.position async for commit in client.watch(submission.run_id)])

    assert seen == [[1, 2, 3, 4]] * 5
    assert (master.streams, told) == (3, [])


async def test_runs_at_the_same_time_have_streams_of_their_own(master, at_once):
    async with AsyncClient(master.address, persistence=at_once) as client:
        first = await client.submit("version: 1", followed=True)
        watching = client.watch(first.run_id)
        begun = (await anext(watching)).position
        second = await client.submit("version: 1", followed=True)
        other = [commit.position async for commit in client.watch(second.run_id)]
        rest = [commit.position async for commit in watching]

    assert ([begun, *rest], other) == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert master.streams == 2


async def test_what_follows_a_submission_goes_on_after_a_break(master, at_once):
    master.cuts.extend([0, 2])
    async with AsyncClient(master.address, persistence=at_once) as client:
        submission = await client.submit("version: 1", followed=True)
        await client.wait_for_news(submission.run_id, at_most=timedelta(minutes=1))
        seen = [commit.position async for commit in client.watch(submission.run_id)]

    first, second = master.requests("StartRuns")
    assert seen == [1, 2, 3, 4]
    assert first.idempotency_key == second.idempotency_key != ""
    assert [request.after_position for request in master.requests("WatchRun")] == [2]


async def test_watch_begins_where_it_is_told(master, at_once):
    async with AsyncClient(master.address, persistence=at_once) as client:
        assert await positions(client, after_position=2) == [3, 4]


async def test_watch_does_not_repeat_a_commit_that_the_master_repeats(master, at_once):
    first, *rest = passing_run()
    master.log = [first, first, *rest]
    async with AsyncClient(master.address, persistence=at_once) as client:
        assert await positions(client) == [1, 2, 3, 4]


async def test_watch_never_passes_over_a_gap(master):
    log = passing_run()
    master.log = [log[0], log[2], log[3]]
    async with AsyncClient(master.address, persistence=Persistence(patience_midway=timedelta())) as client:
        with pytest.raises(DependencyUnavailable, match=r"commit 3 .* came where 2 was due"):
            await positions(client)


async def test_watch_takes_an_orderly_end_before_the_run_ended_for_a_break(master):
    log = passing_run()
    master.log = log[:2]
    async with AsyncClient(master.address, persistence=Persistence(patience_midway=timedelta())) as client:
        watching = client.watch(RUN_ID)
        seen = [(await anext(watching)).position, (await anext(watching)).position]
        with pytest.raises(DependencyUnavailable, match="ended before the run did"):
            await anext(watching)

    assert seen == [1, 2]


async def test_watch_moves_to_another_master(at_once):
    dying, other = ScriptedMaster(), ScriptedMaster()
    dying.cuts.append(2)
    with dying.serving() as first, other.serving() as second:
        async with AsyncClient(f"{first},{second}", persistence=at_once) as client:
            assert await positions(client) == [1, 2, 3, 4]

    assert other.requests("WatchRun")[0].after_position == 2


async def test_watch_of_an_unknown_run_is_refused_at_once(master, at_once):
    master.faults.append(NotFound("no run"))
    async with AsyncClient(master.address, persistence=at_once) as client:
        with pytest.raises(NotFound):
            await positions(client)


async def test_event_of_a_newer_master_is_left_out_but_its_commit_counts(master, at_once):
    log = commits([run_ended("PASSED")], [run_ended("PASSED")])
    log[0].events[0].ClearField("run_ended")
    master.log = log
    async with AsyncClient(master.address, persistence=at_once) as client:
        seen = [commit async for commit in client.watch(RUN_ID)]

    assert next(commit.events for commit in seen) == ()
    assert isinstance(seen[1].events[0], RunEnded)
