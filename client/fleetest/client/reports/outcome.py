"""What a report tells of: a run, its cases, and what became of them before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleetest.client.values import CaseRecord, Run
from fleetest.common.results import CaseResult

__all__ = ["RunOutcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """
    An ended run.

    Args:
        cases: with their last results, in the order of planning.
        earlier: by task and case, the bad results that a later try replaced, as far as they are known.
    """

    run: Run
    cases: Sequence[CaseRecord]
    earlier: Mapping[tuple[str, str], Sequence[CaseResult]] = field(default_factory=dict)

    def earlier_of(self, record: CaseRecord) -> Sequence[CaseResult]:
        return self.earlier.get((record.task_id, record.result.case_id), ())

    def cases_of(self, task_id: str) -> list[CaseRecord]:
        return [record for record in self.cases if record.task_id == task_id]
