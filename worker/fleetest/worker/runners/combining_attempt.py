"""One try at combining what sessions have measured of coverage."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from fleetest.common.coverage import FileCoverage, totals_of
from fleetest.common.regular_files import open_beneath
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome
from fleetest.common.suite.combining import MEASURED, REPORT
from fleetest.common.tasks import Coverage
from fleetest.worker.assignments import Assignment, Ended, Reporter
from fleetest.worker.left_files import LeftFiles
from fleetest.worker.ports import Blobs, Environment, Process
from fleetest.worker.runners.command_attempt import CommandAttempt

__all__ = ["CombiningAttempt"]

_SCRIPT: Final = Path(__file__).parent.parent / "resident" / "combining.py"
_FIGURES: Final = "coverage-figures.json"
_MOST_BYTES: Final = 64 << 20
_OPEN_DIRECTORY: Final = 0o777
_BELOW: Final = 3
_NOTHING: Final = 4
"""Exit codes of the script."""

_NOTHING_SAID: Final = "no session has handed in what it measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What it came to, in percent."""

    total: float
    fail_under: float
    files: Mapping[str, FileCoverage] = field(default_factory=dict)

    def __str__(self) -> str:
        totals = totals_of(self.files)
        branches = f" and {totals.branches:,} branches" if totals.branches else ""
        asked = f"; {self.fail_under:g} % are asked for" if self.fail_under else ""
        return f"{self.total:.2f} % of {totals.lines:,} lines{branches}{asked}"


class CombiningAttempt(CommandAttempt):
    """
    A command whose one case is that enough was executed. It runs with the interpreter whose coverage.py measured.
    """

    def __init__(
        self, assignment: Assignment, reporter: Reporter, environment: Environment, blobs: Blobs, left: LeftFiles
    ) -> None:
        super().__init__(assignment, reporter, environment, blobs, left)
        self._home = environment.host_channel_directory
        self._coverage = assignment.spec.coverage or Coverage()
        self._figures: _Figures | None = None

    def _argv(self) -> Sequence[str]:
        environment, spec = self._environment, self.assignment.spec
        self._home.chmod(_OPEN_DIRECTORY)  # the process may be another user's; what lies above keeps strangers out
        script, config = self._home / _SCRIPT.name, self._home / "combining.json"
        script.write_bytes(_SCRIPT.read_bytes())
        content = {
            "measured": str(environment.source / MEASURED),
            "workspace": str(environment.source),
            "report": str(environment.source / spec.working_directory / REPORT),
            "figures": str(environment.channel_directory / _FIGURES),
            "config": self._coverage.config,
            "fail_under": self._coverage.fail_under,
        }
        config.write_text(json.dumps(content), encoding="utf-8")
        for path in (script, config):
            path.chmod(0o644)
        return environment.python, *(str(environment.channel_directory / path.name) for path in (script, config))

    async def _conclude(self, process: Process, timed_out: str, started_at: datetime) -> Ended:
        self._figures = _read(self._home)
        if self._figures is not None:
            self._reporter.coverage_combined(self._figures.files)
        return await super()._conclude(process, timed_out, started_at)

    def _failure(self, process: Process, exit_code: int) -> str:
        if exit_code == _BELOW and self._figures is not None:
            return str(self._figures)
        if exit_code == _NOTHING:
            return _NOTHING_SAID
        return super()._failure(process, exit_code)

    def _result(self, outcome: Outcome, message: str, started_at: datetime) -> CaseResult:
        result = super()._result(outcome, message, started_at)
        if outcome is Outcome.PASSED and self._figures is not None:
            return replace(result, message=str(self._figures))
        if message == _NOTHING_SAID:  # why, is told by the tasks that it combines
            return replace(result, outcome=Outcome.SKIPPED, details="")
        return result


def _read(directory: Path) -> _Figures | None:
    """What the script has written, unless something else is in its place."""
    try:
        with os.fdopen(open_beneath(directory, _FIGURES), "rb") as file:
            told = json.loads(file.read(_MOST_BYTES))
        files = {
            str(path): FileCoverage(
                lines=base64.b64decode(lines),
                covered=base64.b64decode(covered),
                branches=int(branches),
                covered_branches=int(taken),
            )
            for path, (lines, covered, branches, taken) in told["files"].items()
        }
        return _Figures(total=float(told["total"]), fail_under=float(told["fail_under"]), files=files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
