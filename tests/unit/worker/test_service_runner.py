"""Services on a worker: when one is ready, how it ends, and that it takes no slot from those that it serves."""

from __future__ import annotations

import asyncio
import urllib.request
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import Probe, Service
from fleetest.worker.runners.probing import look
from fleetest.worker.runners.service import ServiceRunner
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, assignment, environment, make_spec, suite

SERVER = 'exec python3 -m http.server --bind 127.0.0.1 "$PORT"'
QUICK = timedelta(milliseconds=50)


def probe(**settings):
    return Probe(**{"interval": QUICK, "timeout": timedelta(seconds=60), **settings})


@asynccontextmanager
async def started(tmp_path, shell, ready, **service):
    spec = make_spec(
        suite(tmp_path / "w", health="up"),
        type="service",
        task_id="my-shop",
        shell=shell,
        service=Service(ready=ready, **service),
    )
    async with environment(spec) as place:
        session = await ServiceRunner(DirectoryBlobs(tmp_path)).open(spec, place)
        asked, reporter = assignment(spec), RecordingReporter()
        ended = session.submit(asked, reporter)
        try:
            yield session, asked.ref, ended, reporter
        finally:
            await session.close()


async def until_ready(ended, reporter):
    async with asyncio.timeout(60):
        while reporter.notes is None and not ended.done():
            reporter.changed.clear()
            changed = asyncio.create_task(reporter.changed.wait())
            await asyncio.wait([changed, ended], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
    assert reporter.notes is not None, reporter.results


@pytest.mark.parametrize(
    "ready",
    [
        {"http": "/health.py"},
        {"tcp": True},
        {"shell": "python3 -c 'import urllib.request as u; u.urlopen(\"'$MY_SHOP_URL'\")'"},
    ],
    ids=["http", "tcp", "command"],
)
async def test_service_says_where_it_is_once_it_is_ready_and_ends_when_it_is_stopped(tmp_path, ready):
    async with started(tmp_path, SERVER, probe(**ready)) as (session, ref, ended, reporter):
        await until_ready(ended, reporter)
        url = reporter.variables["MY_SHOP_URL"]
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/health.py", timeout=30).read())

        await session.stop(ref, reason="enough", grace=timedelta(seconds=5), finish_running_case=False)

    assert page == b"up"
    assert url == f"http://{reporter.variables['MY_SHOP_HOST']}:{reporter.variables['MY_SHOP_PORT']}"
    assert (ended.result().verdict, reporter.results) == (Verdict.CANCELLED, [])


@pytest.mark.parametrize(
    ("shell", "ready", "message"),
    [
        ("echo no database; exit 3", {"tcp": True}, "it ended with exit code 3 before it was ready"),
        ("echo up; sleep 60", {"shell": "echo not yet; exit 1", "timeout": QUICK}, "ended with exit code 1: not yet"),
    ],
)
async def test_service_that_never_becomes_ready_fails_with_its_output(tmp_path, shell, ready, message):
    async with started(tmp_path, shell, probe(**ready)) as (_, _, ended, reporter):
        async with asyncio.timeout(60):
            await asyncio.wait([ended])

    (result,) = reporter.results
    assert (result.case_id, result.outcome) == ("my-shop", Outcome.FAILED)
    assert message in result.message
    assert result.details == reporter.text.strip()


async def test_service_that_dies_while_it_is_needed_fails_with_its_output(tmp_path):
    go = tmp_path / "go"
    shell = f"until test -e {go}; do sleep 0.02; done; echo out of books; exit 4"
    async with started(tmp_path, shell, probe(shell="true")) as (_, _, ended, reporter):
        await until_ready(ended, reporter)
        go.touch()
        async with asyncio.timeout(60):
            await asyncio.wait([ended])

    (result,) = reporter.results
    assert (result.message, result.details) == ("it ended with exit code 4 while it was needed", "out of books")


async def test_answer_of_another_status_is_not_ready():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        busy = await look(Probe(http="/health"), port, run_shell=None)
        asked_for = await look(Probe(http="/health", status=503), port, run_shell=None)

    assert (busy, asked_for) == ("GET /health answered 503, not 200", "")


async def test_port_that_is_taken_is_said_before_a_stranger_is_taken_for_the_service(tmp_path):
    stranger = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    async with started(tmp_path, "sleep 60", probe(tcp=True), port=port) as (_, _, ended, reporter):
        await asyncio.wait([ended])
    stranger.close()

    assert f"port {port} of this worker is somebody else's" in reporter.results[0].message
