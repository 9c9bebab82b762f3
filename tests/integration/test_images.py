"""Our images, built on a local base: they start, say whether they are well, run a task, and stop in order."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetest.master.queue.redis_binary import find_redis_server
from tests.support.docker_engine import DockerEngine

FLEETEST = Path(sys.executable).with_name("fleetest")
TOKENS = {"FLEETEST_TOKEN": "of-clients", "FLEETEST_JOIN_TOKEN": "of-workers"}


@pytest.fixture(scope="module")
def redis_url(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that containers reach."""
    program = asyncio.run(find_redis_server())
    with socket.socket() as probe:
        probe.bind((docker_engine.gateway, 0))
        host, port = probe.getsockname()
    options = ("--bind", host, "--port", str(port), "--protected-mode", "no", "--save", "")
    server = subprocess.Popen(
        [program, *options, "--dir", str(tmp_path_factory.mktemp("redis"))], stdout=subprocess.DEVNULL
    )
    yield f"redis://{host}:{port}"
    server.terminate()
    server.wait()


@pytest.fixture
def start(docker_engine: DockerEngine) -> Iterator[Callable[..., str]]:
    """Starts a container, whose health is looked at each second; answers its id."""
    started: list[str] = []

    def start(image: str, *command: str, options: tuple[str, ...] = (), **environment: str) -> str:
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        container = docker_engine.docker(
            "run", "--detach", "--init", "--health-interval=1s", *options, *variables, image, *command
        )
        started.append(container)
        return container

    yield start
    for container in started:
        docker_engine.docker("rm", "--force", "--volumes", container)


def inspect(engine: DockerEngine, thing: str) -> dict:
    (found,) = json.loads(engine.docker("inspect", thing))
    return found


def wait_until_healthy(engine: DockerEngine, container: str) -> None:
    limit = time.monotonic() + 60
    while (state := inspect(engine, container)["State"])["Health"]["Status"] != "healthy":
        assert state["Running"], engine.docker("logs", container)
        assert time.monotonic() < limit, state["Health"]
        time.sleep(0.1)


def address_of(engine: DockerEngine, container: str) -> str:
    return f"{inspect(engine, container)['NetworkSettings']['IPAddress']}:50051"


@pytest.mark.parametrize("name", ["master", "worker", "runner"])
def test_image_is_small_labelled_and_not_roots(docker_engine, base_image, request, name):
    image = inspect(docker_engine, request.getfixturevalue(f"{name}_image"))

    assert image["Size"] - inspect(docker_engine, base_image)["Size"] < 100 << 20
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == f"Fleetest {name}"
    assert image["Config"]["User"].partition(":")[0] not in {"", "0", "root"}
    assert not any("TOKEN" in variable for variable in image["Config"]["Env"])


def test_runner_image_has_pytest_and_so_has_an_environment_made_in_it(docker_engine, runner_image):
    script = "pytest --version; git --version; python3 -m venv --system-site-packages /tmp/a; /tmp/a/bin/python -m pytest --version"

    said = docker_engine.docker("run", "--rm", runner_image, "sh", "-c", script).splitlines()

    assert [line.split()[0] for line in said] == ["pytest", "git", "pytest"]


def test_unreachable_master_makes_a_container_unhealthy(docker_engine, worker_image, start):
    worker = start(worker_image, FLEETEST_MASTER="127.0.0.1:1")

    checked = docker_engine.run("exec", worker, "fleetest", "health")

    assert checked.returncode == 3
    assert "no master answers at 127.0.0.1:1" in checked.stderr


def test_master_and_worker_in_containers_run_a_task_and_stop_in_order(
    docker_engine, master_image, worker_image, redis_url, start, tmp_path
):
    (tmp_path / "fleetest.yaml").write_text("version: 1\nname: images\ntasks: {hello: {executor: process, run: id}}\n")
    master = start(master_image, FLEETEST_REDIS_URL=redis_url, FLEETEST_INSECURE="1", **TOKENS)
    wait_until_healthy(docker_engine, master)
    address = address_of(docker_engine, master)
    worker = start(worker_image, FLEETEST_MASTER=address, FLEETEST_TOKEN=TOKENS["FLEETEST_JOIN_TOKEN"])
    wait_until_healthy(docker_engine, worker)

    ran = subprocess.run(
        [FLEETEST, "run", "--master", address],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "FLEETEST_TOKEN": TOKENS["FLEETEST_TOKEN"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    docker_engine.docker("stop", "--time", "30", worker, master)
    assert [inspect(docker_engine, each)["State"]["ExitCode"] for each in (worker, master)] == [0, 0]
