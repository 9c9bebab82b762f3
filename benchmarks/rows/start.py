"""A large tree in which nothing has changed: from Enter to the first case, and how long it takes to see that."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.core.bench import Bench
from benchmarks.core.cluster import Cluster, serving
from benchmarks.core.commands import run
from benchmarks.core.figures import OURS, Aim, Better, Figure
from benchmarks.core.rounds import in_turns, side
from fleetest.client.scan import scan_tree
from fleetest.common.tuning import hasten

__all__ = ["measure"]

_GIT_STATUS: Final = "git status"
_PER_DIRECTORY: Final = 100
_EDITING_SECONDS: Final = 6  # between two runs somebody reads the one, and changes something for the next
_SETTLING_SECONDS: Final = 2  # the cluster puts things away after a run; neither side shall compete with that
_FLEETEST: Final = Path(sys.executable).with_name("fleetest")
_TEST: Final = """\
import os
import time


def test_first():
    with open({mark!r}, "w") as file:
        file.write(repr(time.time()))
"""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Both in the same tree, which is a Git repository. Our own search is part of a run, so it is timed as a call."""
    files = bench.size(10_000, 1_000)
    with bench.directory() as directory:
        mark = directory / "mark"
        tree = _made(directory / "tree", files, mark)
        cache = directory / "digests"
        async with serving(directory / "cluster") as cluster:

            async def first_case() -> Mapping[str, float]:
                await asyncio.sleep(_EDITING_SECONDS)
                return {"first case": _first_case(cluster, tree, mark, bench.python)}

            async def search() -> Mapping[str, float]:
                await asyncio.sleep(_SETTLING_SECONDS)
                hasten()  # as the command does
                start = time.perf_counter()
                scan = scan_tree(tree, cache_directory=cache)
                seconds = time.perf_counter() - start
                if scan.count != files + 1:
                    raise RuntimeError(f"{scan.count} files were found, not {files + 1}")
                return {"search": seconds}

            async def status() -> Mapping[str, float]:
                await asyncio.sleep(_SETTLING_SECONDS)
                done = run("git", "status", "--porcelain", cwd=tree)
                if done.output:
                    raise RuntimeError(f"the tree has changed: {done.output}")
                return {"search": done.seconds}

            measured = await in_turns(
                {"run": first_case, OURS: search, _GIT_STATUS: status}, rounds=bench.rounds, say=bench.say
            )
    return [
        Figure(
            name=f"Enter to the first case started, unchanged tree of {files:,} files",
            unit="s",
            better=Better.LOWER,
            ours=side(OURS, "first case", {OURS: measured["run"]}),
            aims=(Aim(limit=1),),
            notes=("`fleetest run -- pytest tests` on a cluster that is up and has the files.",),
        ),
        Figure(
            name=f"finding that nothing has changed among {files:,} files",
            unit="s",
            better=Better.LOWER,
            ours=side(OURS, "search", measured),
            peers=(side(_GIT_STATUS, "search", measured),),
            aims=(Aim(limit=2, against=_GIT_STATUS),),
            notes=("Ours is a part of `fleetest run` and timed as such; `git status` is a whole command.",),
        ),
    ]


def _made(tree: Path, files: int, mark: Path) -> Path:
    """Files that are old enough for both sides to trust what they noted of them."""
    for number in range(files):
        path = tree / f"package_{number // _PER_DIRECTORY:03}" / f"module_{number:05}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NUMBER = {number}\n" * 20)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_first.py").write_text(_TEST.format(mark=str(mark)))
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "All"]):
        subprocess.run(["git", *arguments], cwd=tree, check=True)
    time.sleep(3)  # a file younger than a tick of the clock may change unnoticed, so neither side would trust it
    return tree


def _first_case(cluster: Cluster, tree: Path, mark: Path, python: Path) -> float:
    mark.unlink(missing_ok=True)
    environment = {**cluster.environment, "VIRTUAL_ENV": str(python.parents[1])}
    began = time.time()
    run(
        _FLEETEST,
        *("run", "--quiet", "--project", "start", "--", "pytest", "-p", "no:cacheprovider", "tests"),
        cwd=tree,
        environment={**environment, "PATH": os.environ["PATH"]},
    )
    return float(mark.read_text()) - began
