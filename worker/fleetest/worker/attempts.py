"""An attempt that this worker holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from fleetest.common.states import Verdict
from fleetest.worker.assignments import Assignment, AttemptRef, Ended
from fleetest.worker.reporting import AttemptReporter

__all__ = ["Attempt", "StopOrder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """
    Why and how an attempt is ended before its time.

    Args:
        verdict: what it ends as, unless it ends by itself meanwhile.
        grace: between asking its processes to end and ending them.
    """

    reason: str
    verdict: Verdict = Verdict.CANCELLED
    grace: timedelta = timedelta(seconds=5)
    finish_running_case: bool = False


class Attempt:
    """
    An assignment from its arrival to its end.

    Attributes:
        stop_order: the one that stands.
        start_deadline: when its tests must have started, by the event loop's clock; `None` before that time runs.
    """

    def __init__(self, assignment: Assignment, reporter: AttemptReporter) -> None:
        self.assignment = assignment
        self.ref: AttemptRef = assignment.ref
        self.reporter = reporter
        self.stop_order: StopOrder | None = None
        self.start_deadline: float | None = None
        self._stop_ordered: asyncio.Event | None = None

    @property
    def stop_ordered(self) -> asyncio.Event:
        """Set with every new stop order. Most attempts have ended before anybody asks for it."""
        if self._stop_ordered is None:
            self._stop_ordered = asyncio.Event()
            if self.stop_order is not None:
                self._stop_ordered.set()
        return self._stop_ordered

    def order_stop(self, order: StopOrder) -> None:
        """The first order stands, but one that lets the running case finish gives way to one that does not."""
        standing = self.stop_order
        if standing is None or (standing.finish_running_case and not order.finish_running_case):
            self.stop_order = order
            if self._stop_ordered is not None:
                self._stop_ordered.set()

    def give_up(self, case_ids: Sequence[str]) -> Sequence[str]:
        """
        Before a session has the attempt: run fewer cases, and answer which it will not. The first one stays, so that
        something is left to do.
        """
        assignment = self.assignment
        given = tuple(case_id for case_id in assignment.case_ids[1:] if case_id in case_ids)
        kept = tuple(case_id for case_id in assignment.case_ids if case_id not in given)
        self.assignment = msgspec.structs.replace(assignment, case_ids=kept)
        return given

    def start_clock(self) -> float | None:
        """Let the start timeout run, if it does not yet; answers the deadline, `None` without a limit."""
        limit = self.assignment.spec.start_timeout
        if self.start_deadline is None and limit is not None:
            self.start_deadline = asyncio.get_running_loop().time() + limit.total_seconds()
        return self.start_deadline

    def start_took_too_long(self) -> None:
        """Order the stop that ends it as timed out."""
        limit = self.assignment.spec.start_timeout
        self.order_stop(StopOrder(reason=f"start: its tests did not start within {limit}", verdict=Verdict.TIMED_OUT))

    def stopped(self) -> Ended:
        """The end of an attempt that was stopped before a session had it."""
        assert self.stop_order is not None, "nobody stopped it"
        return Ended(verdict=self.stop_order.verdict, reason=self.stop_order.reason)

    def judge(self, ended: Ended) -> Ended:
        """How it ended, given what its session says: a cancelled attempt ends as its stop order says."""
        if self.stop_order is None or ended.verdict is not Verdict.CANCELLED:
            return ended
        return msgspec.structs.replace(ended, verdict=self.stop_order.verdict, reason=self.stop_order.reason)
