"""
Shows where the time of the master and of a worker goes while they are busy.

::

    python -m benchmarks.profile [tasks | cases | round-trips] [--count N]

records both with py-spy, prints the functions that take most of the time, and leaves the stacks, which
https://www.speedscope.app and every other viewer of collapsed stacks can show, in `.cache/benchmarks/profile`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psutil

from benchmarks.__main__ import RESULTS
from benchmarks.core.bench import Bench
from benchmarks.core.cluster import NOOP_WORKER, serving
from benchmarks.noop.client import run_noops
from fleetest.client import AsyncClient

__all__ = ["by_function"]

_COUNTS: Final = {"tasks": 5_000, "cases": 100_000, "round-trips": 300}
_SLOTS: Final = 128
_SAMPLES_A_SECOND: Final = 200
_SHOWN: Final = 45
_CASES_PER_TASK: Final = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("work", nargs="?", choices=_COUNTS, default="tasks")
    parser.add_argument("--count", type=int, help="how many of them")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("py-spy reads other processes: it may have to be root for that", file=sys.stderr)
    (RESULTS / "profile").mkdir(parents=True, exist_ok=True)
    asyncio.run(_profile(options.work, options.count or _COUNTS[options.work], RESULTS / "profile"))


async def _profile(work: str, count: int, directory: Path) -> None:
    bench = Bench()
    with bench.directory() as home:
        async with serving(home, slots=_SLOTS, program=NOOP_WORKER) as cluster, cluster.client() as client:
            await _work(client, work, count // 10)  # what is only done once is done
            watched = {"master": cluster.master.pid, "worker": cluster.workers[0].pid}
            processes = {**watched, "redis": cluster.redis_pid, "client": os.getpid()}
            with ExitStack() as stack:
                for name, pid in watched.items():
                    stack.enter_context(_recorded(bench, pid, directory / f"{work}-{name}.stacks"))
                before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
                seconds = await _work(client, work, count)
                used = {name: _cpu_seconds(pid) - before[name] for name, pid in processes.items()}
    print(f"{count:,} {work} in {seconds:.2f} s; processor seconds: {_words(used)}")
    for name in watched:
        stacks = directory / f"{work}-{name}.stacks"
        print("\n".join(["", f"{name} ({stacks})", *_report(stacks)]))


async def _work(client: AsyncClient, work: str, count: int) -> float:
    """The seconds that it took."""
    match work:
        case "cases":
            return await run_noops(client, max(count // _CASES_PER_TASK, 1), cases=_CASES_PER_TASK)
        case "round-trips":
            return sum([await run_noops(client, 1) for _ in range(count)])
        case _:
            return await run_noops(client, count)


@contextmanager
def _recorded(bench: Bench, pid: int, stacks: Path) -> Iterator[None]:
    recorder = subprocess.Popen(
        [
            *(bench.peers / "bin" / "py-spy", "record", "--pid", str(pid), "--output", stacks, "--format", "raw"),
            *("--rate", str(_SAMPLES_A_SECOND), "--function", "--gil", "--nonblocking"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        recorder.send_signal(signal.SIGINT)  # then it writes what it has
        recorder.wait(60)


def by_function(stacks: str) -> tuple[int, Counter[str], Counter[str]]:
    """
    Out of collapsed stacks (`outer;inner count`): all samples, and those of each function, by itself and with what it
    called.
    """
    total, alone, whole = 0, Counter[str](), Counter[str]()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = frames.split(";")
        total += int(count)
        alone[names[-1]] += int(count)
        for name in set(names):
            whole[name] += int(count)
    return total, alone, whole


def _report(stacks: Path) -> Iterator[str]:
    total, alone, whole = by_function(stacks.read_text())
    for title, counter in (("with what it calls", whole), ("by itself", alone)):
        yield f"  {title}:"
        for name, count in counter.most_common(_SHOWN):
            yield f"  {count / total:7.1%}  {name}"


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _words(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


if __name__ == "__main__":
    main()
