"""Suites of real projects, as their source distributions carry them: our first run, and one that knows durations."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks.core.bench import ROOT, Bench
from benchmarks.core.cluster import serving
from benchmarks.core.figures import OURS, Aim, Better, Figure, Side
from benchmarks.core.rounds import Measured, in_turns, side
from benchmarks.core.suites import LOAD, READING_SECONDS, Suite

__all__ = ["measure"]

_SUITES: Final = ROOT / ".cache" / "bench-suites"
_MISSING: Final = "benchmarks/make_suites.sh has not been run"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Real:
    """
    Args:
        seconds: for its rounds. All of `make bench` should take 20 minutes, also on a slow machine.
    """

    name: str
    arguments: tuple[str, ...] = ()
    seconds: int

    @property
    def directory(self) -> Path:
        return _SUITES / self.name


_RUNS: Final = ("first", "second")
_LONG: Final = tuple(
    f"networkx/{part}"
    for part in (
        *("algorithms/approximation", "algorithms/bipartite", "algorithms/centrality", "algorithms/connectivity"),
        *("algorithms/flow", "classes", "generators"),
    )
)
"""A part of a suite of many minutes that takes plain pytest a little more than one."""

_ALL: Final = (
    _Real(name="jinja2", seconds=90),
    _Real(name="click", seconds=120),
    _Real(name="networkx", arguments=_LONG, seconds=270),
)


async def measure(bench: Bench) -> Sequence[Figure]:
    """The peer begins; every case of ours must end as there."""
    figures: list[Figure] = []
    for real in _ALL[: bench.size(len(_ALL), 1)]:
        if not (real.directory / "made").exists():
            figures += _figures(real, {}, missing=_MISSING)
            continue
        with bench.directory() as directory:
            figures += _figures(real, await _measured(bench, real, directory))
    return figures


async def _measured(bench: Bench, real: _Real, directory: Path) -> Measured:
    # A copy, so that no configuration of the directories above holds.
    source = shutil.copytree(real.directory / "src", directory / real.name, symlinks=True)
    suite = Suite(source=source, python=real.directory / "venv" / "bin" / "python", arguments=real.arguments)
    bench.say(f"  {real.name}")
    async with serving(directory / "cluster") as cluster:

        async def ours() -> Mapping[str, float]:
            project = uuid4().hex  # that nobody has seen before
            first = await suite.ours(cluster, project)
            await asyncio.sleep(READING_SECONDS)
            return {"first": first, "second": await suite.ours(cluster, project)}

        async def theirs() -> Mapping[str, float]:
            suite.forget_compiled()
            return {name: suite.theirs(LOAD) for name in _RUNS}

        return await in_turns(
            {LOAD: theirs, OURS: ours}, rounds=bench.rounds, seconds=real.seconds, say=bench.say, warm_up=False
        )


def _figures(real: _Real, measured: Measured, *, missing: str = "") -> Sequence[Figure]:
    def measured_side(name: str, which: str) -> Side:
        return Side(name=name, missing=missing) if missing else side(name, which, measured)

    return [
        Figure(
            name=f"{real.name}'s suite, {which} run",
            unit="s",
            better=Better.LOWER,
            ours=measured_side(OURS, which),
            peers=(measured_side(LOAD, which),),
            aims=(Aim(limit=limit, against=LOAD),),
            notes=(
                f"As many rounds as end within {real.seconds} s.",
                "In a first run nothing has been compiled, in a second all has, on both sides.",
                f"Our second run begins {READING_SECONDS} s after the first.",
            ),
        )
        for which, limit in zip(_RUNS, (1.0, 0.9), strict=True)
    ]
