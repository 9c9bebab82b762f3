"""What every store promises of the holds on blobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fleetest.common.digest import digest_of
from fleetest.master.store.mongo import MongoStore
from fleetest.master.store.ports import BlobHold, Store
from fleetest.master.store.sqlite import SqliteStore

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)
A, B, C = (digest_of(content) for content in (b"a", b"b", b"c"))


@pytest.fixture(params=["sqlite", "mongodb"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        opened: Store = await SqliteStore.open(request.getfixturevalue("tmp_path") / "store.sqlite")
    else:
        opened = await MongoStore.open(request.getfixturevalue("mongodb_url"))
    yield opened
    await opened.close()


def hold(digest: str, project: str = "shop", *, holder: str = "workspace", name: str = "", days: int = 1) -> BlobHold:
    return BlobHold(digest=digest, project=project, holder=holder, name=name, until=NOON + days * DAY)


async def test_blob_is_held_until_the_last_hold_on_it_ends(store: Store) -> None:
    await store.hold([hold(A, days=1), hold(A, holder="run", name="log.txt", days=2), hold(B, days=1)])

    assert await store.held([A, B, C], at=NOON) == {A, B}
    assert await store.held([A, B, C], at=NOON + DAY) == {A}
    assert await store.held([A, B, C], at=NOON + 2 * DAY) == frozenset()
    assert await store.held([], at=NOON) == frozenset()


async def test_blob_is_held_by_the_projects_that_said_so(store: Store) -> None:
    await store.hold([hold(A, "shop"), hold(B, "bank"), hold(C, "")])

    assert await store.held([A, B, C], at=NOON, project="shop") == {A}
    assert await store.held([A, B, C], at=NOON, project="bank") == {B}


async def test_hold_is_prolonged_and_never_shortened_by_another(store: Store) -> None:
    await store.hold([hold(A, days=2)])

    await store.hold([hold(A, days=1)])
    await store.hold([hold(A, days=3), hold(A, days=2)])

    assert await store.holds_of("workspace") == [hold(A, days=3)]


async def test_holds_of_a_holder_are_all_of_its_own(store: Store) -> None:
    mine = [hold(A, holder="run", name="b.txt"), hold(B, holder="run", name="a.txt", days=-1)]
    await store.hold([*mine, hold(A, holder="other run", name="b.txt")])

    assert await store.holds_of("run") == [mine[1], mine[0]]
    assert await store.holds_of("nobody") == []


async def test_hold_that_is_ended_ends_at_once_and_none_is_made(store: Store) -> None:
    await store.hold([hold(A, days=2), hold(B, days=-1)])

    await store.end_holds([hold(A), hold(B), hold(C)], at=NOON)

    assert await store.held([A, C], at=NOON) == frozenset()
    assert {each.digest: each.until for each in await store.holds_of("workspace")} == {A: NOON, B: NOON - DAY}


async def test_ended_holds_come_in_the_order_of_their_ends_and_in_batches(store: Store) -> None:
    await store.hold([hold(A, days=1), hold(B, days=3), hold(C, days=2)])

    assert await store.ended_holds(NOON, limit=10) == []
    assert await store.ended_holds(NOON + 4 * DAY, limit=2) == [hold(A, days=1), hold(C, days=2)]


async def test_released_hold_is_forgotten_unless_it_was_prolonged(store: Store) -> None:
    ended = [hold(A), hold(B), hold(C)]
    await store.hold(ended[:2])
    await store.hold([replace(ended[1], until=NOON + 9 * DAY)])

    await store.release(ended)
    await store.release([])

    assert await store.holds_of("workspace") == [hold(B, days=9)]


async def test_many_blobs_are_held_and_asked_for_at_once(store: Store) -> None:
    digests = [digest_of(str(number).encode()) for number in range(2500)]
    await store.hold([hold(digest) for digest in digests])

    assert await store.held([*digests, A], at=NOON, project="shop") == set(digests)
