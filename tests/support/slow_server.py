"""
An HTTP server whose answers take times of a known distribution, and which writes down what it did.

Run as a program it prints its port, serves until its standard input ends, and then prints its log as JSON: of each
request when it came, by the monotonic clock, and how long its answer took, both in seconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SlowServer", "slow_server"]

SHORTEST, LONGEST, PARTS = 0.5, 2.5, 240


@dataclass
class SlowServer:
    """
    Attributes:
        log: of each request its path, when it came, and how long its answer took; once the server has ended.
    """

    port: int
    log: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def slow_server() -> Iterator[SlowServer]:
    """One in a process of its own, which nothing that tests do slows down."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            server = SlowServer(int(process.stdout.readline()))
            yield server
            process.stdin.close()
            server.log = [tuple(each) for each in json.loads(process.stdout.read())]
        finally:
            process.kill()


def _times() -> Iterator[float]:
    """Every part of the range equally often, in no order."""
    chance = random.Random(7)
    while True:
        part = [SHORTEST + (LONGEST - SHORTEST) * (number + 0.5) / PARTS for number in range(PARTS)]
        chance.shuffle(part)
        yield from part


async def _serve() -> None:
    log: list[tuple[str, float, float]] = []
    times = _times()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                came = time.monotonic()
                path = head.split(b" ", 2)[1].decode()
                status = b"500 Broken" if path == "/broken" else b"200 OK"
                await asyncio.sleep(0.02 if path == "/broken" else next(times))
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
                log.append((path, came, time.monotonic() - came))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await asyncio.to_thread(sys.stdin.read)
        sys.stdout.write(json.dumps(log))
    sys.exit(0)


if __name__ == "__main__":
    asyncio.run(_serve())
