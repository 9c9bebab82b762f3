"""Safe from the first day: who may call, and what is said to whoever may not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess

import grpc
import pytest

from fleetest.common.cluster_file import ClusterFile
from fleetest.common.protocol import PROTOCOL_HEADER
from fleetest.master.queue.embedded_redis import EmbeddedRedis
from fleetest.v1.run_pb2 import ListRunsRequest
from fleetest.v1.run_pb2_grpc import RunServiceStub
from fleetest.v1.worker_pb2 import RegisterRequest
from fleetest.v1.worker_pb2_grpc import WorkerServiceStub
from tests.acceptance.conftest import FLEETEST

TOKENS = {"FLEETEST_TOKEN": "the-client-token", "FLEETEST_JOIN_TOKEN": "the-join-token"}


@pytest.fixture
def elsewhere(tmp_path):
    """The environment of somebody who knows no cluster."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETEST_")}
    return {**clean, "FLEETEST_DATA_DIR": str(tmp_path / "elsewhere"), "FLEETEST_WORKER_ID_PATIENCE_SECONDS": "0"}


@pytest.fixture
def fleetest(elsewhere):
    """Runs `fleetest` to its end; no traceback reaches anybody."""

    def run(*arguments, **environment):
        done = subprocess.run(
            [FLEETEST, *arguments],
            env={**elsewhere, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
async def open_master(elsewhere, tmp_path, until):
    """The address of a master that listens on every interface, with tokens, and by consent without TLS."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redis = EmbeddedRedis(tmp_path / "redis")
    await redis.start()
    settings = {
        "FLEETEST_LISTEN_ADDRESS": f"0.0.0.0:{port}",
        "FLEETEST_REDIS_URL": redis.url,
        "FLEETEST_INSECURE": "1",
        **TOKENS,
    }
    with (tmp_path / "master.log").open("wb") as log:
        master = await asyncio.create_subprocess_exec(
            FLEETEST, "master", env={**elsewhere, **settings}, stdout=log, stderr=log
        )
    try:
        until(lambda: _answers(port), what="the master listens")
        yield f"127.0.0.1:{port}"
    finally:
        master.terminate()
        assert await master.wait() == 0
        await redis.stop()


def _answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("given", [{}, {"FLEETEST_TOKEN": "one"}, {"FLEETEST_JOIN_TOKEN": "one"}])
def test_master_off_loopback_needs_both_tokens(fleetest, given):
    started = fleetest("master", FLEETEST_LISTEN_ADDRESS="0.0.0.0:0", FLEETEST_REDIS_URL="unix:///nowhere", **given)

    assert started.returncode == 3
    assert "refusing to listen on 0.0.0.0:0 without tokens" in started.stderr
    assert "FLEETEST_TOKEN (for clients) and FLEETEST_JOIN_TOKEN (for workers)" in started.stderr


def test_master_off_loopback_needs_tls_or_consent(fleetest):
    started = fleetest("master", FLEETEST_LISTEN_ADDRESS="0.0.0.0:0", FLEETEST_REDIS_URL="unix:///nowhere", **TOKENS)

    assert started.returncode == 3
    assert "refusing to listen on 0.0.0.0:0 without TLS" in started.stderr
    assert "FLEETEST_INSECURE=1" in started.stderr


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "wants a token"),
        ("guess", "this master does not know the token"),
        (TOKENS["FLEETEST_JOIN_TOKEN"], "not one that this master gives to clients"),
    ],
)
async def test_open_master_refuses_clients_without_their_token(open_master, fleetest, token, said):
    listed = fleetest("ls", "--master", open_master, FLEETEST_TOKEN=token)

    assert listed.returncode == 2
    assert said in listed.stderr


async def test_open_master_serves_whoever_has_the_token(open_master, fleetest):
    listed = fleetest("ls", "--master", open_master, FLEETEST_TOKEN=TOKENS["FLEETEST_TOKEN"])

    assert listed.returncode == 0, listed.stderr


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "wants a token"),
        ("guess", "this master does not know the token"),
        (TOKENS["FLEETEST_TOKEN"], "not one that this master gives to workers"),
    ],
)
async def test_open_master_refuses_workers_without_their_token(open_master, fleetest, token, said):
    worked = fleetest("worker", "--master", open_master, FLEETEST_TOKEN=token)

    assert worked.returncode == 3
    assert said in worked.stderr


def test_second_worker_of_one_id_is_refused_and_the_first_works_on(cluster, fleetest):
    second = fleetest("worker", "--master", cluster.address, "--id", "local-1", FLEETEST_TOKEN=cluster.join_token)

    assert second.returncode == 3
    assert "a worker 'local-1' is already running on" in second.stderr
    assert "fleetest worker --id NAME" in second.stderr
    with cluster.client() as client:
        assert [worker.worker_id for worker in client.workers()] == ["local-1", "local-2"]


def test_newer_client_is_told_what_to_upgrade(cluster):
    token = ClusterFile.read(cluster.directory).token
    metadata = ((PROTOCOL_HEADER, "99"), ("authorization", f"Bearer {token}"))
    with grpc.insecure_channel(cluster.address) as channel, pytest.raises(grpc.RpcError) as refused:
        RunServiceStub(channel).ListRuns(ListRunsRequest(), metadata=metadata, timeout=10)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "speaks protocol 99, this master only up to 1" in refused.value.details()
    assert "upgrade the master" in str(refused.value.trailing_metadata())


def test_newer_worker_is_told_what_to_upgrade(cluster):
    metadata = ((PROTOCOL_HEADER, "99"), ("authorization", f"Bearer {cluster.join_token}"))
    with grpc.insecure_channel(cluster.address) as channel, pytest.raises(grpc.RpcError) as refused:
        WorkerServiceStub(channel).Register(RegisterRequest(), metadata=metadata, timeout=10)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "speaks protocol 99" in refused.value.details()


def test_cluster_file_and_its_directory_are_the_users_alone(cluster):
    assert (cluster.directory / "cluster.json").stat().st_mode & 0o077 == 0
