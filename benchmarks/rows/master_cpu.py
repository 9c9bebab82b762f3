"""What a task, and what a case's result, costs the master in processor time at full speed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import psutil

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import NOOP_WORKER, serving
from benchmarks.core.figures import OURS, Aim, Better, Figure
from benchmarks.core.rounds import in_turns, side
from benchmarks.noop.client import run_noops

__all__ = ["measure"]

_SLOTS: Final = 128
_LOOK_SECONDS: Final = 0.5
_IDLE: Final = 0.05
"""An idle master uses less of a processor than this."""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Many tasks of one case each, and few tasks of many cases; the master's threads are all counted."""
    tasks, cases = bench.size(10_000, 500), bench.size(50_000, 2_000)
    with bench.directory() as directory:
        async with serving(directory, slots=_SLOTS, program=NOOP_WORKER) as cluster, cluster.client() as client:
            master = psutil.Process(cluster.master.pid)
            few = 20
            measured = await in_turns(
                {
                    "task": partial(_cpu, master, tasks, lambda: run_noops(client, tasks)),
                    "case": partial(_cpu, master, cases, lambda: run_noops(client, few, cases=cases // few)),
                },
                rounds=bench.rounds,
                say=bench.say,
            )
    return [
        Figure(
            name=f"master's processor time per {thing}",
            unit="µs",
            better=Better.LOWER,
            ours=side(OURS, "µs", {OURS: measured[name]}),
            aims=(Aim(limit=limit),),
            notes=(note,),
        )
        for name, thing, limit, note in (
            ("task", "task", 150, f"{tasks:,} tasks of one case, 2 workers; the client that follows the run included."),
            ("case", "case result", 40, f"{cases:,} cases in {few} tasks, the same way."),
        )
    ]


async def _cpu(master: psutil.Process, things: int, have_done: Callable[[], Awaitable[float]]) -> Mapping[str, float]:
    """From rest to rest: rows of cases are still being written when the client has all results."""
    before = _seconds(master)
    await have_done()
    await _rest(master)
    return {"µs": (_seconds(master) - before) / things * 1e6}


async def _rest(master: psutil.Process) -> None:
    used = _seconds(master)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)  # another process, which rings no bell
        before, used = used, _seconds(master)
        if used - before < _IDLE * _LOOK_SECONDS:
            return


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
