"""
Lets what running tests report of coverage gather, so that a run's log has at most one event of it each five seconds.

What waits is in this process alone. When that dies, the view of the running run lacks something for a while; what the
run comes to in the end is worked out by a task of its own, from the data of the sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from fleetest.common.coverage import FileCoverage, merged
from fleetest.common.suite.combining import combines
from fleetest.master.runs.coverage import MEASURED_FILES_AT_ONCE
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.state import RunStatus

__all__ = ["WINDOW", "CoverageWindow", "Gathered"]

WINDOW = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Gathered:
    """
    What waits of one run. Values are not changed once they are here.

    Args:
        due_at: when it is written, unless all that it is of has ended before.
        files: by the task that combines them, and by path.
    """

    due_at: datetime
    files: Mapping[str, Mapping[str, FileCoverage]] = field(default_factory=dict)

    def plus(self, task_id: str, files: Mapping[str, FileCoverage]) -> Gathered:
        known = self.files.get(task_id, {})
        together = {path: merged(known.get(path, FileCoverage()), file) for path, file in files.items()}
        return Gathered(self.due_at, {**self.files, task_id: {**known, **together}})

    def write(self, decider: Decider) -> bool:
        """Put into the commit in the making what is due; answers whether that is all."""
        over = decider.now >= self.due_at
        due = [task_id for task_id in self.files if over or _all_measured(decider.status, task_id)]
        for task_id in due:
            for part in _parts(self.files[task_id]):
                decider.coverage_measured(task_id, part)
        return len(due) == len(self.files)


class CoverageWindow:
    """What waits of all runs."""

    def __init__(self, window: timedelta = WINDOW) -> None:
        self._window = window
        self._waiting: dict[str, Gathered] = {}

    def add(self, run_id: str, task_id: str, files: Mapping[str, FileCoverage], now: datetime) -> None:
        """
        Args:
            task_id: of the task that combines them.
        """
        waiting = self._waiting.get(run_id) or Gathered(now + self._window)
        self._waiting[run_id] = waiting.plus(task_id, files)

    def waiting(self, run_id: str) -> Gathered | None:
        return self._waiting.get(run_id)

    def written(self, run_id: str, gathered: Gathered) -> None:
        """This is in the log. What came meanwhile still waits."""
        if self._waiting.get(run_id) is gathered:
            del self._waiting[run_id]


def _all_measured(status: RunStatus, task_id: str) -> bool:
    """Whether everything has ended that the task combines."""
    return all(
        task.state.ended
        for task in status.tasks.values()
        if task.task.coverage is not None and task.task.coverage.combined_by == task_id and not combines(task.task)
    )


def _parts(files: Mapping[str, FileCoverage]) -> Iterator[dict[str, FileCoverage]]:
    items = iter(files.items())
    while part := dict(islice(items, MEASURED_FILES_AT_ONCE)):
        yield part
