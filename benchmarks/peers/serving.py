"""
The side of a peer: reads one request a line, and answers one line.

A request is `{"many": N}`, to have N tasks done, or `{"one": N}`, to have N done one after the other; the answer is
how many seconds it took, or each of them took. Results are checked. Runs in the peers' environment: nothing of ours
is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["redis_server", "serve"]


def serve(many: Callable[[int], Sequence[int]], one: Callable[[int], int]) -> None:
    """
    Answer until nobody asks any more.

    Args:
        many: has the tasks 0 to N-1 done, each of which answers its number; answers their answers, in order.
        one: has one task done, and answers its answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the peer prints must not be taken for an answer
    assert one(0) == 0  # the workers are there
    _answer(answers, [])
    for line in sys.stdin:
        request = json.loads(line)
        _answer(answers, [_timed_many(many, request["many"])] if "many" in request else _timed(one, request["one"]))


def _answer(answers: TextIO, seconds: Sequence[float]) -> None:
    answers.write(json.dumps({"seconds": seconds}) + "\n")
    answers.flush()


def _timed_many(many: Callable[[int], Sequence[int]], count: int) -> float:
    start = time.perf_counter()
    results = many(count)
    seconds = time.perf_counter() - start
    assert list(results) == list(range(count)), "results are wrong"
    return seconds


def _timed(one: Callable[[int], int], count: int) -> list[float]:
    seconds = []
    for number in range(count):
        start = time.perf_counter()
        result = one(number)
        seconds.append(time.perf_counter() - start)
        assert result == number, "the result is wrong"
    return seconds


@contextmanager
def redis_server() -> Iterator[None]:
    """A Redis at the socket `$PEER_REDIS_SOCKET`, in memory alone, which is kind to whom it serves."""
    server = subprocess.Popen(
        [
            os.environ["PEER_REDIS_SERVER"],
            *("--port", "0", "--unixsocket", os.environ["PEER_REDIS_SOCKET"]),
            *("--save", "", "--appendonly", "no"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    try:
        while not Path(os.environ["PEER_REDIS_SOCKET"]).exists():
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait()
