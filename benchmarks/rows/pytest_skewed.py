"""A skewed suite: 200 cases of 10 ms, and four of 3 s in the last file. Two slots could do it in 7.0 s."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import serving
from benchmarks.core.figures import OURS, Aim, Better, Figure
from benchmarks.core.rounds import in_turns, side
from benchmarks.core.suites import LOAD, PYTEST, READING_SECONDS, WORKSTEAL, Suite, peers

__all__ = ["measure"]

_FILES: Final = 10
_SHORT: Final = 20
"""In each file."""

_LONG: Final = 4
_ROUNDS: Final = 3
_CASE: Final = (
    "import time\nimport pytest\n\n@pytest.mark.parametrize('n', range({}))\ndef test_it(n):\n    time.sleep({})\n"
)


async def measure(bench: Bench) -> Sequence[Figure]:
    """Our second run, when durations are known; peers know nothing, the first time and ever after."""
    long_seconds = 3 if not bench.quick else 0.5
    with bench.directory() as directory:
        suite = Suite(
            source=_made(directory / "suite", long_seconds),
            python=bench.python,
            outcomes={"passed": _FILES * _SHORT + _LONG},
        )
        async with serving(directory / "cluster") as cluster:
            bench.say(f"  first run: {OURS}: {await suite.ours(cluster, 'skewed'):.2f} s")
            await asyncio.sleep(READING_SECONDS)

            async def ours() -> Mapping[str, float]:
                return {"seconds": await suite.ours(cluster, "skewed")}

            # It sleeps most of the time, and varies little.
            measured = await in_turns(
                {OURS: ours, **peers(suite)}, rounds=min(bench.rounds, _ROUNDS), say=bench.say, warm_up=False
            )
    return [
        Figure(
            name=f"200 × 10 ms and 4 × {long_seconds:g} s in the last file, not the first run",
            unit="s",
            better=Better.LOWER,
            ours=side(OURS, "seconds", measured),
            peers=tuple(side(name, "seconds", measured) for name in (PYTEST, LOAD, WORKSTEAL)),
            aims=(Aim(limit=7.7),),
            notes=(
                f"The ideal on two slots is {(200 * 0.01 + 4 * long_seconds) / 2:.1f} s.",
                f"Our second run begins {READING_SECONDS} s after the first.",
            ),
        )
    ]


def _made(directory: Path, long_seconds: float) -> Path:
    directory.mkdir()
    for number in range(_FILES):
        (directory / f"test_{number}_short.py").write_text(_CASE.format(_SHORT, 0.01))
    (directory / "test_z_long.py").write_text(_CASE.format(_LONG, long_seconds))
    return directory
