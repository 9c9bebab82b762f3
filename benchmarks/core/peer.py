"""A peer as a process of its own, in its own environment, asked to have tasks done; see `peers/serving.py`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from benchmarks.core.bench import ROOT, Bench
from benchmarks.core.rounds import NotHere
from fleetest.master.queue.redis_binary import find_redis_server

__all__ = ["Peer", "peer"]

_START_SECONDS: Final = 240
"""Ray takes half a minute on a busy machine."""

_STOP_SECONDS: Final = 30
_LINE_BYTES: Final = 1 << 20


class Peer:
    """One that runs."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    async def many(self, count: int) -> float:
        """Have so many tasks done; answers tasks/s."""
        (seconds,) = await self._ask({"many": count})
        return count / seconds

    async def one(self, count: int) -> Sequence[float]:
        """Have so many tasks done one after the other; answers the seconds of each."""
        return await self._ask({"one": count})

    async def started(self) -> None:
        """Returns when it does tasks."""
        await self._hear()

    async def _ask(self, request: dict[str, int]) -> Sequence[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self._hear()

    async def _hear(self) -> Sequence[float]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise NotHere(f"{self._name} ended with exit code {await self._process.wait()}")
        answer: Sequence[float] = json.loads(line)["seconds"]
        return answer


@asynccontextmanager
async def peer(bench: Bench, name: str) -> AsyncIterator[Peer]:
    """
    Start a peer, and end it.

    Raises:
        NotHere: it does not start.
    """
    program = ROOT / "benchmarks" / "peers" / f"{name}_peer.py"
    with bench.directory() as directory, (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            bench.python,
            program,
            env={
                **os.environ,
                "PATH": f"{bench.peers / 'bin'}:{os.environ['PATH']}",
                "PEER_REDIS_SERVER": str(await find_redis_server()),
                "PEER_REDIS_SOCKET": str(directory / "redis.sock"),
                "RAY_AUTH_MODE": "disabled",
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_raylet_start_wait_time_s": str(_START_SECONDS),
            },
            cwd=directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=_LINE_BYTES,
        )
        try:
            started = Peer(name, process)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await started.started()
            except (TimeoutError, NotHere) as error:
                bench.say((directory / "log").read_text(errors="replace")[-2000:])
                raise NotHere(f"{name} does not start: {str(error) or 'it takes too long'}") from error
            yield started
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
