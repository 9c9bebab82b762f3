"""One run kept by two masters at once, on every store: commits interleave, and nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from fleetest.common.backoff import Backoff
from fleetest.common.clock import ManualClock
from fleetest.common.errors import LeaseLost, WrongState
from fleetest.common.ids import new_run_id
from fleetest.common.states import RunState, Verdict
from fleetest.master.queue.redis_turns import RedisTurns
from fleetest.master.runs import keeper as keeper_module
from fleetest.master.runs.events import AttemptsStarted, decode, results_of
from fleetest.master.runs.keeper import Committed, RunKeeper, load_status
from fleetest.master.runs.state import RunStatus
from fleetest.master.store.ports import Store
from tests.contract.test_store import OpenStore, open_store
from tests.tools.story import command_task, result, snapshot, submitted

__all__ = ["open_store"]  # a fixture

SHARDS = 40


async def _nothing(status: RunStatus, committed: Committed) -> None:
    """Nobody is told."""


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture(params=["in turns", "at once"])
async def keepers(request: pytest.FixtureRequest, open_store: OpenStore, redis: Redis) -> list[RunKeeper]:
    run_id = new_run_id()
    turns = RedisTurns(redis) if request.param == "in turns" else None
    made = [
        RunKeeper(run_id, await open_store(), ManualClock(datetime.now(UTC)), Backoff(), _nothing, turns)
        for _ in range(2)
    ]
    await made[0].ask(lambda decider: decider.submit(submitted(command_task(shards=SHARDS))))
    return made


async def live_through(shard_id: str, keepers: list[RunKeeper], order: random.Random) -> None:
    """An attempt of which each master hears every word, one of them first."""

    async def say(*requests: object) -> None:
        first, second = order.sample(keepers, 2)
        for keeper in (first, second):
            for request in requests:
                with suppress(LeaseLost, WrongState):
                    await keeper.ask(request)  # type: ignore[arg-type]  # a lambda of a decider

    token = await order.choice(keepers).ask(lambda decider: decider.start_attempt(shard_id, "w", "w-1"))
    await asyncio.gather(*(say(lambda decider: decider.attempt_running(shard_id, token)) for _ in range(2)))
    await asyncio.gather(
        say(lambda decider: decider.cases_finished(shard_id, token, [result(shard_id)])),
        say(lambda decider: decider.cases_finished(shard_id, token, [result(shard_id)])),
    )
    await say(lambda decider: decider.attempt_ended(shard_id, token, Verdict.COMPLETED, ""))
    with pytest.raises(LeaseLost):
        await order.choice(keepers).ask(lambda decider: decider.cases_finished(shard_id, token, [result("late")]))


async def test_what_two_masters_hear_of_one_run_counts_once(keepers: list[RunKeeper], store: Store) -> None:
    order = random.Random(7)
    await asyncio.gather(*(live_through(f"lint#{index}", keepers, order) for index in range(SHARDS)))

    commits = await store.read(keepers[0].run_id)
    told = await load_status(keepers[0].run_id, store)
    events = [(commit.position, event) for commit in commits for event in decode(commit.events)]
    accepted = Counter(case.case_id for _, event in events for _, case in results_of(event))
    assert [commit.position for commit in commits] == list(range(1, len(commits) + 1))
    assert told.state is RunState.PASSED
    assert len(accepted) == SHARDS
    assert set(accepted.values()) == {1}
    assert sum(len(event.shard_ids) for _, event in events if isinstance(event, AttemptsStarted)) == SHARDS
    for keeper in keepers:
        assert snapshot(await keeper.newest_status()) == snapshot(told)


async def test_a_cancel_at_one_master_and_results_at_the_other_both_stand(
    keepers: list[RunKeeper], store: Store
) -> None:
    here, there = keepers
    tokens = [
        await here.ask(lambda decider, index=index: decider.start_attempt(f"lint#{index}", "w", "w-1"))
        for index in range(SHARDS // 2)
    ]

    async def finish(index: int, token: int) -> None:
        shard_id = f"lint#{index}"
        await here.ask(lambda decider: decider.cases_finished(shard_id, token, [result(shard_id)]))
        await here.ask(lambda decider: decider.attempt_ended(shard_id, token, Verdict.CANCELLED, "stopped"))

    await asyncio.gather(
        there.ask(lambda decider: decider.cancel(by="ann", reason="enough")),
        *(finish(index, token) for index, token in enumerate(tokens)),
    )

    told = await load_status(here.run_id, store)
    assert (told.state, told.reason) == (RunState.CANCELLED, "enough")
    assert told.counts.passed == SHARDS // 2
    with pytest.raises(WrongState):
        await there.ask(lambda decider: decider.start_attempt(f"lint#{SHARDS - 1}", "w", "w-1"))


async def test_masters_that_start_the_same_shards_start_each_once(keepers: list[RunKeeper], store: Store) -> None:
    async def start(keeper: RunKeeper, index: int) -> int:
        with suppress(WrongState):
            return await keeper.ask(lambda decider: decider.start_attempt(f"lint#{index}", "w", "w-1"))
        return 0

    tokens = await asyncio.gather(*(start(keeper, index) for index in range(SHARDS) for keeper in keepers))

    told = await load_status(keepers[0].run_id, store)
    assert sum(token > 0 for token in tokens) == SHARDS
    held = [shard.attempt.token for shard in told.tasks["lint"].live_attempts if shard.attempt is not None]
    assert sorted(held) == sorted(token for token in tokens if token)


async def test_masters_that_take_turns_read_the_log_whole_once(keepers: list[RunKeeper], request, monkeypatch) -> None:
    if "in turns" not in request.node.callspec.params.values():
        pytest.skip("is about turns")
    whole = 0

    async def counted(run_id, log, *, into=None):
        nonlocal whole
        whole += into is None
        return await load_status(run_id, log, into=into)

    monkeypatch.setattr(keeper_module, "load_status", counted)
    for keeper in keepers:
        keeper._meet_another()

    order = random.Random(7)
    await asyncio.gather(*(live_through(f"lint#{index}", keepers, order) for index in range(SHARDS)))

    assert whole <= len(keepers)


async def test_a_turn_that_nobody_ends_is_not_waited_for_long(redis: Redis) -> None:
    turns = RedisTurns(redis)
    async with turns.turn("r"):
        async with asyncio.timeout(20), turns.turn("r"):
            pass
        async with turns.turn("another"):
            pass

    assert await redis.keys("fleetest:turn:*") == []
