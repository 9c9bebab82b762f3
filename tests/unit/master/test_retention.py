from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from fleetest.common.clock import ManualClock
from fleetest.common.ids import new_run_id
from fleetest.master.retention import Retention
from fleetest.master.store.ports import Commit
from fleetest.master.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path):
    async with await SqliteStore.open(tmp_path / "fleetest.sqlite") as store:
        yield store


@pytest.mark.parametrize(("days", "kept"), [(29, 1), (32, 0)])
async def test_log_is_kept_for_its_time_and_then_dropped(store, days, kept):
    run_id, now = new_run_id(), datetime.now(UTC)
    await store.append(Commit(run_id=run_id, position=1, at=now, events=b""))
    clock = ManualClock(now + timedelta(days=days))

    await Retention(store, clock, timedelta(days=30)).look()

    assert len(await store.read(run_id)) == kept


async def test_store_that_fails_is_asked_again_later(store):
    retention = Retention(store, ManualClock(datetime.now(UTC)), timedelta(days=30))
    await store.close()

    looking = asyncio.create_task(retention.run())
    done, _ = await asyncio.wait([looking], timeout=0.3)
    looking.cancel()

    assert not done
