"""
Celery: a prefork pool of two, results in Redis.

Prefetching is as its guide to optimising recommends for many short tasks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from celery import Celery, group
from serving import redis_server, serve

_SOCKET = os.environ["PEER_REDIS_SOCKET"]

app = Celery("celery_peer", broker=f"redis+socket://{_SOCKET}", backend=f"redis+socket://{_SOCKET}")
app.conf.update(
    worker_prefetch_multiplier=64,
    task_acks_late=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


def _noop(number: int) -> int:
    return number


noop = app.task(_noop, name="noop")


def _many(count: int) -> Sequence[int]:
    result = group(noop.s(number) for number in range(count)).apply_async()
    results: Sequence[int] = result.get(timeout=300)
    result.forget()
    return results


def _one(number: int) -> int:
    result = noop.delay(number)
    answer: int = result.get(timeout=60)
    result.forget()
    return answer


def _main() -> None:
    with redis_server():
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "--app", "celery_peer", "worker"),
                *("--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
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
