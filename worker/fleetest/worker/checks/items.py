"""pytest's view of checks: a file of them is a collector, each step an item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.suite.problems import SuiteInvalid
from fleetest.worker.checks.placeholders import Missing
from fleetest.worker.checks.scenario import Scenario, Surroundings, read_scenario
from fleetest.worker.checks.session import ScenarioSession
from fleetest.worker.checks.showing import Showing

__all__ = ["SURROUNDINGS", "CheckFile", "CheckStep"]

SURROUNDINGS = pytest.StashKey[Surroundings]()


class CheckFile(pytest.File):
    """A file of checks."""

    _scenario: Scenario
    _session: ScenarioSession | None = None

    def collect(self) -> Iterator[CheckStep]:
        """Its steps, in their order."""
        source = _relative(self.path, self.config.rootpath)
        try:
            self._scenario = read_scenario(self.path, source=source, surroundings=self.config.stash[SURROUNDINGS])
        except SuiteInvalid as error:
            raise self.CollectError(_all_problems(error)) from error
        for number, step in enumerate(self._scenario.steps):
            yield CheckStep.from_parent(self, name=step.name, number=number)

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    @property
    def scenario_session(self) -> ScenarioSession:
        """What the steps share while pytest keeps this file set up."""
        if self._session is None:
            self._session = ScenarioSession(self._scenario)
        return self._session

    def teardown(self) -> None:
        """Close the session; another one begins if steps of this file run again."""
        if self._session is not None:
            session, self._session = self._session, None
            session.close()


class CheckStep(pytest.Item):
    """
    A step.

    Attributes:
        told: its assertions, when it has run: name, whether it passed, message.
    """

    parent: CheckFile

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._number = number
        self.told: list[dict[str, Any]] = []

    def runtest(self) -> None:
        """Run the step; those before it first, unless they have run in this session."""
        self.told = []
        try:
            session = self.parent.scenario_session
        except (Missing, OSError) as error:
            raise _StepFailed(summary=str(error), details=str(error)) from error
        session.run_earlier(self._number)
        outcome = session.run(self._number)
        showing = Showing(session.secrets)
        self.told = [
            {"name": each.name, "passed": each.passed, "message": each.message} for each in showing.assertions(outcome)
        ]
        if outcome.failed:
            steps = self.parent.scenario.steps
            before = [(steps[number].name, session.outcomes[number]) for number in range(self._number)]
            details = showing.failure(outcome, [each for each in before if each[1].failed])
            raise _StepFailed(summary=showing.summary(outcome), details=details)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What failed, instead of a traceback through our own code."""
        error = excinfo.value
        if not isinstance(error, _StepFailed):
            return super().repr_failure(excinfo, style)
        path, line, _ = self.reportinfo()
        return _Failure(
            details=error.details, reprcrash=_Crash(path=str(path), lineno=(line or 0) + 1, message=error.summary)
        )

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands."""
        return self.path, self.parent.scenario.lines[self._number] - 1, self.name


class _StepFailed(Exception):
    def __init__(self, *, summary: str, details: str) -> None:
        super().__init__(summary)
        self.summary = summary
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crash:
    """Where and what, in the shape in which pytest and its plugins look for it."""

    path: str
    lineno: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What pytest shows."""

    details: str
    reprcrash: _Crash

    def __str__(self) -> str:
        return self.details

    def toterminal(self, tw: Any) -> None:
        """As pytest asks of what it shows."""
        for line in self.details.splitlines():
            tw.line(line, **_colour(line))


def _colour(line: str) -> dict[str, bool]:
    text = line.lstrip()
    return {"red": True} if text.startswith("-") else {"green": True} if text.startswith("+") else {}


def _all_problems(error: SuiteInvalid) -> str:
    """All of them; the last line, which summaries show, tells of the first."""
    first, *others = error.problems
    count = f"{len(error.problems)} problems, the first: " if others else ""
    place = f"line {first.line}: " if first.line else ""
    return f"{error.message}\n\n{count}{place}{first.message}"


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
