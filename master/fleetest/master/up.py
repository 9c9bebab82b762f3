"""
`fleetest up`: a whole cluster on one machine, as child processes of one supervisor.

Redis, the master and the workers are the same programs as in a large deployment. What dies is started again; when the
supervisor ends, however it ends, so do they.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.cluster_file import ClusterFile, hold_lock
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.ids import new_token
from fleetest.common.tether import TETHER_VARIABLE
from fleetest.common.version import version
from fleetest.master.queue.embedded_redis import EmbeddedRedis
from fleetest.master.reserved_port import reserved_port

__all__ = ["Cluster", "ClusterShape"]

_log = structlog.get_logger()

HOPELESS_AFTER: Final = 2
"""A master that ends so often before it ever served will not start the next time either."""

START_LIMIT: Final = timedelta(seconds=30)
STOP_LIMIT: Final = timedelta(seconds=10)
_EAGER: Final = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100))

_OF_SERVERS: Final = ("FLEETEST_TLS", "FLEETEST_WORKER_LISTEN_ADDRESS", "FLEETEST_MONGODB_URL", "FLEETEST_BLOBS_")
"""Variables that are for clusters of several machines: this one leaves neither loopback nor its data directory."""

WARM_FOR: Final = timedelta(minutes=10)
"""How long workers keep unused environments, unless a variable says otherwise: a developer edits, then runs."""

HEALTHY_AFTER: Final = timedelta(seconds=30)
"""A child that lived so long died of something new: its back-off begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShape:
    """
    Args:
        workers: how many worker processes.
        slots: how many shards each runs at once.
        port: 0 takes the usual port, or any free one when it is taken.
        idle_exit: stop when nobody used the cluster for so long; zero means never.
    """

    workers: int
    slots: int
    port: int = 0
    idle_exit: timedelta = timedelta()


class Cluster:
    """Use as an asynchronous context manager; entered, it serves."""

    def __init__(self, directory: Path, shape: ClusterShape, environment: Mapping[str, str], clock: Clock) -> None:
        self._directory = directory
        self._shape = shape
        self._environment = environment
        self._clock = clock
        self._stack = AsyncExitStack()
        self._keepers: list[asyncio.Task[None]] = []
        self._done = asyncio.Event()
        self._failed = asyncio.Event()
        self.address = ""

    async def __aenter__(self) -> Cluster:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def wait(self) -> None:
        """Until the cluster has been idle for as long as its shape says."""
        await self._done.wait()

    async def _start(self) -> None:
        self._stack.enter_context(hold_lock(self._directory))
        ClusterFile.remove(self._directory)
        redis = EmbeddedRedis(self._directory / "redis")
        await redis.start()
        self._stack.push_async_callback(redis.stop)
        self._stack.push_async_callback(self._stop_children)
        port = self._stack.enter_context(reserved_port(self._shape.port))
        self.address = f"127.0.0.1:{port}"
        token, join_token = new_token(), new_token()
        environment = {
            "FLEETEST_WORKER_IDLE_TIMEOUT_SECONDS": str(WARM_FOR.total_seconds()),
            **{name: value for name, value in self._environment.items() if not name.startswith(_OF_SERVERS)},
            TETHER_VARIABLE: str(os.getpid()),
            "FLEETEST_DATA_DIR": str(self._directory),
            "FLEETEST_REDIS_URL": redis.url,
            "FLEETEST_LISTEN_ADDRESS": self.address,
            "FLEETEST_MASTER": self.address,
            "FLEETEST_JOIN_TOKEN": join_token,
            "FLEETEST_IDLE_EXIT_SECONDS": str(self._shape.idle_exit.total_seconds()),
        }
        self._keep("redis", _redis_again(redis))
        master = self._child("master", ["fleetest.master", "master"], environment | {"FLEETEST_TOKEN": token})
        self._keep("master", master, ends_cluster=True)
        await self._master_serves()
        for number in range(1, self._shape.workers + 1):
            name = f"local-{number}"
            own = {
                "FLEETEST_TOKEN": join_token,
                "FLEETEST_WORKER_ID": name,
                "FLEETEST_DATA_DIR": str(self._directory / "workers" / name),
                "FLEETEST_CACHE_DIR": str(self._directory / "workers" / "cache"),
            }
            command = ["fleetest.worker", "worker", "--slots", str(self._shape.slots)]
            self._keep(name, self._child(name, command, environment | own))
        ClusterFile(
            address=self.address,
            token=token,
            pid=os.getpid(),
            version=version(),
            started_at=self._clock.now().isoformat(),
        ).write(self._directory)
        self._stack.callback(ClusterFile.remove, self._directory)

    async def _master_serves(self) -> None:
        """
        Raises:
            DependencyUnavailable: the master does not start; the end of its log is in the message.
        """
        async with grpc.aio.insecure_channel(self.address, options=_EAGER) as channel:
            probe = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=START_LIMIT.total_seconds()
            )
            answered = asyncio.ensure_future(probe)
            failed = asyncio.create_task(self._failed.wait())
            await asyncio.wait([answered, failed], return_when=asyncio.FIRST_COMPLETED)
            failed.cancel()
            if not answered.done() or answered.exception() is not None:
                answered.cancel()
                log = self._directory / "logs" / "master.log"
                raise DependencyUnavailable(
                    f"the master does not start:\n{_end_of(log)}", hint=f"its whole log is {log}"
                )

    def _keep(self, name: str, run_once: Callable[[], Awaitable[int]], *, ends_cluster: bool = False) -> None:
        self._keepers.append(asyncio.create_task(self._keep_running(name, run_once, ends_cluster), name=name))

    async def _keep_running(
        self,
        name: str,
        run_once: Callable[[], Awaitable[int]],
        ends_cluster: bool,  # noqa: FBT001 - private
    ) -> None:
        """Run it again whenever it ends; only a master that ends well ends the cluster."""
        backoff, failures = Backoff(first=timedelta(milliseconds=200), longest=timedelta(seconds=10)), 0
        while True:
            began = self._clock.monotonic()
            code = await run_once()
            if ends_cluster and code == 0:
                self._done.set()
                return
            lived = timedelta(seconds=self._clock.monotonic() - began)
            failures = 1 if lived > HEALTHY_AFTER else failures + 1
            if ends_cluster and failures == HOPELESS_AFTER:
                self._failed.set()
            delay = backoff.delay(failures)
            _log.warning("child_ended", child=name, exit_code=code, again_in_seconds=delay.total_seconds())
            await asyncio.sleep(delay.total_seconds())

    def _child(self, name: str, module: Sequence[str], environment: Mapping[str, str]) -> Callable[[], Awaitable[int]]:
        log = self._directory / "logs" / f"{name}.log"
        log.parent.mkdir(mode=0o700, exist_ok=True)

        async def run_once() -> int:
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    *module,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to answer
                )
            try:
                return await process.wait()
            finally:
                await _end(process)

        return run_once

    async def _stop_children(self) -> None:
        """Workers before the master, so that they can say goodbye; Redis last, by the stack."""
        for task in reversed(self._keepers):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    """At once, but in order: what a worker runs is stopped and reported, and is repeated when the cluster is back."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)  # SIGTERM would let a worker finish what it runs
    try:
        async with asyncio.timeout(STOP_LIMIT.total_seconds()):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _redis_again(redis: EmbeddedRedis) -> Callable[[], Awaitable[int]]:
    """The first life is begun by the cluster itself; each next one here."""
    begun = iter([True])

    async def run_once() -> int:
        if not next(begun, False):
            await redis.start()
        return await redis.wait()

    return run_once


def _end_of(log: Path, lines: int = 5) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
