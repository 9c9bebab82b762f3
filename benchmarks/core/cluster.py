"""
A cluster of ours to measure: Redis, a master with its durable store, and workers, each a process as in production.

It is put together here, and not by `fleetest up`, so that a benchmark can choose the workers' program and knows every
process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from benchmarks.core.bench import ROOT
from fleetest.client import AsyncClient
from fleetest.common.errors import DependencyUnavailable, NotFound
from fleetest.common.tether import TETHER_VARIABLE
from fleetest.master.queue.embedded_redis import EmbeddedRedis

__all__ = ["NOOP_WORKER", "WORKER", "Cluster", "serving"]

WORKER: Final = ("fleetest.worker", "worker")
NOOP_WORKER: Final = ("benchmarks.noop.worker",)
"""Modules and arguments of the two kinds of workers."""

_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that serves."""

    address: str
    directory: Path
    master: subprocess.Popen[bytes]
    workers: Sequence[subprocess.Popen[bytes]]
    redis_pid: int

    @property
    def environment(self) -> Mapping[str, str]:
        """For the `fleetest` command."""
        return {**os.environ, "FLEETEST_MASTER": self.address, "FLEETEST_DATA_DIR": str(self.directory / "client")}

    def client(self) -> AsyncClient:
        """To be used as a context manager."""
        return AsyncClient(self.address)


@asynccontextmanager
async def serving(
    directory: Path, *, workers: int = 2, slots: int = 1, program: Sequence[str] = WORKER
) -> AsyncIterator[Cluster]:
    """
    A cluster whose workers have registered.

    Raises:
        DependencyUnavailable: it does not start.
    """
    async with EmbeddedRedis(directory / "redis") as redis:
        address = f"127.0.0.1:{_free_port()}"
        environment = {
            **os.environ,
            TETHER_VARIABLE: str(os.getpid()),
            "PYTHONPATH": str(ROOT),
            "FLEETEST_REDIS_URL": redis.url,
            "FLEETEST_LISTEN_ADDRESS": address,
            "FLEETEST_MASTER": address,
            "FLEETEST_CACHE_DIR": str(directory / "cache"),
            "FLEETEST_WORKER_SLOTS": str(slots),
        }
        assert redis.pid is not None
        with _child(directory, "master", ["fleetest.master", "master"], environment) as master:
            started: list[subprocess.Popen[bytes]] = []
            async with AsyncClient(address) as client:
                await _until_serving(client, started, 0)
                with _children(directory, program, environment, workers, started):
                    await _until_serving(client, started, workers)
                    yield Cluster(
                        address=address, directory=directory, master=master, workers=started, redis_pid=redis.pid
                    )


async def _until_serving(client: AsyncClient, children: Sequence[subprocess.Popen[bytes]], workers: int) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                if len(await client.workers()) == workers:
                    return
            except (DependencyUnavailable, NotFound):
                pass
            if any(child.poll() is not None for child in children):
                raise DependencyUnavailable("a worker ended while it started")
            await asyncio.sleep(0.05)  # another process, which rings no bell


@contextmanager
def _children(
    directory: Path,
    program: Sequence[str],
    environment: Mapping[str, str],
    count: int,
    started: list[subprocess.Popen[bytes]],
) -> Iterator[None]:
    with ExitStack() as stack:
        for number in range(1, count + 1):
            own = {"FLEETEST_WORKER_ID": f"worker-{number}"}
            started.append(stack.enter_context(_child(directory, f"worker-{number}", program, {**environment, **own})))
        yield


@contextmanager
def _child(
    directory: Path, name: str, program: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    home = directory / name
    home.mkdir(parents=True)
    log: IO[bytes]
    with (directory / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *program],
            env={**environment, "FLEETEST_DATA_DIR": str(home)},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
