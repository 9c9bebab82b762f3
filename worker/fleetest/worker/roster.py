"""The attempts that a worker holds, from their arrival to their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import CapacityExceeded
from fleetest.common.results import ResourceSample
from fleetest.common.states import Verdict
from fleetest.common.tasks import Resources
from fleetest.worker.assignments import Assignment, AttemptRef, Ended
from fleetest.worker.attempts import Attempt, StopOrder
from fleetest.worker.common_start import CommonStart
from fleetest.worker.messages import Declined, Expect, Stop
from fleetest.worker.outbox import Outbox
from fleetest.worker.readiness import Readiness
from fleetest.worker.reporting import AttemptReporter
from fleetest.worker.slot import Slot, SlotObserver
from fleetest.worker.slots import Credit, Slots

__all__ = ["Roster"]

_SHUT_DOWN: Final = StopOrder(reason="worker shut down", verdict=Verdict.ERRORED, grace=timedelta(seconds=2))
_MOVES: Final = StopOrder(
    reason="the worker takes no more work, and whoever needs it has to start elsewhere",
    verdict=Verdict.ERRORED,
    grace=timedelta(seconds=2),
)
_NOT_ITS_OWN: Final = frozenset({_SHUT_DOWN, _MOVES})
_BRIEF_SECONDS: Final = 0.05
_LINES_A_SECOND: Final = 20
_NOTHING: Final = Credit(shards=0, free=Resources())

_log = structlog.stdlib.get_logger()


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    attempt: Attempt
    slot: Slot
    since: float


class Roster:
    """
    Takes assignments in, gives each to a slot, and reports its end.

    Args:
        make_slots: the slots, which tell the roster what happens in them.
        on_change: called when the credit, or the reason for giving none, may be another.
        on_release: called when what is kept warm should be given back.

    Attributes:
        draining: why no more work is taken; empty while it is.
    """

    def __init__(
        self,
        *,
        make_slots: Callable[[SlotObserver], Slots],
        outbox: Outbox,
        readiness: Readiness,
        clock: Clock,
        on_change: Callable[[], None],
        on_release: Callable[[], None] = lambda: None,
    ) -> None:
        self.draining = ""
        self._outbox = outbox
        self._readiness = readiness
        self._clock = clock
        self._on_change = on_change
        self._on_release = on_release
        self._entries: dict[AttemptRef, _Entry] = {}
        self._line_second = self._lines = 0
        self._every_line = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
        self._vacant = asyncio.Event()
        self._vacant.set()
        self._slots = make_slots(self)

    @property
    def refs(self) -> frozenset[AttemptRef]:
        """Attempts that are in a slot, or whose reports are not all acknowledged."""
        return self._outbox.attempts | self._entries.keys()

    @property
    def not_ready_reason(self) -> str:
        """Why a worker that is not draining takes no work; empty when it does."""
        return self._outbox.problem or self._readiness.not_ready_reason

    @property
    def hungry(self) -> bool:
        """Whether a session holds its last case back until the master has said whether more comes."""
        return any(slot.hungry for slot in self._slots.used)

    @property
    def credit(self) -> Credit:
        """What the worker would take now."""
        if self.draining or self.not_ready_reason:
            return _NOTHING
        credit = self._slots.credit
        if self._readiness.suspect:
            busy = any(entry.attempt.assignment.spec.service is None for entry in self._entries.values())
            return msgspec.structs.replace(credit, shards=0 if busy else min(1, credit.shards))
        return credit

    def drain(self, reason: str) -> None:
        """Take no more work. Idempotent."""
        self.draining = self.draining or reason
        self._let_services_go()

    def take(self, assignments: Sequence[Assignment]) -> Sequence[Declined]:
        """Take what can be taken; answers the rest. An assignment that is here already stays as it is."""
        declined = []
        refusal = self.draining or self.not_ready_reason
        for assignment in assignments:
            if assignment.ref in self._entries:
                continue
            if refusal:
                declined.append(Declined(ref=assignment.ref, reason=refusal))
                continue
            try:
                self._take(assignment)
            except CapacityExceeded as error:
                declined.append(Declined(ref=assignment.ref, reason=error.message))
        return declined

    def refuse(self, unreadable: Mapping[AttemptRef, str]) -> None:
        """End attempts that this version cannot make, so that another worker tries."""
        for ref, why in unreadable.items():
            reporter = AttemptReporter(ref, secrets={}, outbox=self._outbox)
            reporter.ended(Ended(verdict=Verdict.ERRORED, reason=f"the worker does not understand it: {why}"))

    def stop(self, stop: Stop) -> None:
        """End these attempts as cancelled; those that are not here have ended already."""
        order = StopOrder(reason=stop.reason, grace=stop.grace, finish_running_case=stop.finish_running_case)
        for ref in stop.refs:
            if (entry := self._entries.get(ref)) is not None:
                entry.slot.stop(entry.attempt, order)

    def hand_back(self, ref: AttemptRef, case_ids: Sequence[str]) -> None:
        """Give up cases of an attempt that have not been started; one that is not here has ended already."""
        if (entry := self._entries.get(ref)) is not None:
            entry.slot.hand_back(entry.attempt, case_ids)

    def begin(self, ref: AttemptRef, after: timedelta) -> None:
        """Its gang begins after so long; one that is not here has ended already."""
        if (entry := self._entries.get(ref)) is not None:
            entry.attempt.reporter.begin(after)

    def expect(self, expect: Expect) -> None:
        """Let slots that have nothing to do get ready for work that may come."""
        if not self.draining and not self.not_ready_reason and not self._readiness.suspect:
            self._slots.expect(expect)

    def stop_all(self) -> None:
        """The worker goes: its attempts end as errored, so that they are made elsewhere."""
        for entry in list(self._entries.values()):
            entry.slot.stop(entry.attempt, _SHUT_DOWN)

    async def vacated(self) -> None:
        """Returns when no attempt is left in a slot."""
        await self._vacant.wait()

    def flush(self) -> None:
        """Tell hungry sessions that nothing more is known to come."""
        for slot in self._slots.used:
            if slot.hungry:
                slot.flush()

    def release_idle(self) -> None:
        """Give back what idle slots, and executors, keep warm."""
        for slot in self._slots:
            if slot.idle:
                slot.release()
        self._on_release()

    def samples(self) -> Mapping[AttemptRef, ResourceSample | None]:
        """Of the attempts that run now: what they used since the last call, where that is known."""
        return {running: slot.sample() for slot in self._slots if (running := slot.running) is not None}

    async def close(self) -> None:
        """Close the slots; attempts that are left end as errored."""
        for slot in self._slots:
            await slot.close()
        for entry in list(self._entries.values()):
            self.attempt_ended(entry.attempt, Ended(verdict=_SHUT_DOWN.verdict, reason=_SHUT_DOWN.reason))

    def credit_changed(self) -> None:
        self._on_change()

    def attempt_ended(self, attempt: Attempt, ended: Ended) -> None:
        entry = self._entries.pop(attempt.ref)
        self._slots.work_ended()
        ended = attempt.reporter.ended(ended, more_soon=entry.slot.ahead > 0 and not entry.slot.idle)
        if self.draining:
            self._let_services_go()
        if attempt.assignment.spec.service is not None:
            self._slots.service_ended(attempt.ref.run_id)
        if attempt.stop_order is None or attempt.stop_order not in _NOT_ITS_OWN:
            self._readiness.attempt_ended(ended.verdict, ended.reason)
        # A worker may do thousands in a second that end well. Their lines, even dropped ones, would cost more.
        seconds = self._clock.monotonic() - entry.since
        if ended.verdict is not Verdict.COMPLETED or seconds >= _BRIEF_SECONDS or self._every_line:
            self._log_end(attempt, ended, seconds)
        if not self._entries:
            self._vacant.set()
        self._on_change()

    def _log_end(self, attempt: Attempt, ended: Ended, seconds: float) -> None:
        show = ended.verdict is not Verdict.COMPLETED
        if not show and seconds >= _BRIEF_SECONDS:
            second = int(self._clock.monotonic())
            if second != self._line_second:
                self._line_second, self._lines = second, 0
            self._lines += 1
            show = self._lines <= _LINES_A_SECOND
        say = _log.info if show else _log.debug
        say(
            "attempt_ended",
            run_id=attempt.ref.run_id,
            task_id=attempt.assignment.spec.task_id,
            shard_id=attempt.ref.shard_id,
            attempt=attempt.assignment.number,
            verdict=ended.verdict.value,
            reason=ended.reason.partition("\n")[0],
            seconds=round(seconds, 3),
            notes=attempt.reporter.notes,
        )

    def _let_services_go(self) -> None:
        """Of a worker that drains nobody will use its services who does not yet, and they would wait for ever."""
        entries = list(self._entries.values())
        if all(entry.attempt.assignment.spec.service is not None for entry in entries):
            for entry in entries:
                entry.slot.stop(entry.attempt, _MOVES)

    def _take(self, assignment: Assignment) -> None:
        reporter = AttemptReporter(
            assignment.ref,
            secrets=assignment.secrets,
            outbox=self._outbox,
            common_start=CommonStart(assignment.spec.start_timeout) if assignment.spec.gang else None,
        )
        attempt = Attempt(assignment, reporter)
        slot = self._slots.place_for(attempt)
        self._entries[attempt.ref] = _Entry(attempt=attempt, slot=slot, since=self._clock.monotonic())
        self._vacant.clear()
        slot.accept(attempt)
