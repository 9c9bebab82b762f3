"""What a commit brought that is worth a word to whoever watches."""

from __future__ import annotations

from dataclasses import dataclass

from fleetest.common.results import CacheOrigin, CaseResult
from fleetest.common.states import Outcome, RunState, TaskState, Verdict

__all__ = [
    "AttemptFailed",
    "CancelAsked",
    "CaseFailed",
    "CaseRecovered",
    "News",
    "RunOver",
    "RunStarted",
    "TaskChanged",
    "WronglyCached",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The run was accepted."""

    run_id: str
    suite_name: str
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanged:
    """A task has another state."""

    task_id: str
    before: TaskState
    state: TaskState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFailed:
    """A case ended badly, in its `number`th try. Whether it gets another, nobody knows yet."""

    task_id: str
    result: CaseResult
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRecovered:
    """A case that had ended badly ended well: it is flaky."""

    task_id: str
    case_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WronglyCached:
    """The cache had another result of a case."""

    task_id: str
    case_id: str
    file: str
    outcome: Outcome
    cached_from: CacheOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """A worker was lost, the infrastructure failed, or a time limit passed."""

    task_id: str
    shard_id: str
    verdict: Verdict
    reason: str
    will_retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    """Somebody wants a task, or with an empty `task_id` the run, stopped."""

    task_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOver:
    """Nothing more comes."""

    state: RunState
    reason: str


News = RunStarted | TaskChanged | CaseFailed | CaseRecovered | WronglyCached | AttemptFailed | CancelAsked | RunOver
