"""One attempt inside a pytest session: what it still has to do, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fleetest.common.digest import digest_of
from fleetest.common.results import CaseResult, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, ShardKind, Verdict
from fleetest.worker.artifacts import ArtifactCollector
from fleetest.worker.assignments import Assignment, Ended, Reporter
from fleetest.worker.ports import Environment
from fleetest.worker.runners.pytest_resident import Collection, Key, resident_key

__all__ = ["Attempt", "RunningCase"]

_NAMED = 3
_QUICK = timedelta(milliseconds=50)
_LEAST_OF_A_CASE = timedelta(microseconds=100)
_SHORTEST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=2), timedelta(milliseconds=25)
_MOMENT = timedelta(seconds=5)  # with the time that it takes to find and end what a killed parent leaves


@dataclass(slots=True, kw_only=True)
class Attempt:
    """
    Args:
        collector: of the files that it leaves behind.
        todo: the cases without a result, in order.
        missing: those that this session did not collect.
        fed: whether the present process has been told of them.
        began: whether one of its cases has.
        busy: how long its cases took, as far as they have ended, by pytest's own account.
        returned: all of it was given back before it began. It is no attempt any more: nobody hears what it says.
        active_since: the loop's time when it became the first in line; its total limit counts from there.
        decided: how it will have ended, once the case that runs has.
    """

    assignment: Assignment
    reporter: Reporter
    future: asyncio.Future[Ended]
    collector: ArtifactCollector
    todo: dict[str, None] = field(init=False)
    missing: tuple[str, ...] = ()
    fed: bool = False
    announced: bool = False
    began: bool = False
    busy: timedelta = timedelta()
    returned: bool = False
    active_since: float | None = None
    used_before: ResourceUsage = ResourceUsage()
    decided: tuple[Verdict, str] | None = None

    def __post_init__(self) -> None:
        self.todo = dict.fromkeys(self.assignment.case_ids)

    @property
    def key(self) -> Key:
        return resident_key(self.assignment.ref.run_id, self.assignment.spec)

    @property
    def is_plan(self) -> bool:
        return self.assignment.kind is ShardKind.PLAN

    @property
    def is_measured(self) -> bool:
        """Whether what its tests execute is measured."""
        return self.assignment.spec.coverage is not None and not self.is_plan

    def announce(self, notes: Sequence[str]) -> None:
        """Say, once, that tests start."""
        if not self.announced:
            self.announced = True
            self.reporter.running(notes)
            if not self.is_plan:
                self.collector.watch()

    def answer(self, collection: Collection, environment: Environment) -> tuple[Verdict, str]:
        """Of a plan: tell what was collected; answers how the attempt ends."""
        self.announce(environment.notes)
        planned = collection.planned()
        if collection.problem:
            self.reporter.output(
                f"\nnothing is cached, since what results depend on is not known:\n{collection.problem}\n".encode()
            )
        self.reporter.planned(
            planned,
            deselected=collection.deselected,
            collection_errors=collection.errors,
            fingerprints=_with_image(collection.fingerprints, environment.image),
        )
        if planned or collection.errors:
            return Verdict.COMPLETED, ""
        deselected = f", {collection.deselected} deselected" if collection.deselected else ""
        return Verdict.FAILED, f"no tests ran: pytest collected nothing{deselected}"

    def match(self, collection: Collection) -> None:
        """Sort out what is not to be run: what was not collected, and what skipped itself when it was collected."""
        for case_id in list(self.todo):
            if case_id in collection.skipped:
                del self.todo[case_id]
                self.reporter.result(collection.skipped[case_id])
            elif case_id not in collection.cases:
                del self.todo[case_id]
                self.missing += (case_id,)

    def pause(self, last: timedelta) -> timedelta:
        """
        For how long nobody needs to hear of its cases: a part of what those that are left will take, if there are many
        and the last one was quick.
        """
        pause = min(len(self.todo) * _LEAST_OF_A_CASE, _LONGEST_PAUSE)
        return pause if last < _QUICK and pause > _SHORTEST_PAUSE else timedelta()

    def ending(self, collection: Collection) -> tuple[Verdict, str]:
        """How it ends when none of its cases is left."""
        if self.decided is not None:
            return self.decided
        return (Verdict.FAILED, self._missing_reason(collection)) if self.missing else (Verdict.COMPLETED, "")

    def _missing_reason(self, collection: Collection) -> str:
        """Why cases are missing, in one line."""
        named = ", ".join(self.missing[:_NAMED]) + (", ..." if len(self.missing) > _NAMED else "")
        reason = f"{len(self.missing)} planned cases are not in this session's collection: {named}"
        if collection.errors:
            reason += f"; {collection.errors[0].case_id} could not be collected: {collection.errors[0].message}"
        return reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCase:
    """
    Args:
        attempt: `None` for a case that nobody waits for any more.
    """

    case: PlannedCase
    attempt: Attempt | None
    started_at: datetime

    def may_be_innocent(self) -> bool:
        """
        Whether the case before may be the one that killed the process through its parent, after its own result.

        Such a case is run again. It is the first of its next process, so that it is blamed if it happens again.
        """
        return datetime.now(UTC) - self.started_at < _MOMENT

    def ended(self, outcome: Outcome, *, message: str, details: str) -> CaseResult:
        """The result of a case that could not say it itself."""
        return CaseResult(
            case_id=self.case.case_id,
            outcome=outcome,
            duration=max(timedelta(), datetime.now(UTC) - self.started_at),
            started_at=self.started_at,
            message=message,
            details=details,
            file=self.case.file,
            line=self.case.line,
        )


def _with_image(fingerprints: Mapping[str, str], image: str) -> Mapping[str, str]:
    """Results depend on the image, too, of which the session inside knows nothing."""
    return {file: digest_of(f"{digest} {image}".encode()) for file, digest in fingerprints.items()}
