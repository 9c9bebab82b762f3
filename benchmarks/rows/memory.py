"""Memory of an idle master, of an idle worker agent, and of a client that follows a run in which nothing happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import Cluster, serving
from benchmarks.core.figures import OURS, Aim, Better, Figure
from benchmarks.core.rounds import in_turns, side
from fleetest.client import AsyncClient
from fleetest.common.states import TaskState

__all__ = ["measure"]

_FLEETEST: Final = Path(sys.executable).with_name("fleetest")
_ROUNDS: Final = 3  # it varies by parts of a percent
_AIMS_MB: Final = {"master": 120, "worker agent": 75, "client": 60}


async def measure(bench: Bench) -> Sequence[Figure]:
    """Resident memory, once each has done something: what is only loaded then is loaded."""
    with bench.directory() as directory:
        async with serving(directory, workers=1) as cluster:
            nowhere = directory / "empty"
            nowhere.mkdir()

            async def ours() -> Mapping[str, float]:
                client = await _client(cluster, nowhere)
                return {
                    "master": _megabytes(cluster.master.pid),
                    "worker agent": _megabytes(cluster.workers[0].pid),
                    "client": client,
                }

            measured = await in_turns({OURS: ours}, rounds=min(bench.rounds, _ROUNDS), say=bench.say)
    return [
        Figure(
            name=f"memory of an idle {what}",
            unit="MB",
            better=Better.LOWER,
            ours=side(OURS, what, measured),
            aims=(Aim(limit=limit),),
            notes=("Resident set size of the process.",),
        )
        for what, limit in _AIMS_MB.items()
    ]


async def _client(cluster: Cluster, directory: Path) -> float:
    """Of `fleetest run`, while its only task sleeps."""
    project = f"memory-{uuid4().hex}"
    process = await asyncio.create_subprocess_exec(
        _FLEETEST,
        *("run", "--quiet", "--project", project, "--", "sleep", "30"),
        cwd=directory,
        env=cluster.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with cluster.client() as client, asyncio.timeout(60):
        run_id = await _running(client, project)
        megabytes = _megabytes(process.pid)
        await client.cancel(run_id)
        await process.wait()
    return megabytes


async def _running(client: AsyncClient, project: str) -> str:
    """The id of the project's run, once its task runs."""
    while True:
        for run in await client.list_runs(project=project, limit=1):
            if any(task.state is TaskState.RUNNING for task in run.tasks):
                return run.run_id
        await asyncio.sleep(0.1)  # another process, which rings no bell


def _megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6
