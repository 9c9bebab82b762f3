"""Services on a worker: when one is ready, how it ends, and that it takes no slot from those that it serves."""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from fleetest.common.errors import InvalidRequest
from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import Probe, Service
from fleetest.worker.published_host import find_published_host
from fleetest.worker.runners.probing import look
from fleetest.worker.runners.service import ServiceRunner
from fleetest.worker.service_address import ServiceAddress, address_among_processes
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, assignment, environment, make_spec, suite

SERVER = 'exec python3 -m http.server --bind "$HOST" "$PORT"'
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


def address_of(server, host, **settings):
    return ServiceAddress(host="127.0.0.1", listens=host, ports={"": server.sockets[0].getsockname()[1]}, **settings)


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
        address = address_of(server, "127.0.0.1")
        busy = await look(Probe(http="/health"), address, run=None)
        asked_for = await look(Probe(http="/health", status=503), address, run=None)

    assert (busy, asked_for) == ("GET /health answered 503, not 200", "")


async def test_port_that_is_taken_is_said_before_a_stranger_is_taken_for_the_service(tmp_path):
    stranger = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    async with started(tmp_path, "sleep 60", probe(tcp=True), port=port) as (_, _, ended, reporter):
        await asyncio.wait([ended])
    stranger.close()

    assert f"port {port} of this worker is somebody else's" in reporter.results[0].message


@pytest.fixture
def run_with(tmp_path):
    """Runs a command where of all programs that could ask there is one; as in a container, whose ports are its own."""

    def make(program):
        for name in (program, "sh"):
            (tmp_path / name).symlink_to(shutil.which(name))

        async def run(argv):
            process = await asyncio.create_subprocess_exec(
                *argv, env={"PATH": str(tmp_path)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
            return process.returncode, said.decode().strip().rpartition("\n")[2]

        return run

    return make


@pytest.mark.parametrize("program", ["bash", "curl", "wget"])
async def test_probe_from_inside_asks_with_what_an_image_has(run_with, program):
    async def answer(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if request.startswith(b"GET /up HTTP/1") else b"404 No"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    run = run_with(program)
    async with await asyncio.start_server(answer, "0.0.0.0", 0) as server:
        address = address_of(server, "0.0.0.0", inside=True)
        ready, tcp, absent = [
            await look(probe, address, run) for probe in (Probe(http="/up"), Probe(tcp=True), Probe(http="/down"))
        ]

    assert (ready, tcp, absent) == ("", "", "GET /down answered 404, not 200")


async def test_probe_from_inside_tells_of_one_that_listens_for_itself_alone_and_of_images_that_cannot_ask(run_with):
    run = run_with("true")
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        alone = await look(Probe(tcp=True), address_of(server, "0.0.0.0", inside=True), run)
    async with await asyncio.start_server(lambda *_: None, "0.0.0.0", 0) as server:
        mute = await look(Probe(http="/"), address_of(server, "0.0.0.0", inside=True), run)
    nowhere = ServiceAddress(host="127.0.0.1", listens="0.0.0.0", ports={"": 1}, inside=True)
    nobody = await look(Probe(tcp=True), nowhere, run)

    assert "takes connections of its own container alone: listen on HOST, 0.0.0.0" in alone
    assert "the image has none of bash, curl and wget" in mute
    assert nobody == "port 1 takes no connection"


async def test_ports_of_a_process_are_told_by_name_and_published_as_they_are():
    service = Service(ready=Probe(tcp=True), ports={"metrics": 0}, publish={"": 0})

    address = await address_among_processes(service, lambda: "192.0.2.7")
    told, own = address.variables("my-shop"), address.own_variables

    port, metrics = told["MY_SHOP_PORT"], told["MY_SHOP_METRICS_PORT"]
    assert own == {"HOST": "0.0.0.0", "PORT": port, "METRICS_PORT": metrics}
    assert (told["MY_SHOP_URL"], told["MY_SHOP_METRICS_URL"]) == (
        f"http://127.0.0.1:{port}",
        f"http://127.0.0.1:{metrics}",
    )
    assert told["MY_SHOP_PUBLISHED_URL"] == f"http://192.0.2.7:{port}"
    assert "MY_SHOP_PUBLISHED_METRICS_URL" not in told


async def test_process_cannot_be_published_under_another_number_than_it_listens_on():
    service = Service(ready=Probe(tcp=True), port=8080, publish={"": 80})

    with pytest.raises(InvalidRequest, match="listens on port 8080 and is to be published as 80"):
        await address_among_processes(service, lambda: "192.0.2.7")


def test_host_that_is_named_is_where_services_are_published():
    assert find_published_host("shop.example", ["127.0.0.1:1"]) == "shop.example"
