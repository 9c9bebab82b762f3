"""What a commit brought that is worth a word to whoever watches."""

from __future__ import annotations

import msgspec

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


class RunStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The run was accepted."""

    run_id: str
    suite_name: str
    tasks: int


class TaskChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A task has another state."""

    task_id: str
    before: TaskState
    state: TaskState
    reason: str = ""


class CaseFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A case ended badly, in its `number`th try. Whether it gets another, nobody knows yet."""

    task_id: str
    result: CaseResult
    number: int


class CaseRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """A case that had ended badly ended well: it is flaky."""

    task_id: str
    case_id: str
    number: int


class WronglyCached(msgspec.Struct, frozen=True, kw_only=True):
    """The cache had another result of a case."""

    task_id: str
    case_id: str
    file: str
    outcome: Outcome
    cached_from: CacheOrigin


class AttemptFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A worker was lost, the infrastructure failed, or a time limit passed."""

    task_id: str
    shard_id: str
    verdict: Verdict
    reason: str
    will_retry: bool


class CancelAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants a task, or with an empty `task_id` the run, stopped."""

    task_id: str
    by: str
    reason: str


class RunOver(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing more comes."""

    state: RunState
    reason: str


News = RunStarted | TaskChanged | CaseFailed | CaseRecovered | WronglyCached | AttemptFailed | CancelAsked | RunOver
