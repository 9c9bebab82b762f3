"""What a task, and what a case's result, costs the master in processor time at full speed."""

from __future__ import annotations

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
_ROUNDS: Final = 3  # processor time varies less than time


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
                rounds=min(bench.rounds, _ROUNDS),
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
    before = master.cpu_times()
    await have_done()
    after = master.cpu_times()
    return {"µs": (after.user + after.system - before.user - before.system) / things * 1e6}
