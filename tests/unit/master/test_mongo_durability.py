"""What was acknowledged stays, whatever breaks: on MongoDB's own engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote, unquote
from uuid import UUID

import pytest
from pymongo import AsyncMongoClient

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, WrongState
from fleetest.common.ids import day_of_run, new_run_id
from fleetest.common.settings import Secret
from fleetest.common.states import Outcome
from fleetest.master.store.mongo import MongoStore
from fleetest.master.store.mongo_parts import LARGEST_PART_BYTES
from fleetest.master.store.ports import CaseRow, Commit, LogPiece, PositionTaken
from tests.support.losing_network import LosingNetwork
from tests.support.mongodb_engine import MongodbEngine, engine_or_skip

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _commit(run_id: str, position: int, events: bytes = b"events") -> Commit:
    return Commit(run_id=run_id, position=position, at=NOON, events=events)


def _piece(offset_bytes: int) -> LogPiece:
    return LogPiece(run_id="run", task_id="unit", shard_id="unit/0", token=1, offset_bytes=offset_bytes, content=b"out")


@pytest.fixture
async def stores(mongodb_url: Secret) -> AsyncIterator[tuple[MongoStore, MongoStore]]:
    """Two masters on one database."""
    async with await MongoStore.open(mongodb_url) as one, await MongoStore.open(mongodb_url) as two:
        yield one, two


async def _collections(url: Secret) -> set[str]:
    async with AsyncMongoClient[dict[str, object]](url.reveal()) as client:
        return set(await client.get_default_database().list_collection_names())


@pytest.fixture
def mortal_engine() -> Iterator[MongodbEngine]:
    """One of the test's own, to be killed."""
    with engine_or_skip() as engine:
        yield engine


async def test_what_was_acknowledged_survives_the_engine_and_masters_go_on_when_it_is_back(
    mortal_engine: MongodbEngine,
) -> None:
    run_ids = [new_run_id() for _ in range(20)]
    acknowledged = dict.fromkeys(run_ids, 0)
    killed = asyncio.Event()

    async def append_until_killed(store: MongoStore, run_id: str) -> None:
        # What was lost with the engine may be the commit before this one, or the answer to this one.
        with suppress(WrongState, PositionTaken, DependencyUnavailable):
            while not killed.is_set():
                await store.append(_commit(run_id, acknowledged[run_id] + 1))
                acknowledged[run_id] += 1

    async def kill_in_the_middle() -> dict[str, int]:
        while sum(acknowledged.values()) < 300:
            await asyncio.sleep(0.001)
        must_survive = dict(acknowledged)
        await asyncio.to_thread(mortal_engine.flush)
        while sum(acknowledged.values()) < 400:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(mortal_engine.kill)
        killed.set()
        await asyncio.to_thread(mortal_engine.start)
        return must_survive

    async with await MongoStore.open(mortal_engine.url("fleetest")) as store:
        must_survive, *_ = await asyncio.gather(
            kill_in_the_middle(), *(append_until_killed(store, run_id) for run_id in run_ids)
        )
        logs = {run_id: [commit.position for commit in await store.read(run_id)] for run_id in run_ids}
        for run_id in run_ids:
            await store.append(_commit(run_id, len(logs[run_id]) + 1))

    assert {run_id: positions for run_id, positions in logs.items() if len(positions) < must_survive[run_id]} == {}
    assert logs == {run_id: list(range(1, len(positions) + 1)) for run_id, positions in logs.items()}


async def test_engine_that_stays_away_makes_every_call_fail_and_is_used_again_when_it_is_back(
    mortal_engine: MongodbEngine,
) -> None:
    run_id = new_run_id()
    url = Secret(mortal_engine.url("fleetest").reveal() + "&serverSelectionTimeoutMS=2000")

    async with await MongoStore.open(url) as store:
        await store.append(_commit(run_id, 1))
        mortal_engine.flush()
        mortal_engine.kill()
        answers = await asyncio.gather(
            store.append(_commit(run_id, 2)),
            store.read(run_id),
            store.check(),
            store.append_output([_piece(0)]),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [DependencyUnavailable] * 4
        assert all("does not answer" in str(answer) for answer in answers)
        mortal_engine.start()

        await store.append(_commit(run_id, 2))

        assert [commit.position for commit in await store.read(run_id)] == [1, 2]


@pytest.fixture
async def network(mongodb_url: Secret, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LosingNetwork]:
    socket = unquote(mongodb_url.reveal().removeprefix("mongodb://").partition("/")[0])
    async with LosingNetwork(Path(socket)).listening() as network:
        yield network


async def test_write_whose_answer_was_lost_is_known_again_and_done_once(
    mongodb_url: Secret, network: LosingNetwork
) -> None:
    run_id, other = new_run_id(), new_run_id()
    through = mongodb_url.reveal().replace(quote(str(network.target), safe=""), quote(str(network.socket), safe=""))

    async with await MongoStore.open(Secret(through)) as store:
        network.lose_answer_to(b"insert")
        await asyncio.gather(store.append(_commit(run_id, 1)), store.append(_commit(other, 1)))
        network.lose_answer_to(b"insert")
        await store.append_output([_piece(0), _piece(3)])
        network.lose_answer_to(b"findAndModify")
        await store.put_if_absent("kind", "key", "value")
        network.lose_answer_to(b"update")
        assert await store.replace_document("kind", "key", expected="value", value="next")
        assert not await store.replace_document("kind", "key", expected="value", value="next")
        with pytest.raises(PositionTaken):
            await store.append(_commit(run_id, 1, b"other"))

        assert network.lost == 4
        assert [commit.events for commit in await store.read(run_id)] == [b"events"]
        assert [(place, piece.offset_bytes) for place, piece in await store.read_output("run", "unit")] == [
            (1, 0),
            (2, 3),
        ]
        assert await store.get_document("kind", "key") == "next"


async def test_commit_larger_than_a_document_is_read_whole_and_its_rival_leaves_nothing(
    stores: tuple[MongoStore, MongoStore], mongodb_url: Secret
) -> None:
    run_id = new_run_id()
    size = LARGEST_PART_BYTES + 1000
    contents = [b"a" * size, b"b" * size]
    await stores[0].append(_commit(run_id, 1))

    answers = await asyncio.gather(
        *(store.append(_commit(run_id, 2, content)) for store, content in zip(stores, contents, strict=True)),
        return_exceptions=True,
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "PositionTaken"]
    assert (await stores[0].read(run_id))[1].events == contents[answers.index(None)]
    day = day_of_run(run_id)
    async with AsyncMongoClient[dict[str, object]](mongodb_url.reveal()) as client:
        assert await client.get_default_database()[f"log_{day:%Y%m%d}_parts"].count_documents({}) == 2
    assert await stores[1].drop_before(date(2100, 1, 1)) == [day]
    assert not {name for name in await _collections(mongodb_url) if name.startswith("log_")}


async def test_append_to_a_partition_that_another_master_dropped_brings_no_collection_back(
    stores: tuple[MongoStore, MongoStore], mongodb_url: Secret
) -> None:
    run_id = str(UUID(int=int(NOON.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62))
    await stores[0].append(_commit(run_id, 1))
    await stores[1].drop_before(date(2026, 3, 2))

    with pytest.raises(WrongState, match="dropped, with all from before 2026-03-02"):
        await stores[0].append(_commit(run_id, 2))

    assert "log_20260301" not in await _collections(mongodb_url)


async def test_pieces_sent_again_to_another_master_leave_no_hole_among_the_ids(
    stores: tuple[MongoStore, MongoStore],
) -> None:
    await stores[0].append_output([_piece(0), _piece(2)])
    await stores[1].append_output([_piece(0), _piece(1), _piece(2), _piece(3)])
    await stores[0].append_output([_piece(4)])

    found = await stores[0].read_output("run", "unit")

    assert [(place, piece.offset_bytes) for place, piece in found] == [(1, 0), (2, 2), (3, 1), (4, 3), (5, 4)]


async def test_case_too_large_for_a_document_is_refused_and_the_rest_of_its_batch_may_be_saved(
    stores: tuple[MongoStore, MongoStore],
) -> None:
    run_id = new_run_id()
    cases = [
        CaseRow(
            run_id=run_id,
            task_id="unit",
            case_id=f"t{size}",
            index=0,
            outcome=Outcome.PASSED,
            flaky=False,
            position=1,
            body={"text": "x" * size},
        )
        for size in (10, 17 << 20)
    ]

    with pytest.raises(CapacityExceeded, match="too large"):
        await stores[0].save_cases(cases)
    await stores[0].save_cases(cases[:1])

    assert list(await stores[0].list_cases(run_id)) == cases[:1]
