"""
The states of tasks and runs, the outcomes of cases, and the words for them.

Values are the words used in the suite file, in JSON output, in the log and on the terminal. The numbers on the
wire are in `protos/fleetest/v1/types.proto`.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Outcome", "RunState", "ShardKind", "TaskState", "Verdict", "WorkerState"]


class TaskState(StrEnum):
    """`blocked → queued → leased → running`, then one of six ends."""

    BLOCKED = "blocked"
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def ended(self) -> bool:
        return self not in _LIVE_TASK_STATES


_LIVE_TASK_STATES = frozenset({TaskState.BLOCKED, TaskState.QUEUED, TaskState.LEASED, TaskState.RUNNING})


class RunState(StrEnum):
    """What a run as a whole has come to."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self is not RunState.RUNNING


class Outcome(StrEnum):
    """What became of a case, in pytest's words, and `timed_out`."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"
    TIMED_OUT = "timed_out"

    @property
    def bad(self) -> bool:
        """Whether this outcome makes its task fail."""
        return self in _BAD_OUTCOMES


_BAD_OUTCOMES = frozenset({Outcome.FAILED, Outcome.ERROR, Outcome.TIMED_OUT})


class ShardKind(StrEnum):
    """What a shard is for: collecting a task's cases, or running them."""

    PLAN = "plan"
    EXECUTE = "execute"


class Verdict(StrEnum):
    """How an attempt ended. `failed` is the test's own doing, `errored` and `lost` the infrastructure's."""

    COMPLETED = "completed"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


class WorkerState(StrEnum):
    """What a worker is doing."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    OFFLINE = "offline"
