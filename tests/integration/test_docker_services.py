"""Services in containers: found by those that need them, in a network of their run that leads nowhere else."""

from __future__ import annotations

import asyncio
import urllib.request
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from fleetest.common.states import Verdict
from fleetest.common.tasks import Network, Probe, Service
from fleetest.worker.runners.service import ServiceRunner
from tests.support.docker_executors import executor_on, prepared, run_command
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, assignment, make_spec, suite

pytestmark = pytest.mark.timeout(180)

SERVER = 'exec python3 -m http.server --bind "$HOST" "$PORT"'
ASK = """
import os, socket, urllib.request
print(urllib.request.urlopen(os.environ["SHOP_URL"] + "/health.py").read().decode())
print(socket.gethostbyname(os.environ["SHOP_HOST"]))
"""
CALL = """
import os, socket
try:
    socket.create_connection((os.environ["CALLED"], int(os.environ["PORT"])), timeout=1)
    print("reached")
except OSError:
    print("not reached")
"""


@pytest.fixture
async def executor(docker_engine, tmp_path):
    """Of a worker that leaves nothing on the Engine, and finds there what an earlier life has left."""
    docker_engine.docker("network", "create", "--label=fleetest.directory=w1", "left-behind")
    async with executor_on(docker_engine, tmp_path / "worker") as opened:
        assert docker_engine.networks() == []
        yield opened
    assert not docker_engine.containers("label=fleetest.worker=w1")
    assert docker_engine.networks() == []


def spec_for(tmp_path, image, **changes):
    settings = {"image": image, "network": Network.NONE, "run_network": "run-1", **changes}
    return make_spec(suite(tmp_path / "w", health="up", ask=ASK, call=CALL), **settings)


@asynccontextmanager
async def shop(executor, tmp_path, image, **changes):
    """A service that is ready; answers its variables. Its attempt ends as one that was stopped."""
    probe = Probe(http="/health.py", interval=timedelta(milliseconds=50), timeout=timedelta(seconds=60))
    service = Service(ready=probe, ports=changes.pop("ports", {}), publish=changes.pop("publish", {}))
    spec = spec_for(tmp_path, image, type="service", task_id="shop", shell=SERVER, service=service, **changes)
    async with prepared(executor, spec) as environment:
        session = await ServiceRunner(DirectoryBlobs(tmp_path)).open(spec, environment)
        asked, reporter = assignment(spec), RecordingReporter()
        ended = session.submit(asked, reporter)
        try:
            async with asyncio.timeout(60):
                while reporter.notes is None:
                    reporter.changed.clear()
                    await reporter.changed.wait()
                    assert not reporter.results, reporter.results
            yield reporter.variables
            await session.stop(asked.ref, reason="enough", grace=timedelta(), finish_running_case=False)
            assert ended.result().verdict is Verdict.CANCELLED
        finally:
            await session.close()


async def test_service_is_all_that_a_container_without_a_network_reaches_and_only_in_its_run(
    executor, docker_engine, tmp_path, base_image
):
    async def run(script, run_network="run-1", **env):
        command = ("python3", script)
        spec = spec_for(tmp_path, base_image, type="command", command=command, env=env, run_network=run_network)
        _, reporter = await run_command(executor, spec)
        return reporter.text.splitlines()

    machine = await asyncio.start_server(lambda _, writer: writer.close(), docker_engine.gateway, 0)
    host, port = machine.sockets[0].getsockname()
    async with machine, shop(executor, tmp_path, base_image, ports={"metrics": 9100}) as variables:
        page, address = await run("ask.py", **variables)
        to_machine = await run("call.py", CALLED=host, PORT=str(port))
        from_elsewhere = await run("call.py", "run-2", CALLED=address, PORT=variables["SHOP_PORT"])

    assert page == "up"
    assert (to_machine, from_elsewhere) == (["not reached"], ["not reached"])
    assert variables == {
        "SHOP_HOST": "shop",
        "SHOP_PORT": "8000",
        "SHOP_URL": "http://shop:8000",
        "SHOP_METRICS_PORT": "9100",
        "SHOP_METRICS_URL": "http://shop:9100",
    }


async def test_containers_are_kept_in_a_runs_network_while_it_has_a_service_and_no_longer(
    executor, docker_engine, tmp_path, base_image
):
    ask = spec_for(tmp_path, base_image, type="command", shell="true")
    async with shop(executor, tmp_path, base_image):
        _, first = await run_command(executor, ask)
        _, second = await run_command(executor, ask)
        assert len(docker_engine.networks()) == 1

    assert (list(first.notes or ()), list(second.notes or ())) == ([], ["container reused"])
    assert docker_engine.networks() == []
    assert not docker_engine.containers("label=fleetest.worker=w1")


async def test_published_port_is_reached_from_the_machine(executor, tmp_path, base_image):
    publish = {"": 0}
    async with shop(executor, tmp_path, base_image, publish=publish, network=Network.BRIDGE) as variables:
        url = variables["SHOP_PUBLISHED_URL"]
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/health.py", timeout=30).read())

    assert page == b"up"
    assert url == f"http://127.0.0.1:{variables['SHOP_PUBLISHED_PORT']}"
    assert variables["SHOP_URL"] == "http://shop:8000"
