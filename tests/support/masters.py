"""Several masters as an operator runs them: processes on real sockets, with a Redis, a store and blobs in common."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from fleetest.client import Client
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer

__all__ = ["CLIENT_TOKEN", "JOIN_TOKEN", "Masters"]

FLEETEST = str(Path(sys.executable).with_name("fleetest"))
CLIENT_TOKEN, JOIN_TOKEN = "client-token", "join-token"
_START_SECONDS = 60


class Masters:
    """
    Processes by name: masters such as `a` and `b`, and workers. Use as a context manager: leaving it ends them all.

    Args:
        directory: everything that they keep; a log for each.
        environment: what all of them see.
        store: the settings of the store that the masters share; a SQLite file when there are none.

    Attributes:
        redis: theirs; the caller starts it.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], store: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.redis = RedisServer(directory / "redis")
        self._environment = {**environment, "NO_COLOR": "1"}
        self._store = store or {}
        self._ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Masters:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self.redis.stop()

    def address(self, *names: str) -> str:
        """Where these masters listen, also before they are started; parted by commas."""
        return ",".join(f"127.0.0.1:{self._ports.setdefault(name, free_port())}" for name in names)

    def start(self, name: str, *, before: Sequence[str] = (), **settings: str) -> None:
        """Start a master, once more if it has ended; answers at once."""
        own = {
            "FLEETEST_LISTEN_ADDRESS": self.address(name),
            "FLEETEST_REDIS_URL": self.redis.url,
            "FLEETEST_DATA_DIR": str(self.directory / ("shared" if not self._store else name)),
            "FLEETEST_BLOBS_DIR": str(self.directory / "blobs"),
            "FLEETEST_TOKEN": CLIENT_TOKEN,
            "FLEETEST_JOIN_TOKEN": JOIN_TOKEN,
            "FLEETEST_LEASE_TTL_SECONDS": "3",
        }
        self._start(name, [*before, FLEETEST, "master"], {**own, **self._store, **settings})

    def start_worker(
        self, name: str, masters: Sequence[str], *options: str, before: Sequence[str] = (), **settings: str
    ) -> None:
        """Start a worker of one slot that knows these masters, and uses the first while it can."""
        own = {
            "FLEETEST_MASTER": self.address(*masters),
            "FLEETEST_TOKEN": JOIN_TOKEN,
            "FLEETEST_WORKER_ID": name,
            "FLEETEST_WORKER_SLOTS": "1",
            "FLEETEST_DATA_DIR": str(self.directory / name),
        }
        self._start(name, [*before, FLEETEST, "worker", *options], {**own, **settings})

    def until_serving(self, *names: str) -> None:
        """Return when these masters answer."""
        for name in names:
            limit = time.monotonic() + _START_SECONDS
            while not self._listens(name):
                assert self._processes[name].poll() is None, self.log(name)
                assert time.monotonic() < limit, f"master {name} does not answer:\n{self.log(name)}"
                time.sleep(0.02)

    def _listens(self, name: str) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports[name])) == 0

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self._processes[name].pid)

    def kill(self, name: str) -> None:
        """As `kill -9` does; return when it is gone."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        """In order; return when it is gone."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(timeout=30)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def client(self, *names: str) -> Client:
        """One that knows these masters, and begins with the first. The caller closes it."""
        return Client(self.address(*names), token=CLIENT_TOKEN)

    def client_environment(self, *names: str) -> dict[str, str]:
        """For the `fleetest` command."""
        return {**self._environment, "FLEETEST_MASTER": self.address(*names), "FLEETEST_TOKEN": CLIENT_TOKEN}

    def _start(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env={**self._environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=os.fspath(self.directory),
            )
