"""2,000 trivial pytest cases in 100 files: what running a test costs besides the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import serving
from benchmarks.core.figures import BEST, OURS, Aim, Better, Figure
from benchmarks.core.rounds import in_turns, side
from benchmarks.core.suites import LOAD, PYTEST, WORKSTEAL, Suite, peers

__all__ = ["measure"]

_PER_FILE = 20


async def measure(bench: Bench) -> Sequence[Figure]:
    """Seconds from Enter to the prompt, in turns; our cluster is up, as a team's would be."""
    files = bench.size(100, 10)
    with bench.directory() as directory:
        suite = Suite(
            source=_made(directory / "suite", files), python=bench.python, outcomes={"passed": files * _PER_FILE}
        )
        async with serving(directory / "cluster") as cluster:

            async def ours() -> Mapping[str, float]:
                return {"seconds": await suite.ours(cluster, "trivial")}

            measured = await in_turns({OURS: ours, **peers(suite)}, rounds=bench.rounds, say=bench.say)
    return [
        Figure(
            name=f"{files * _PER_FILE:,} trivial pytest cases in {files} files, cluster up",
            unit="s",
            better=Better.LOWER,
            ours=side(OURS, "seconds", measured),
            peers=tuple(side(name, "seconds", measured) for name in (PYTEST, LOAD, WORKSTEAL)),
            aims=(Aim(limit=1, against=BEST), Aim(limit=0.7, against=LOAD)),
            notes=("Ours: two workers of one slot; the time includes looking for changed files and uploading them.",),
        )
    ]


def _made(directory: Path, files: int) -> Path:
    directory.mkdir()
    cases = "\n\n".join(f"def test_{number}():\n    assert True" for number in range(_PER_FILE))
    for number in range(files):
        (directory / f"test_{number:03}.py").write_text(f"{cases}\n")
    return directory
