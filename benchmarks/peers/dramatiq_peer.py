"""Dramatiq: two processes of eight threads each, results in Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis
from serving import redis_server, serve

_SOCKET = os.environ["PEER_REDIS_SOCKET"]

_broker = RedisBroker(url=f"unix://{_SOCKET}")
# Waits as long as it has to for its first worker, which has to start.
_broker.add_middleware(Results(backend=RedisBackend(client=Redis(unix_socket_path=_SOCKET, socket_timeout=None))))
dramatiq.set_broker(_broker)


def _noop(number: int) -> int:
    return number


noop = dramatiq.actor(_noop, actor_name="noop", store_results=True, broker=_broker)


def _many(count: int) -> Sequence[int]:
    group = dramatiq.group([noop.message(number) for number in range(count)]).run()
    return list(group.get_results(block=True, timeout=300_000))


def _one(number: int) -> int:
    answer: int = noop.send(number).get_result(block=True, timeout=60_000)
    return answer


def _main() -> None:
    with redis_server():
        worker = subprocess.Popen(
            [sys.executable, "-m", "dramatiq", "dramatiq_peer", "--processes", "2", "--threads", "8"],
            cwd=Path(__file__).parent,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        try:
            serve(_many, _one)
        finally:
            worker.terminate()
            worker.wait()


if __name__ == "__main__":
    _main()
