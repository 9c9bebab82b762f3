"""Tokens over the wire: a whole master, clients and workers with tokens that were made there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from fleetest.client import AsyncClient, TokenAccess
from fleetest.common.errors import CapacityExceeded, FleetestError, Forbidden, InvalidRequest, NotFound, Unauthenticated
from fleetest.common.grpc_status import error_from
from fleetest.common.settings import Secret
from fleetest.master.server import Master
from fleetest.master.settings import MasterSettings
from fleetest.v1 import run_pb2, run_pb2_grpc
from tests.unit.master.test_server import Worker, serving, submitted

MEMORY = timedelta(milliseconds=100)


@pytest.fixture
def settings(tmp_path: Path, embedded_redis) -> MasterSettings:
    return MasterSettings(
        address="127.0.0.1:0",
        data_directory=tmp_path / "data",
        redis_url=embedded_redis.url,
        client_token=Secret("client"),
        join_token=Secret("join"),
        token_memory=MEMORY,
    )


@pytest.fixture
async def master(settings) -> AsyncIterator[Master]:
    async with serving(settings) as (master, _):
        yield master


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def client_of(opened):
    async def open_client(master: Master, token: str = "client") -> AsyncClient:
        return await opened.enter_async_context(AsyncClient(f"127.0.0.1:{master.port}", token=token))

    return open_client


@pytest.fixture
async def root(client_of, master) -> AsyncClient:
    return await client_of(master)


@asynccontextmanager
async def a_worker(master: Master, token: str) -> AsyncIterator[Worker]:
    worker = Worker(master.port, token=token)
    try:
        yield worker
    finally:
        await worker.close()


async def refusal(call) -> FleetestError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return error_from(refused.value)


async def test_worker_joins_with_its_token_and_nobody_else_does(root, master, client_of):
    token, text = await root.create_join_token(worker_id_prefix="w", most_workers=1)
    _, for_others = await root.create_join_token(worker_id_prefix="ci-")

    async with a_worker(master, text.reveal()) as worker, a_worker(master, for_others.reveal()) as other:
        await worker.open()
        refused = await refusal(other.register())

    assert isinstance(refused, Forbidden)
    assert "ci-" in refused.message
    assert [(each.token_id, each.workers_joined) for each in await root.tokens()][1] == (token.token_id, 1)
    with pytest.raises(Forbidden):
        await (await client_of(master, text.reveal())).list_runs()


async def test_session_of_another_worker_cannot_be_taken_over(root, master):
    _, for_others = await root.create_join_token(worker_id_prefix="ci-")

    async with a_worker(master, "join") as worker, a_worker(master, for_others.reveal()) as thief:
        session_id = await worker.register()
        with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
            await thief.open(session_id=session_id)

        assert await thief._call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_revocation_ends_an_open_session_at_the_other_master_too(settings, root, master):
    other_settings = replace(settings, address="127.0.0.1:0")
    async with serving(other_settings) as (other, _):
        token, text = await root.create_join_token(description="spot")
        async with a_worker(other, text.reveal()) as worker:
            await worker.open()

            await root.revoke_token(token.token_id)
            async with asyncio.timeout(20):
                code, details = await worker._call.code(), await worker._call.details()
            again = await refusal(worker.register())

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert f"join token {token.token_id} (spot) was revoked" in details
    assert isinstance(again, Unauthenticated)


async def test_revocation_ends_a_stream_that_a_client_follows(root, master, client_of, tmp_path):
    token, text = await root.create_client_token()
    run_id = await submitted(root, tmp_path / "w")
    follower = await client_of(master, text.reveal())
    commits = follower.watch(run_id)
    await anext(commits)

    await root.revoke_token(token.token_id)

    with pytest.raises(Unauthenticated, match="was revoked"):
        await asyncio.wait_for(anext(commits), timeout=20)


async def test_session_ends_when_its_token_expires(root, master):
    _, text = await root.create_join_token(lifetime=timedelta(seconds=1))

    async with a_worker(master, text.reveal()) as worker:
        await worker.open()
        async with asyncio.timeout(20):
            details = await worker._call.details()

    assert "expired at" in details


async def test_the_cache_is_cleared_by_who_may_write_in_its_project(root, master, client_of):
    _, writing = await root.create_client_token(project="shop")
    _, reading = await root.create_client_token(project="shop", access=TokenAccess.READ)
    shop, reader = await client_of(master, writing.reveal()), await client_of(master, reading.reveal())

    await shop.invalidate_cache(task_id="unit", file="test_a.py")

    assert (await master._store.get_document("cache_invalidations", "shop") or "").count("scope") == 1
    for call, error in (
        (shop.invalidate_cache(project="bank"), Forbidden),
        (reader.invalidate_cache(), Forbidden),
        (root.invalidate_cache(), InvalidRequest),
        (shop.invalidate_cache(file="test_a.py"), InvalidRequest),
    ):
        with pytest.raises(error):
            await call


async def test_client_of_one_project_sees_and_touches_nothing_of_another(root, master, client_of, tmp_path):
    _, text = await root.create_client_token(project="shop")
    shop = await client_of(master, text.reveal())
    mine = await submitted(shop, tmp_path / "w")
    other = await submitted(root, tmp_path / "w", project="bank")

    assert (await shop.get_run("latest")).run_id == (await shop.get_run(mine)).run_id == mine
    assert [run.project for run in await shop.list_runs()] == ["shop"]
    for call in (
        shop.get_run(other),
        shop.cancel(other),
        shop.retry(other),
        shop.artifacts(other),
        shop.list_runs(project="bank"),
        submitted(shop, tmp_path / "w", project="bank"),
        anext(shop.watch(other)),
        shop.drain("w"),
        shop.create_client_token(),
    ):
        with pytest.raises(Forbidden):
            await call
    with pytest.raises(NotFound):
        await shop.get_run(other[:-1])


async def test_reader_reads_and_changes_nothing(root, master, client_of, tmp_path):
    _, text = await root.create_client_token(access=TokenAccess.READ)
    reader = await client_of(master, text.reveal())
    run_id = await submitted(root, tmp_path / "w")

    assert (await reader.get_run(run_id)).run_id == run_id
    with pytest.raises(Forbidden, match="may only read"):
        await reader.cancel(run_id)
    with pytest.raises(Forbidden, match="may only read"):
        await submitted(reader, tmp_path / "w")


async def test_administrator_passes_on_what_it_may_and_its_name_is_kept(root, master, client_of):
    made, text = await root.create_client_token(access=TokenAccess.ADMIN, description="ops")
    administrator = await client_of(master, text.reveal())

    _, second = await administrator.create_client_token(lifetime=timedelta(days=1))

    newest = (await root.tokens())[0]
    assert newest.created_by == f"client token {made.token_id} (ops)"
    assert newest.access is TokenAccess.WRITE
    assert newest.expires_at - newest.created_at == timedelta(days=1)
    assert repr(second) == "Secret(***)"


async def test_authorization_that_is_huge_hurts_nobody(root, master):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{master.port}") as channel:
        stub = run_pb2_grpc.RunServiceStub(channel)
        refused = []
        for length in (5_000, 100_000):
            metadata = (("authorization", "Bearer flt_client_" + "a" * length),)
            refused.append(await refusal(stub.GetRun(run_pb2.GetRunRequest(), metadata=metadata)))

    assert [type(error) for error in refused] == [Unauthenticated, CapacityExceeded]
    assert await root.list_runs() == []
