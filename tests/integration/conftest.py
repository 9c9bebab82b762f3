"""Our own parts in containers, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetest.master.queue.redis_binary import find_redis_server
from tests.support.docker_engine import DockerEngine

FLEETEST = Path(sys.executable).with_name("fleetest")
TOKENS = {"FLEETEST_TOKEN": "of-clients", "FLEETEST_JOIN_TOKEN": "of-workers"}
_HEALTHY_SECONDS = 90


class Containers:
    """Containers that a test starts; `remove` takes them away with their anonymous volumes."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._started: list[str] = []

    def start(self, image: str, *options: str, **environment: str) -> str:
        """Start one, whose health is looked at each second; answers its id."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        container = self._engine.docker(
            "run", "--detach", "--init", "--health-interval=1s", *options, *variables, image
        )
        self._started.append(container)
        return container

    def wait_until_healthy(self, container: str) -> None:
        limit = time.monotonic() + _HEALTHY_SECONDS
        while (state := self._engine.inspect(container)["State"])["Health"]["Status"] != "healthy":
            assert state["Running"], self.logs(container)
            assert time.monotonic() < limit, (state["Health"], self.logs(container))
            time.sleep(0.1)  # the Engine rings no bell

    def address_of(self, master: str) -> str:
        return f"{self._engine.inspect(master)['NetworkSettings']['IPAddress']}:50051"

    def logs(self, container: str) -> str:
        said = self._engine.run("logs", container)
        return said.stdout + said.stderr

    def remove(self) -> None:
        for container in self._started:
            self._engine.docker("rm", "--force", "--volumes", container)


@pytest.fixture
def containers(docker_engine: DockerEngine) -> Iterator[Containers]:
    made = Containers(docker_engine)
    yield made
    made.remove()


@pytest.fixture(scope="session")
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
