"""What every store promises. An adapter joins by adding how it is opened to `ADAPTERS`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from fleetest.common.errors import DependencyUnavailable, InvalidRequest, WrongState
from fleetest.common.ids import new_run_id
from fleetest.common.results import ResourceUsage
from fleetest.common.states import Outcome, RunState
from fleetest.master.store.mongo import MongoStore
from fleetest.master.store.ports import (
    SUBMITTED_WITH,
    USAGES_KEPT,
    CaseHistory,
    CaseRow,
    Commit,
    LogPiece,
    PositionTaken,
    RunQuery,
    RunRow,
    Store,
)
from fleetest.master.store.sqlite import SqliteStore

OpenStore = Callable[[], Awaitable[Store]]

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def _sqlite(request: pytest.FixtureRequest) -> OpenStore:
    path = request.getfixturevalue("tmp_path") / "store.sqlite"
    return lambda: SqliteStore.open(path)


def _mongodb(request: pytest.FixtureRequest) -> OpenStore:
    url = request.getfixturevalue("mongodb_url")
    return lambda: MongoStore.open(url)


# Each makes what opens a store, each time on the same data.
ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], OpenStore]] = {"sqlite": _sqlite, "mongodb": _mongodb}


@pytest.fixture(params=sorted(ADAPTERS))
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Opens one more store on the same data, as another master would."""
    open_another = ADAPTERS[request.param](request)
    async with AsyncExitStack() as opened:

        async def open_one() -> Store:
            store = await open_another()
            opened.push_async_callback(store.close)
            return store

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


def _run_id(day: date, number: int = 0) -> str:
    """The run id of a given day; ids of one day sort by number."""
    milliseconds = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000) + number
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62))


def _commit(run_id: str, position: int, events: bytes = b"events") -> Commit:
    return Commit(run_id=run_id, position=position, at=NOON, events=events)


def _run(run_id: str, **changes: Any) -> RunRow:
    row = RunRow(
        run_id=run_id,
        project="shop",
        suite_name="nightly",
        branch="main",
        state=RunState.RUNNING,
        submitted_at=NOON,
        ended_at=None,
        position=1,
        body={"user": "ada", "counts": {"planned": 3, "passed": None}, "labels": ["a", "ü", "\u0000"]},
    )
    return replace(row, **changes)


def _case(run_id: str, index: int, **changes: Any) -> CaseRow:
    row = CaseRow(
        run_id=run_id,
        task_id="unit",
        case_id=f"tests/test_it.py::test_{index}",
        index=index,
        outcome=Outcome.PASSED,
        flaky=False,
        position=1,
        body={"message": "", "duration_us": index},
        result=b"\xff\x00\x80",
    )
    return msgspec.structs.replace(row, **changes)


def _usage(number: int) -> ResourceUsage:
    return ResourceUsage(
        cpu_time=timedelta(microseconds=number),
        peak_memory_bytes=1 << 40 | number,
        disk_read_bytes=1,
        disk_written_bytes=2,
        wall_time=timedelta(days=30),
    )


def _piece(offset_bytes: int, **changes: Any) -> LogPiece:
    piece = LogPiece(
        run_id="run",
        task_id="unit",
        shard_id="unit/0",
        token=5,
        offset_bytes=offset_bytes,
        content=b"\xff\x00out\n",
    )
    return replace(piece, **changes)


class TestLog:
    async def test_commits_are_read_in_order_with_all_that_they_hold(self, store: Store) -> None:
        run_id = new_run_id()
        commits = [_commit(run_id, position, bytes([position, 0, 255])) for position in (1, 2, 3)]

        for commit in commits:
            await store.append(commit)

        assert list(await store.read(run_id)) == commits

    async def test_reading_goes_on_after_a_position_in_pages_and_ends_empty(self, store: Store) -> None:
        run_id = new_run_id()
        for position in range(1, 6):
            await store.append(_commit(run_id, position))

        pages = [
            [commit.position for commit in await store.read(run_id, after=after, limit=2)] for after in (0, 2, 4, 5)
        ]

        assert pages == [[1, 2], [3, 4], [5], []]

    async def test_run_without_commits_reads_empty(self, store: Store) -> None:
        assert not await store.read(new_run_id())

    @pytest.mark.parametrize("position", [2, 7, 0, -1])
    async def test_first_commit_of_a_run_has_position_one(self, store: Store, position: int) -> None:
        first_of_its_day, second_of_its_day = _run_id(date(2026, 3, 1)), _run_id(date(2026, 3, 2), 2)
        await store.append(_commit(_run_id(date(2026, 3, 2), 1), 1))

        for run_id in (first_of_its_day, second_of_its_day):
            with pytest.raises(WrongState, match="gap"):
                await store.append(_commit(run_id, position))

            assert not await store.read(run_id)

    async def test_gap_is_refused_and_the_next_position_still_accepted(self, store: Store) -> None:
        run_id = new_run_id()
        await store.append(_commit(run_id, 1))

        with pytest.raises(WrongState, match="last is 1"):
            await store.append(_commit(run_id, 3))
        await store.append(_commit(run_id, 2))

        assert [commit.position for commit in await store.read(run_id)] == [1, 2]

    async def test_taken_position_is_refused_and_keeps_what_it_has(self, store: Store) -> None:
        run_id = new_run_id()
        await store.append(_commit(run_id, 1, b"first"))
        await store.append(_commit(run_id, 2, b"second"))

        with pytest.raises(PositionTaken):
            await store.append(_commit(run_id, 1, b"other"))

        assert [commit.events for commit in await store.read(run_id)] == [b"first", b"second"]

    async def test_of_concurrent_appends_to_one_position_exactly_one_wins(self, open_store: OpenStore) -> None:
        masters = [await open_store(), await open_store()]
        run_id = new_run_id()
        tries = [(masters[number % 2], _commit(run_id, 1, str(number).encode())) for number in range(40)]

        answers = await asyncio.gather(*(master.append(commit) for master, commit in tries), return_exceptions=True)

        winners = [commit for (_, commit), answer in zip(tries, answers, strict=True) if answer is None]
        assert len(winners) == 1
        assert sum(isinstance(answer, PositionTaken) for answer in answers) == len(tries) - 1
        assert list(await masters[0].read(run_id)) == winners

    async def test_two_masters_that_read_on_when_they_lose_fill_the_log_without_a_gap(
        self, open_store: OpenStore
    ) -> None:
        masters = {"a": await open_store(), "b": await open_store()}
        run_id = new_run_id()

        async def append_twenty(name: str) -> None:
            position = 0
            for number in range(20):
                while True:
                    position += 1
                    try:
                        await masters[name].append(_commit(run_id, position, f"{name}{number}".encode()))
                    except PositionTaken:
                        continue
                    break

        await asyncio.gather(append_twenty("a"), append_twenty("b"))

        log = await masters["a"].read(run_id)
        written = [commit.events.decode() for commit in log]
        assert [commit.position for commit in log] == list(range(1, 41))
        assert [each for each in written if each[0] == "a"] == [f"a{number}" for number in range(20)]
        assert [each for each in written if each[0] == "b"] == [f"b{number}" for number in range(20)]

    async def test_refused_appends_do_not_disturb_those_beside_them(self, store: Store) -> None:
        run_ids = [new_run_id() for _ in range(100)]
        gap, taken = new_run_id(), new_run_id()
        await store.append(_commit(taken, 1))
        appends = [store.append(_commit(run_id, 1)) for run_id in run_ids]
        appends.insert(50, store.append(_commit(gap, 2)))
        appends.insert(20, store.append(_commit(taken, 1)))

        answers = await asyncio.gather(*appends, return_exceptions=True)

        assert [type(answer) for answer in answers if answer is not None] == [PositionTaken, WrongState]
        assert [len(await store.read(run_id)) for run_id in run_ids] == [1] * 100

    async def test_commits_of_one_run_sent_together_are_taken_in_the_order_sent(self, store: Store) -> None:
        run_id = new_run_id()

        await asyncio.gather(*(store.append(_commit(run_id, position)) for position in range(1, 101)))

        assert [commit.position for commit in await store.read(run_id)] == list(range(1, 101))

    async def test_another_master_reads_a_commit_as_soon_as_it_is_acknowledged(self, open_store: OpenStore) -> None:
        writing, reading = await open_store(), await open_store()
        run_id = new_run_id()

        for position in range(1, 11):
            await writing.append(_commit(run_id, position))
            assert len(await reading.read(run_id)) == position

    async def test_commit_of_several_megabytes_comes_back_whole(self, store: Store) -> None:
        run_id = new_run_id()
        events = bytes(range(256)) * (32 << 10)

        await store.append(_commit(run_id, 1, events))

        assert (await store.read(run_id))[0].events == events

    @pytest.mark.parametrize("run_id", ["", "garbage", "0" * 32, "ffffffff-ffff-7fff-bfff-ffffffffffff", "'; --"])
    async def test_what_is_no_run_id_is_refused(self, store: Store, run_id: str) -> None:
        with pytest.raises(InvalidRequest, match="run id"):
            await store.append(_commit(run_id, 1))
        with pytest.raises(InvalidRequest, match="run id"):
            await store.read(run_id)


class TestPartitions:
    DAYS = (date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1))

    @pytest.fixture
    async def run_ids(self, store: Store) -> list[str]:
        run_ids = [_run_id(day) for day in self.DAYS]
        for run_id in run_ids:
            await store.append(_commit(run_id, 1))
            await store.save_runs([_run(run_id)])
        return run_ids

    async def test_logs_from_before_the_day_go_and_later_ones_stay(self, store: Store, run_ids: list[str]) -> None:
        dropped = await store.drop_before(self.DAYS[2])

        assert list(dropped) == list(self.DAYS[:2])
        assert [len(await store.read(run_id)) for run_id in run_ids] == [0, 0, 1]
        assert await store.dropped_before() == self.DAYS[2]

    async def test_projections_outlive_their_log(self, store: Store, run_ids: list[str]) -> None:
        await store.drop_before(date(2030, 1, 1))

        assert [run.run_id for run in await store.list_runs(RunQuery())] == run_ids[::-1]

    async def test_dropped_run_takes_no_more_commits(self, store: Store, run_ids: list[str]) -> None:
        await store.drop_before(self.DAYS[1])

        with pytest.raises(WrongState, match="dropped"):
            await store.append(_commit(run_ids[0], 2))
        with pytest.raises(WrongState, match="dropped"):
            await store.append(_commit(_run_id(date(2020, 1, 1)), 1))  # a day that never had a log
        await store.append(_commit(run_ids[1], 2))

        assert [len(await store.read(run_id)) for run_id in run_ids] == [0, 2, 1]

    async def test_dropping_again_drops_nothing_and_never_brings_days_back(
        self, store: Store, run_ids: list[str]
    ) -> None:
        await store.drop_before(self.DAYS[1])

        again = await store.drop_before(self.DAYS[1])
        earlier = await store.drop_before(date(2001, 1, 1))

        assert not again
        assert not earlier
        assert await store.dropped_before() == self.DAYS[1]

    async def test_another_master_learns_that_a_partition_was_dropped(
        self, store: Store, run_ids: list[str], open_store: OpenStore
    ) -> None:
        other = await open_store()
        await other.append(_commit(run_ids[0], 2))
        await store.drop_before(self.DAYS[2])

        with pytest.raises(WrongState):
            await other.append(_commit(run_ids[0], 3))

        assert not await other.read(run_ids[0])
        assert await other.dropped_before() == self.DAYS[2]

    async def test_nothing_counts_as_dropped_at_first(self, store: Store) -> None:
        assert await store.dropped_before() is None


class TestRuns:
    async def test_run_comes_back_as_it_was_saved(self, store: Store) -> None:
        run = _run(new_run_id(), state=RunState.FAILED, ended_at=NOON + timedelta(microseconds=1))

        await store.save_runs([run])

        assert await store.get_run(run.run_id) == run

    async def test_unknown_run_is_none(self, store: Store) -> None:
        assert await store.get_run(new_run_id()) is None
        assert await store.get_run("garbage") is None

    async def test_several_are_saved_with_their_cases_and_none_goes_back(self, store: Store) -> None:
        new, known, ahead = (_run(new_run_id(), position=2) for _ in range(3))
        later = _run(ahead.run_id, position=3, branch="later")
        await store.save_runs([_run(known.run_id, position=1), later])

        await store.save_runs([new, known, ahead], [_case(new.run_id, 0), _case(known.run_id, 1)])

        assert [await store.get_run(run.run_id) for run in (new, known, ahead)] == [new, known, later]
        assert [case.index for run in (new, known) for case in await store.list_cases(run.run_id)] == [0, 1]

    @pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
    async def test_newest_position_wins_in_whatever_order_writes_come(
        self, store: Store, order: tuple[int, ...]
    ) -> None:
        run_id = new_run_id()
        versions = {n: _run(run_id, position=n, branch=f"b{n}", body={"n": n}) for n in order}

        for position in (*order, *order):
            await store.save_runs([versions[position]])

        assert await store.get_run(run_id) == versions[3]
        assert list(await store.list_runs(RunQuery(branch="b1"))) == []

    @pytest.fixture
    async def listed(self, store: Store) -> list[str]:
        """Ids of four runs, oldest first."""
        run_ids = [_run_id(date(2026, 3, 1), number) for number in range(4)]
        await store.save_runs([_run(run_ids[2], branch="topic", state=RunState.PASSED)])
        await store.save_runs([_run(run_ids[0], project="bank")])
        await store.save_runs([_run(run_ids[3], suite_name="smoke")])
        await store.save_runs([_run(run_ids[1], state=RunState.CANCELLED)])
        return run_ids

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (RunQuery(), [3, 2, 1, 0]),
            (RunQuery(project="bank"), [0]),
            (RunQuery(project="shop"), [3, 2, 1]),
            (RunQuery(branch="main"), [3, 1, 0]),
            (RunQuery(suite_name="smoke"), [3]),
            (RunQuery(state=RunState.RUNNING), [3, 0]),
            (RunQuery(project="shop", branch="main", suite_name="nightly", state=RunState.CANCELLED), [1]),
            (RunQuery(project="nobody"), []),
            (RunQuery(project="' OR 1 = 1 --"), []),
        ],
    )
    async def test_runs_are_listed_newest_first_by_what_is_asked(
        self, store: Store, listed: list[str], query: RunQuery, expected: list[int]
    ) -> None:
        found = await store.list_runs(query)

        assert [listed.index(run.run_id) for run in found] == expected

    async def test_pages_of_a_listing_meet_without_overlap(self, store: Store, listed: list[str]) -> None:
        first = await store.list_runs(RunQuery(project="shop", limit=2))
        second = await store.list_runs(RunQuery(project="shop", limit=2, before_run_id=first[-1].run_id))
        third = await store.list_runs(RunQuery(project="shop", limit=2, before_run_id=second[-1].run_id))

        assert [[listed.index(run.run_id) for run in page] for page in (first, second, third)] == [[3, 2], [1], []]

    async def test_prefix_finds_at_most_ten_runs_newest_first(self, store: Store) -> None:
        run_ids = [_run_id(date(2026, 3, 1), number) for number in range(12)]
        other = _run_id(date(2026, 9, 1))
        for run_id in (*run_ids, other):
            await store.save_runs([_run(run_id)])

        found = await store.find_runs(run_ids[0][:8])
        one = await store.find_runs(run_ids[4])

        assert [run.run_id for run in found] == run_ids[:1:-1]
        assert [run.run_id for run in one] == [run_ids[4]]

    @pytest.mark.parametrize("prefix", ["%", "_", "*", "^", ".", "0%", "zzz", "' OR 1=1"])
    async def test_prefix_is_taken_literally(self, store: Store, prefix: str) -> None:
        await store.save_runs([_run(new_run_id())])

        assert not await store.find_runs(prefix)


class TestCases:
    async def test_case_comes_back_as_it_was_saved(self, store: Store) -> None:
        case = _case(new_run_id(), 7, flaky=True, outcome=Outcome.TIMED_OUT, case_id="t.py::test[a-ü-\n-%]")

        await store.save_cases([case])

        assert list(await store.list_cases(case.run_id)) == [case]

    @pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
    async def test_newest_position_wins_in_whatever_order_writes_come(
        self, store: Store, order: tuple[int, ...]
    ) -> None:
        run_id = new_run_id()
        outcomes = {1: Outcome.FAILED, 2: Outcome.ERROR, 3: Outcome.PASSED}
        versions = {n: _case(run_id, 0, position=n, outcome=outcomes[n], body={"n": n}) for n in order}

        for position in (*order, *order):
            await store.save_cases([versions[position]])

        assert list(await store.list_cases(run_id)) == [versions[3]]

    async def test_of_two_results_in_one_commit_the_later_stays(self, store: Store) -> None:
        run_id = new_run_id()

        await store.save_cases([_case(run_id, 0, outcome=Outcome.FAILED), _case(run_id, 0, flaky=True)])

        assert [(case.outcome, case.flaky) for case in await store.list_cases(run_id)] == [(Outcome.PASSED, True)]

    async def test_same_case_of_another_task_or_run_is_another_case(self, store: Store) -> None:
        run_id, other = new_run_id(), new_run_id()

        await store.save_cases([_case(run_id, 0), _case(run_id, 0, task_id="slow"), _case(other, 0)])

        assert [case.task_id for case in await store.list_cases(run_id)] == ["slow", "unit"]
        assert [case.task_id for case in await store.list_cases(other)] == ["unit"]

    async def test_cases_are_listed_by_task_and_place_in_pages(self, store: Store) -> None:
        run_id = new_run_id()
        places = [(task_id, index) for task_id in ("a", "b", "c") for index in (0, 1, 2, 10)]
        await store.save_cases([_case(run_id, index, task_id=task_id) for task_id, index in reversed(places)])

        pages = []
        after = None
        while page := await store.list_cases(run_id, after=after, limit=5):
            after = (page[-1].task_id, page[-1].index)
            pages.append([(case.task_id, case.index) for case in page])

        assert pages == [places[:5], places[5:10], places[10:]]

    async def test_cases_are_filtered_by_task_and_outcome_across_pages(self, store: Store) -> None:
        run_id = new_run_id()
        outcomes = [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED]
        await store.save_cases(
            [
                _case(run_id, index, task_id=task_id, outcome=outcomes[index % 4])
                for task_id in ("a", "b")
                for index in range(8)
            ]
        )
        bad = frozenset({Outcome.FAILED, Outcome.ERROR})

        of_task = await store.list_cases(run_id, task_id="b")
        of_outcome = await store.list_cases(run_id, outcomes=bad)
        of_both = await store.list_cases(run_id, task_id="a", outcomes=bad, after=("a", 1), limit=2)

        assert [case.index for case in of_task] == list(range(8))
        assert [(case.task_id, case.index) for case in of_outcome] == [
            (task_id, index) for task_id in ("a", "b") for index in (1, 2, 5, 6)
        ]
        assert [case.index for case in of_both] == [2, 5]

    async def test_many_thousand_cases_saved_at_once_all_last(self, store: Store) -> None:
        run_id = new_run_id()
        batches = [range(first, first + 1000) for first in range(0, 10_000, 1000)]

        await asyncio.gather(*(store.save_cases([_case(run_id, index) for index in batch]) for batch in batches))

        assert [case.index for case in await store.list_cases(run_id, limit=20_000)] == list(range(10_000))

    async def test_saving_no_cases_does_nothing(self, store: Store) -> None:
        await store.save_cases([])

        assert not await store.list_cases(new_run_id())


class TestHistory:
    async def test_known_duration_moves_half_way_and_outcome_is_the_last(self, store: Store) -> None:
        seconds = [8, 2, 1]
        outcomes = [Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED]

        for number, (duration, outcome) in enumerate(zip(seconds, outcomes, strict=True)):
            case = CaseHistory(
                case_id="t",
                duration=timedelta(seconds=duration),
                outcome=outcome,
                worker_id=f"w{number}",
                measured=timedelta(seconds=2 * duration),
                failing=float(outcome.bad),
            )
            await store.save_history("shop", "unit", [case])

        assert await store.load_history("shop", "unit") == {
            "t": CaseHistory(
                case_id="t",
                duration=timedelta(seconds=3),
                outcome=Outcome.SKIPPED,
                worker_id="w2",
                measured=timedelta(seconds=2),
                failing=0.25,
            )
        }

    async def test_histories_of_projects_and_tasks_are_apart(self, store: Store) -> None:
        for project, task in (("shop", "unit"), ("shop", "slow"), ("bank", "unit")):
            case = CaseHistory(case_id=f"{project}-{task}", duration=timedelta(seconds=1), outcome=Outcome.PASSED)
            await store.save_history(project, task, [case])

        assert list(await store.load_history("shop", "unit")) == ["shop-unit"]
        assert list(await store.load_history("bank", "unit")) == ["bank-unit"]
        assert await store.load_history("bank", "slow") == {}


class TestUsage:
    async def test_usage_comes_back_as_it_was_saved_the_newest_run_first(self, store: Store) -> None:
        usages = [_usage(1), _usage(2)]
        older, newer = (_run_id(date(2026, 3, 1), number) for number in (1, 2))

        await store.save_usage("shop", newer, {"unit": usages[1]})
        await store.save_usage("shop", older, {"unit": usages[0], "lint": usages[0]})

        found = await store.load_usage("shop", ["unit", "lint", "unknown"])
        assert {task: list(kept) for task, kept in found.items()} == {"unit": usages[::-1], "lint": usages[:1]}

    async def test_saving_a_run_again_replaces_it(self, store: Store) -> None:
        run_id = new_run_id()
        await store.save_usage("shop", run_id, {"unit": _usage(1)})

        await store.save_usage("shop", run_id, {"unit": _usage(2)})

        assert list((await store.load_usage("shop", ["unit"]))["unit"]) == [_usage(2)]

    async def test_of_each_task_the_newest_runs_are_kept_in_whatever_order_they_come(self, store: Store) -> None:
        run_ids = [_run_id(date(2026, 3, 1), number) for number in range(USAGES_KEPT + 3)]
        late = run_ids.pop(0)
        for number, run_id in enumerate(run_ids, start=1):
            await store.save_usage("shop", run_id, {"unit": _usage(number)})
        await store.save_usage("shop", late, {"unit": _usage(0), "other": _usage(0)})

        found = await store.load_usage("shop", ["unit", "other"])

        newest = [_usage(number) for number in range(len(run_ids), len(run_ids) - USAGES_KEPT, -1)]
        assert (list(found["unit"]), list(found["other"])) == (newest, [_usage(0)])

    async def test_usages_of_projects_and_tasks_are_apart(self, store: Store) -> None:
        for number, (project, task) in enumerate((("shop", "unit"), ("shop", "slow"), ("bank", "unit"))):
            await store.save_usage(project, new_run_id(), {task: _usage(number)})

        assert await store.load_usage("bank", ["slow"]) == {}
        assert list((await store.load_usage("bank", ["unit"]))["unit"]) == [_usage(2)]

    async def test_many_tasks_are_saved_and_loaded_at_once(self, store: Store) -> None:
        usages = {f"task {number} 'ü'": _usage(number) for number in range(10_000)}

        await store.save_usage("shop", new_run_id(), usages)

        found = await store.load_usage("shop", list(usages))
        assert {task: list(kept) for task, kept in found.items()} == {task: [each] for task, each in usages.items()}


class TestBeginning:
    async def test_a_run_begins_with_its_commit_its_row_and_its_key(self, open_store: OpenStore) -> None:
        store, other = await open_store(), await open_store()
        run_id, unkeyed = new_run_id(), new_run_id()

        answers = [
            await store.begin_run(_commit(run_id, 1), _run(run_id), key="shop/k"),
            await store.begin_run(_commit(unkeyed, 1), _run(unkeyed)),
        ]

        assert answers == [run_id, unkeyed]
        assert list(await other.read(run_id)) == [_commit(run_id, 1)]
        assert await other.get_run(run_id) == _run(run_id)
        assert await other.get_document(SUBMITTED_WITH, "shop/k") == run_id

    async def test_of_a_key_that_another_run_has_nothing_is_written(self, store: Store) -> None:
        holder, late = new_run_id(), new_run_id()
        await store.begin_run(_commit(holder, 1), _run(holder), key="shop/k")

        answer = await store.begin_run(_commit(late, 1), _run(late), key="shop/k")

        assert answer == holder
        assert not await store.read(late)
        assert await store.get_run(late) is None

    async def test_a_run_begins_once(self, store: Store) -> None:
        run_id = new_run_id()
        await store.begin_run(_commit(run_id, 1), _run(run_id), key="shop/k")

        with pytest.raises(PositionTaken):
            await store.begin_run(_commit(run_id, 1, b"other"), _run(run_id), key="shop/k")

        assert list(await store.read(run_id)) == [_commit(run_id, 1)]


class TestDocuments:
    async def test_value_is_kept_and_a_second_one_refused(self, store: Store) -> None:
        first = await store.put_if_absent("idempotency", "key", "run-1")
        second = await store.put_if_absent("idempotency", "key", "run-2")

        assert (first, second) == ("run-1", "run-1")

    async def test_kinds_and_keys_are_apart(self, store: Store) -> None:
        answers = [
            await store.put_if_absent(kind, key, value)
            for kind, key, value in [("a", "bc", "1"), ("ab", "c", "2"), ("a", "b", "3")]
        ]

        assert answers == ["1", "2", "3"]

    async def test_of_concurrent_values_one_wins_and_all_learn_which(self, open_store: OpenStore) -> None:
        masters = [await open_store(), await open_store()]

        answers = await asyncio.gather(
            *(masters[number % 2].put_if_absent("idempotency", "key", f"run-{number}") for number in range(40))
        )

        assert len(set(answers)) == 1
        assert answers[int(answers[0].removeprefix("run-"))] == answers[0]

    async def test_documents_of_a_kind_are_read_one_by_one_and_together(self, open_store: OpenStore) -> None:
        writer, reader = await open_store(), await open_store()
        for kind, key, value in [("token", "b", "2"), ("token", "a", "ü\u0000"), ("other", "a", "3")]:
            await writer.put_if_absent(kind, key, value)

        found = [await reader.get_document("token", key) for key in ("a", "b", "c")]

        assert found == ["ü\u0000", "2", None]
        assert list(await reader.list_documents("token")) == [("a", "ü\u0000"), ("b", "2")]
        assert list(await reader.list_documents("none")) == []

    async def test_document_is_replaced_only_while_it_is_what_was_expected(self, store: Store) -> None:
        await store.put_if_absent("token", "a", "1")

        answers = [
            await store.replace_document("token", key, expected=expected, value=value)
            for key, expected, value in [("a", "0", "2"), ("b", "1", "2"), ("a", "1", "3"), ("a", "1", "4")]
        ]

        assert answers == [False, False, True, False]
        assert list(await store.list_documents("token")) == [("a", "3")]

    async def test_of_concurrent_replacements_one_wins(self, open_store: OpenStore) -> None:
        masters = [await open_store(), await open_store()]
        await masters[0].put_if_absent("token", "a", "before")

        answers = await asyncio.gather(
            *(
                masters[number % 2].replace_document("token", "a", expected="before", value=str(number))
                for number in range(20)
            )
        )

        assert answers.count(True) == 1
        assert await masters[0].get_document("token", "a") == str(answers.index(True))

    async def test_output_comes_back_in_the_order_in_which_it_came(self, store: Store) -> None:
        pieces = [_piece(6), _piece(0), _piece(0, shard_id="unit/1"), _piece(0, token=9, truncated=True)]

        await store.append_output(pieces[:2])
        await store.append_output(pieces[2:])

        rows = await store.read_output("run", "unit")
        assert [piece for _, piece in rows] == pieces
        assert [row_id for row_id, _ in rows] == sorted({row_id for row_id, _ in rows})

    async def test_known_piece_is_left_as_it_is(self, store: Store) -> None:
        await store.append_output([_piece(0)])

        await store.append_output([_piece(0, content=b"other"), _piece(6)])

        assert [piece for _, piece in await store.read_output("run", "unit")] == [_piece(0), _piece(6)]

    async def test_output_is_read_on_after_an_id_by_task_and_shard(self, store: Store) -> None:
        await store.append_output(
            [_piece(offset, task_id=task_id, shard_id=f"{task_id}/{shard}")
             for offset in range(5) for task_id in ("unit", "slow") for shard in (0, 1)]
        )  # fmt: skip

        first = await store.read_output("run", "unit", shard_id="unit/1", limit=3)
        rest = await store.read_output("run", "unit", shard_id="unit/1", after_id=first[-1][0], limit=3)
        whole_task = await store.read_output("run", "slow")

        assert [piece.offset_bytes for _, piece in (*first, *rest)] == [0, 1, 2, 3, 4]
        assert {piece.shard_id for _, piece in (*first, *rest)} == {"unit/1"}
        assert {piece.task_id for _, piece in whole_task} == {"slow"}
        assert len(whole_task) == 10

    async def test_reader_that_follows_writers_misses_no_piece(self, open_store: OpenStore) -> None:
        masters = [await open_store(), await open_store()]
        reading = await open_store()
        seen: list[int] = []

        async def write(shard: int) -> None:
            for offset in range(50):
                await masters[shard % 2].append_output([_piece(offset, shard_id=f"unit/{shard}")])

        async def follow() -> None:
            after_id = 0
            while len(seen) < 200:
                page = await reading.read_output("run", "unit", after_id=after_id, limit=7)
                seen.extend(piece.offset_bytes for _, piece in page)
                after_id = page[-1][0] if page else after_id

        async with asyncio.timeout(30):
            await asyncio.gather(follow(), *(write(shard) for shard in range(4)))

        assert sorted(seen) == sorted(list(range(50)) * 4)


class TestLife:
    async def test_store_that_works_says_so(self, store: Store) -> None:
        await store.check()
        await store.check()

    async def test_everything_is_there_when_opened_again(self, open_store: OpenStore) -> None:
        run_id = new_run_id()
        first = await open_store()
        await first.append(_commit(run_id, 1))
        await first.save_runs([_run(run_id)])
        await first.save_cases([_case(run_id, 0)])
        await first.put_if_absent("kind", "key", "value")
        await first.close()

        second = await open_store()

        assert list(await second.read(run_id)) == [_commit(run_id, 1)]
        assert await second.get_run(run_id) == _run(run_id)
        assert list(await second.list_cases(run_id)) == [_case(run_id, 0)]
        assert await second.put_if_absent("kind", "key", "other") == "value"

    async def test_closing_finishes_the_writes_that_were_begun(self, open_store: OpenStore) -> None:
        store = await open_store()
        run_ids = [new_run_id() for _ in range(50)]
        appends = [asyncio.create_task(store.append(_commit(run_id, 1))) for run_id in run_ids]
        await asyncio.sleep(0)  # each task has begun

        await store.close()

        await asyncio.gather(*appends)
        again = await open_store()
        assert [len(await again.read(run_id)) for run_id in run_ids] == [1] * 50

    async def test_closed_store_refuses_reads_and_writes_and_may_be_closed_again(self, store: Store) -> None:
        await store.close()

        await store.close()

        for late in (store.append(_commit(new_run_id(), 1)), store.get_run(new_run_id()), store.check()):
            with pytest.raises(DependencyUnavailable, match="closed"):
                await late
