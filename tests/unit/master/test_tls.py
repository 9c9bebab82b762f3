"""Masters, clients and workers over TLS, on real sockets with certificates made here."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from fleetest.client import AsyncClient, ClientTls
from fleetest.client.cli.invocation import invoke
from fleetest.common.errors import DependencyUnavailable, FleetestError, InvalidRequest, WrongState
from fleetest.common.settings import Secret
from fleetest.common.states import RunState
from fleetest.common.tasks import Resources
from fleetest.master.server import Master
from fleetest.master.settings import MasterSettings
from fleetest.worker.messages import Hello, Offer, Welcome
from fleetest.worker.session_stream import dial
from tests.support.certificates import Authority

pytestmark = pytest.mark.timeout(120)

OFFER = Offer(
    worker_id="w",
    instance="one",
    version="1",
    hostname="h",
    capabilities={},
    capacity=Resources(cpu_millis=1000),
    slots=1,
)


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def start(embedded_redis, tmp_path) -> AsyncIterator[Callable]:
    """Starts a master with these settings."""
    async with AsyncExitStack() as stack:

        async def start(**settings) -> Master:
            return await stack.enter_async_context(
                Master(
                    MasterSettings(
                        **{"address": "127.0.0.1:0", **settings},
                        data_directory=tmp_path / "data",
                        redis_url=embedded_redis.url,
                        client_token=Secret("client"),
                        join_token=Secret("join"),
                    )
                )
            )

        yield start


@pytest.fixture
async def secured(start, authority) -> Master:
    """With the workers' sessions on a port of their own, which asks for certificates."""
    pair = authority.issue()
    return await start(
        tls_certificate=pair.certificate,
        tls_key=pair.key,
        tls_client_ca=authority.ca,
        worker_address="127.0.0.1:0",
    )


async def ask(port: int, tls: ClientTls | None) -> str:
    """Lists runs; answers what went wrong, if anything did."""
    async with AsyncClient(f"127.0.0.1:{port}", token="client", tls=tls) as client:
        try:
            await client.list_runs()
        except FleetestError as error:
            return error.message
    return ""


@asynccontextmanager
async def joined(port: int, tls: ClientTls | None):
    """A worker's open session."""
    async with dial(f"127.0.0.1:{port}", Secret("join"), tls) as master:
        registered = await master.register(OFFER)
        async with master.session(registered.session_address) as stream:
            await stream.say(Hello(session_id=registered.session_id, attempts=()))
            yield registered, await stream.hear()


async def test_client_and_worker_are_served_over_tls(secured, authority):
    shown = authority.issue("worker-1", file="worker")
    tls = ClientTls(ca=authority.ca, certificate=shown.certificate, key=shown.key)

    assert await ask(secured.port, ClientTls(ca=authority.ca)) == ""
    async with joined(secured.port, tls) as (registered, welcome):
        assert registered.session_address == f":{secured.worker_port}"
        assert welcome == Welcome(forget=())


async def test_session_without_a_trusted_certificate_is_refused_and_joining_is_not(secured, authority, tmp_path):
    stranger = Authority(tmp_path, "stranger").issue("worker-1", file="stranger-worker")
    untrusted = ClientTls(ca=authority.ca, certificate=stranger.certificate, key=stranger.key)

    with pytest.raises(
        DependencyUnavailable, match=rf"{secured.worker_port} .*: it wants to see a certificate"
    ) as none:
        async with joined(secured.port, ClientTls(ca=authority.ca)):
            pass
    with pytest.raises(DependencyUnavailable, match="does not trust the certificate that it was shown"):
        async with joined(secured.port, untrusted):
            pass

    assert "FLEETEST_TLS_CERT" in none.value.hint


async def test_where_sessions_have_their_own_port_the_others_serve_nothing_else(secured, authority):
    shown = authority.issue("worker-1", file="worker")
    tls = ClientTls(ca=authority.ca, certificate=shown.certificate, key=shown.key)

    with pytest.raises(WrongState, match="holds its workers' sessions at"):
        await _session_at(secured.port, tls)
    assert "Method not found" in await _said_of_clients(secured.worker_port, tls)


async def _session_at(port: int, tls: ClientTls) -> None:
    """Ignores where the registration sends it."""
    async with dial(f"127.0.0.1:{port}", Secret("join"), tls) as master:
        registered = await master.register(OFFER)
        async with master.session() as stream:
            await stream.say(Hello(session_id=registered.session_id, attempts=()))
            await stream.hear()


async def _said_of_clients(port: int, tls: ClientTls) -> str:
    async with AsyncClient(f"127.0.0.1:{port}", token="client", tls=tls) as client:
        with pytest.raises(FleetestError) as refused:
            await client.list_runs()
    return refused.value.message


async def test_worker_port_needs_no_certificates_when_nobody_asks(start):
    master = await start(worker_address="127.0.0.1:0")

    async with joined(master.port, None) as (registered, _):
        assert registered.session_address == f":{master.worker_port}"


async def test_what_does_not_go_together_is_said_in_words(secured, start, authority, tmp_path):
    other = Authority(tmp_path, "other")

    assert "speaks TLS, and was called without" in await ask(secured.port, None)
    assert "signed by nobody who is trusted here" in await ask(secured.port, ClientTls(ca=other.ca))
    assert "is for another name" in await ask(secured.port, ClientTls(ca=authority.ca, server_name="m.example"))


async def test_certificate_for_other_names_serves_whoever_expects_one_of_them(start, authority):
    pair = authority.issue("m.example")
    master = await start(tls_certificate=pair.certificate, tls_key=pair.key)

    assert "is for another name" in await ask(master.port, ClientTls(ca=authority.ca))
    assert await ask(master.port, ClientTls(ca=authority.ca, server_name="m.example")) == ""


async def test_master_without_tls_is_said_to_be_one(start, authority):
    master = await start()

    assert "does not speak TLS" in await ask(master.port, ClientTls(ca=authority.ca))
    with pytest.raises(DependencyUnavailable, match="does not speak TLS"):
        async with joined(master.port, ClientTls(ca=authority.ca)):
            pass


async def test_renewed_certificate_is_taken_without_a_restart(start, authority, tmp_path):
    pair = authority.issue()
    master = await start(tls_certificate=pair.certificate, tls_key=pair.key)
    renewed = Authority(tmp_path, "renewed")
    old, new = ClientTls(ca=authority.ca), ClientTls(ca=renewed.ca)
    before = await ask(master.port, old)

    pair.certificate.write_bytes(renewed.issue(file="next").certificate.read_bytes())
    half_done = await ask(master.port, old)
    pair.key.write_bytes((tmp_path / "next.key").read_bytes())

    assert (before, half_done) == ("", "")
    assert await ask(master.port, new) == ""
    assert "signed by nobody who is trusted here" in await ask(master.port, old)


async def test_master_does_not_start_with_files_that_it_cannot_use(start, authority, tmp_path):
    good, expired = authority.issue(), authority.issue(file="expired", lasts=timedelta(days=-1))

    for certificate, key, message in (
        (expired.certificate, expired.key, "certificate has expired"),
        (good.certificate, expired.key, "does not belong to the certificate"),
        (tmp_path / "none.pem", good.key, r"none\.pem cannot be read: No such file"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            await start(tls_certificate=certificate, tls_key=key)
    with pytest.raises(InvalidRequest, match=r"the CA file .*server\.key holds no certificate"):
        await start(
            tls_certificate=good.certificate, tls_key=good.key, tls_client_ca=good.key, worker_address="127.0.0.1:0"
        )


async def test_certificate_that_ran_out_meanwhile_is_said_to_clients(start, authority):
    pair = authority.issue(lasts=timedelta(seconds=2))
    master = await start(tls_certificate=pair.certificate, tls_key=pair.key)

    async with asyncio.timeout(30):
        while not (said := await ask(master.port, ClientTls(ca=authority.ca))):
            await asyncio.sleep(0.1)

    assert "has expired" in said


async def test_worker_runs_a_task_over_mutual_tls_until_its_token_is_revoked(secured, authority, tmp_path):
    shown = authority.issue("worker-1", file="worker")
    address = f"127.0.0.1:{secured.port}"
    async with AsyncClient(address, token="client", tls=ClientTls(ca=authority.ca)) as client:
        token, text = await client.create_join_token(description="spot")
        worker = await _start(
            "worker",
            "--slots",
            "1",
            FLEETEST_MASTER=address,
            FLEETEST_TOKEN=text.reveal(),
            FLEETEST_DATA_DIR=str(tmp_path / "worker"),
            FLEETEST_TLS_CA=str(authority.ca),
            FLEETEST_TLS_CERT=str(shown.certificate),
            FLEETEST_TLS_KEY=str(shown.key),
        )
        try:
            submitted = await client.submit("version: 1\nname: tls\ntasks: {hello: {run: id}}\n")
            async for _ in client.watch(submitted.run_id):
                pass
            ended = await client.get_run(submitted.run_id)
            await client.revoke_token(token.token_id)
            _, said = await worker.communicate()
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.communicate()

    assert ended.state is RunState.PASSED
    assert worker.returncode == 3
    assert f"fleetest: the join token {token.token_id} (spot) was revoked at" in said.decode()
    assert text.reveal() not in said.decode()


async def test_command_says_it_in_one_line_and_what_to_do(secured, authority, tmp_path, capsys):
    base = {
        "FLEETEST_MASTER": f"127.0.0.1:{secured.port}",
        "FLEETEST_TOKEN": "client",
        "FLEETEST_DATA_DIR": str(tmp_path / "user"),
    }

    async def fleetest(**environment: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        with capture_logs():  # the master's, in this process
            code = await asyncio.to_thread(invoke, ["ls"], base | environment)
        return code, capsys.readouterr().err.splitlines()

    right = await fleetest(FLEETEST_TLS_CA=str(authority.ca))
    without = await fleetest()
    absent = await fleetest(FLEETEST_TLS_CA=str(tmp_path / "none.pem"))

    wrong = await fleetest(FLEETEST_TLS_CA=str(Authority(tmp_path, "other").ca))

    at = f"127.0.0.1:{secured.port}"
    assert right == (0, ["no runs; begin one with: fleetest run"])
    assert without == (
        3,
        [
            f"fleetest: the master at {at} speaks TLS, and was called without",
            "Set FLEETEST_TLS_CA to the file of the CA that signed its certificate, or FLEETEST_TLS=1 when it is a public one",
        ],
    )
    assert wrong[0] == 3
    assert [line[:60] for line in wrong[1]] == [
        f"fleetest: the certificate of the master at {at} is signed"[:60],
        "Set FLEETEST_TLS_CA to the file of the CA that signed it",
    ]
    assert absent == (2, [f"fleetest: the CA file {tmp_path}/none.pem cannot be read: No such file or directory"])


async def _start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleetest.client",
        *arguments,
        env={name: value for name, value in os.environ.items() if not name.startswith("FLEETEST_")} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
