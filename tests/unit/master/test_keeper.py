"""One run's keeper on a real store: commits are shared, races are lost and won, failures told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from fleetest.common.clock import ManualClock
from fleetest.common.errors import DependencyUnavailable, InvalidRequest, LeaseLost, NotFound, WrongState
from fleetest.common.ids import new_run_id
from fleetest.common.states import TaskState
from fleetest.common.tasks import Task
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.keeper import Committed, RunKeeper, load_status
from fleetest.master.runs.state import RunStatus
from fleetest.master.store.mongo import MongoStore
from fleetest.master.store.ports import Commit, Store
from fleetest.master.store.sqlite import SqliteStore
from tests.tools.core import BUSY_TIMEOUT, unwritable
from tests.tools.story import BACKOFF, START, command_task, result, snapshot, submitted


class Keepers:
    """Keepers of one run, each with a connection of its own, as in masters of their own."""

    def __init__(self, path: Path, open_store: Callable[[], Awaitable[Store]]) -> None:
        self.path = path
        self.open_store = open_store
        self.run_id = new_run_id()
        self.commits: list[Committed] = []
        self.stores: list[Store] = []
        self.fails_afterwards = False

    async def make(self) -> RunKeeper:
        store = await self.open_store()
        self.stores.append(store)
        return RunKeeper(self.run_id, store, ManualClock(START), BACKOFF, self._note)

    async def _note(self, status: RunStatus, committed: Committed) -> None:
        assert status.position == committed.commit.position, "nobody went on before everybody was told"
        self.commits.append(committed)
        if self.fails_afterwards:
            raise RuntimeError("a defect")


@pytest.fixture
async def keepers(tmp_path: Path) -> AsyncIterator[Keepers]:
    path = tmp_path / "store.sqlite"
    keepers = Keepers(path, lambda: SqliteStore.open(path, busy_timeout=BUSY_TIMEOUT))
    async with _closed_in_the_end(keepers):
        yield keepers


@pytest.fixture(params=["sqlite", "mongodb"])
async def masters(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Keepers]:
    """Keepers on each store that masters may share."""
    path = tmp_path / "store.sqlite"
    if request.param == "mongodb":
        url = request.getfixturevalue("mongodb_url")
        keepers = Keepers(path, lambda: MongoStore.open(url))
    else:
        keepers = Keepers(path, lambda: SqliteStore.open(path))  # with patience: these wait for one another
    async with _closed_in_the_end(keepers):
        yield keepers


@asynccontextmanager
async def _closed_in_the_end(keepers: Keepers) -> AsyncIterator[None]:
    yield
    for store in keepers.stores:
        await store.close()


async def submit(keeper: RunKeeper, *tasks: Task) -> None:
    await keeper.ask(lambda decider: decider.submit(submitted(*(tasks or [command_task(shards=40)]))))


async def start(keeper: RunKeeper, index: int) -> int:
    return await keeper.ask(lambda decider: decider.start_attempt(f"lint#{index}", "w", "w-1"))


async def test_an_answer_is_durable(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    token = await start(keeper, 0)

    read_again = await load_status(keepers.run_id, keepers.stores[0])
    assert read_again.position == token == 2
    assert snapshot(read_again) == snapshot(await keeper.status())


async def test_requests_that_come_during_a_commit_share_the_next_one(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)
    store = keepers.stores[0]

    with unwritable(keepers.path):
        first = asyncio.create_task(start(keeper, 0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # its commit is on its way to the store
        others = [asyncio.create_task(start(keeper, index)) for index in range(1, 20)]
        await asyncio.sleep(0)
    tokens = await asyncio.gather(first, *others)

    assert tokens == [2, *[3] * 19]
    assert [commit.position for commit in await store.read(keepers.run_id)] == [1, 2, 3]


async def test_a_refused_request_does_not_harm_the_others_of_its_commit(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    answers = await asyncio.gather(start(keeper, 0), start(keeper, 0), start(keeper, 99), return_exceptions=True)

    assert answers[0] == 2
    assert [type(answer) for answer in answers[1:]] == [WrongState, WrongState]


async def test_a_request_that_fails_half_way_leaves_no_trace_and_does_not_harm_the_others(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    def half_way(decider: Decider) -> NoReturn:
        decider.start_attempt("lint#7", "w", "w-1")
        raise InvalidRequest("changed my mind")

    def defect(decider: Decider) -> NoReturn:
        raise KeyError("a defect")

    with pytest.raises(InvalidRequest):
        await keeper.ask(half_way)
    answers = await asyncio.gather(
        start(keeper, 0), keeper.ask(half_way), keeper.ask(defect), start(keeper, 1), return_exceptions=True
    )

    assert answers[0] == answers[3] == 2
    assert isinstance(answers[1], InvalidRequest)
    assert isinstance(answers[2], DependencyUnavailable)
    status = await keeper.status()
    assert [shard.shard_id for shard in status.tasks["lint"].live_attempts] == ["lint#0", "lint#1"]
    assert snapshot(status) == snapshot(await load_status(keepers.run_id, keepers.stores[0]))


async def test_when_the_store_fails_all_who_wait_hear_of_it_and_nothing_has_happened(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    with unwritable(keepers.path):
        answers = await asyncio.gather(start(keeper, 0), start(keeper, 1), return_exceptions=True)
        status = await keeper.status()

    assert [type(answer) for answer in answers] == [DependencyUnavailable, DependencyUnavailable]
    assert (status.position, status.tasks["lint"].live) == (1, 0)
    assert await start(keeper, 1) == 2


async def test_a_state_that_is_not_durable_yet_is_not_shown(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    with unwritable(keepers.path):
        request = asyncio.create_task(start(keeper, 0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        look = asyncio.create_task(keeper.status())
        await asyncio.sleep(0)
        assert not look.done()
    await request

    assert (await look).position == 2


async def test_two_masters_share_a_run_without_losing_anything(masters: Keepers) -> None:
    one, other = await masters.make(), await masters.make()
    await submit(one)

    async def work(keeper: RunKeeper, worker: str) -> list[int]:
        mine = []
        for index in range(40):
            try:
                token = await keeper.ask(
                    lambda decider, index=index: decider.start_attempt(f"lint#{index}", worker, "i")  # type: ignore[misc]  # binds the loop's value
                )
            except WrongState:
                continue
            await keeper.ask(
                lambda decider, index=index, token=token: decider.cases_finished(  # type: ignore[misc]  # likewise
                    f"lint#{index}", token, [result("lint"), result(f"by-{worker}-{index}")]
                )
            )
            mine.append(index)
        return mine

    ones, others = await asyncio.gather(work(one, "one"), work(other, "other"))

    assert sorted(ones + others) == list(range(40))
    statuses = [await one.newest_status(), await other.newest_status()]
    assert snapshot(statuses[0]) == snapshot(statuses[1])
    assert statuses[0].tasks["lint"].counts.passed == 80
    positions = [commit.position for commit in await masters.stores[0].read(masters.run_id)]
    assert positions == list(range(1, len(positions) + 1))


async def test_a_keeper_does_not_refuse_what_another_master_made_true(masters: Keepers) -> None:
    one, other = await masters.make(), await masters.make()
    await submit(one)
    assert (await other.status()).position == 1
    token = await start(one, 3)

    await other.ask(lambda decider: decider.cases_finished("lint#3", token, [result("lint")]))

    assert (await one.newest_status()).tasks["lint"].counts.passed == 1


async def test_a_keeper_reads_on_when_it_hears_of_a_commit(masters: Keepers) -> None:
    one, other = await masters.make(), await masters.make()
    await submit(one)
    await other.status()
    await start(one, 0)
    assert (await other.status()).position == 1

    other.hear(2)

    assert (await other.status()).position == 2


async def test_what_a_keeper_hears_of_itself_changes_nothing(keepers: Keepers) -> None:
    keeper = await keepers.make()
    keeper.hear(5)
    await submit(keeper)

    assert not keeper.hear(1), "its followers know already"
    assert (await keeper.status()).position == 1


async def test_a_defect_after_the_commit_does_not_take_the_answer_back(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)
    keepers.fails_afterwards = True

    token = await start(keeper, 0)

    assert token == 2
    assert (await keeper.status()).tasks["lint"].state is TaskState.LEASED


async def test_one_who_stopped_waiting_does_not_keep_the_others(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    with unwritable(keepers.path):
        impatient = asyncio.create_task(start(keeper, 0))
        patient = asyncio.create_task(start(keeper, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)

    assert await patient == 2


async def test_one_who_stopped_waiting_is_not_told_of_a_failure(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await submit(keeper)

    with unwritable(keepers.path):
        impatient = asyncio.create_task(start(keeper, 0))
        patient = asyncio.create_task(start(keeper, 1))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(DependencyUnavailable):
            await patient

    assert impatient.cancelled()


async def test_a_run_that_does_not_exist_is_not_found(keepers: Keepers) -> None:
    keeper = await keepers.make()

    with pytest.raises(NotFound, match="there is no run"):
        await keeper.status()
    with pytest.raises(LeaseLost):
        await keeper.ask(lambda decider: decider.attempt_running("a#0", 1))
    with pytest.raises(NotFound):
        await keeper.ask(lambda decider: decider.cancel(by="x", reason="y"))

    assert await keepers.stores[0].read(keepers.run_id) == []
    assert keeper.over


async def test_a_keeper_is_over_when_its_run_is(keepers: Keepers) -> None:
    keeper = await keepers.make()
    assert keeper.over
    await submit(keeper)
    assert keeper.idle
    assert not keeper.over

    await keeper.ask(lambda decider: decider.cancel(by="x", reason="y"))

    assert keeper.over


async def test_a_log_that_a_newer_version_wrote_is_refused_with_its_reason(keepers: Keepers) -> None:
    keeper = await keepers.make()
    await keepers.stores[0].append(Commit(run_id=keepers.run_id, position=1, at=START, events=b"\x93future"))

    with pytest.raises(WrongState, match=r"commit 1 of run .* cannot be read"):
        await keeper.status()
    with pytest.raises(WrongState, match="cannot be read"):
        await start(keeper, 0)
