"""A pytest suite, run by plain pytest, by pytest-xdist in its two ways, and by a cluster of ours that is up."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.core.cluster import Cluster
from benchmarks.core.commands import run
from benchmarks.core.figures import OURS
from benchmarks.core.rounds import Measurement

__all__ = ["LOAD", "PYTEST", "READING_SECONDS", "WORKSTEAL", "Suite", "peers"]

PYTEST: Final = "pytest"
LOAD: Final = "xdist load"
WORKSTEAL: Final = "xdist worksteal"

READING_SECONDS: Final = 6
"""Between two runs somebody reads the one; the cluster puts things away, and gets ready for the next."""

_OPTIONS: Final[Mapping[str, Sequence[str]]] = {
    PYTEST: (),
    LOAD: ("-n", "2"),
    WORKSTEAL: ("-n", "2", "--dist", "worksteal"),
}

_COUNT: Final = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)")
_FLEETEST: Final = Path(sys.executable).with_name("fleetest")
_ENDED: Final = (0, 1)
"""Exit codes of a suite that ran whole, whether or not all of it passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """
    Args:
        source: where it is.
        python: of the environment that it runs in.
        outcomes: how many cases end in which way; when that is not known, whoever runs it first says so, and all others
            must come to the same.
    """

    source: Path
    python: Path
    arguments: Sequence[str] = ()
    outcomes: dict[str, int] = field(default_factory=dict)

    def theirs(self, name: str) -> float:
        """The seconds of one run of plain pytest, or of pytest-xdist, which leaves `.pyc` files for the next."""
        done = run(
            self.python,
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", *_OPTIONS[name], *self.arguments),
            cwd=self.source,
            environment=self._environment(),
            exit_codes=_ENDED,
        )
        self._check(name, _counted(done.output))
        return done.seconds

    def forget_compiled(self) -> None:
        """Remove what peers have compiled: their next run is a first one."""
        for directory in list(self.source.rglob("__pycache__")):
            shutil.rmtree(directory)

    async def ours(self, cluster: Cluster, project: str) -> float:
        """The seconds of one run, from Enter to the prompt. History is kept by project."""
        done = run(
            _FLEETEST,
            *("run", "--quiet", "--project", project, "--", "pytest", *self.arguments),
            cwd=self.source,
            environment={**cluster.environment, **self._active()},
            exit_codes=_ENDED,
        )
        async with cluster.client() as client:
            (latest,) = await client.list_runs(project=project, limit=1)
            outcomes = Counter([str(case.result.outcome) async for case in client.cases(latest.run_id)])
        self._check(OURS, outcomes)
        return done.seconds

    def _environment(self) -> Mapping[str, str]:
        """Of a peer."""
        environment = {**os.environ, **self._active()}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def _active(self) -> Mapping[str, str]:
        return {"VIRTUAL_ENV": str(self.python.parents[1])}

    def _check(self, name: str, outcomes: Mapping[str, int]) -> None:
        if not self.outcomes:
            self.outcomes.update(outcomes)
        if dict(outcomes) != self.outcomes:
            raise RuntimeError(f"{name} says {dict(outcomes)}, not {self.outcomes}")


def peers(suite: Suite) -> dict[str, Measurement]:
    """Measurements of all of them."""

    async def measure(name: str) -> Mapping[str, float]:
        return {"seconds": suite.theirs(name)}

    return {name: partial(measure, name) for name in (PYTEST, LOAD, WORKSTEAL)}


def _counted(output: str) -> Mapping[str, int]:
    last = output.strip().rpartition("\n")[2]
    return {word.removesuffix("s"): int(count) for count, word in _COUNT.findall(last)}
