"""Whether a worker should be given work, judged by how its last attempts went."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.states import Verdict

__all__ = ["Readiness"]

_FAILURES_IN_A_ROW: Final = 3
_PROBE: Final = Backoff(first=timedelta(seconds=30), longest=timedelta(minutes=10), fraction=lambda: 1.0)


class Readiness:
    """
    Drops after several infrastructure failures in a row, so that a sick worker does not eat the queue.

    After a pause it asks for one shard as a probe. A probe that fails doubles the pause; an attempt that went well,
    be its tests green or red, makes the worker as good as new.
    """

    def __init__(self, clock: Clock, *, failures_in_a_row: int = _FAILURES_IN_A_ROW, probe: Backoff = _PROBE) -> None:
        self._clock = clock
        self._allowed = failures_in_a_row
        self._probe = probe
        self._failures = 0
        self._last_reason = ""
        self._resume_at = 0.0

    def attempt_ended(self, verdict: Verdict, reason: str) -> None:
        """Take note of an attempt's end. Cancelled ones say nothing about the worker."""
        if verdict is Verdict.CANCELLED:
            return
        if verdict is not Verdict.ERRORED:
            self._failures = 0
            return
        self._failures += 1
        self._last_reason = reason
        if self.suspect:
            pause = self._probe.delay(self._failures - self._allowed + 1)
            self._resume_at = self._clock.monotonic() + pause.total_seconds()

    @property
    def suspect(self) -> bool:
        """Whether the worker may have at most one shard at a time, as a probe."""
        return self._failures >= self._allowed

    @property
    def pause(self) -> timedelta:
        """How long until the next probe; zero when the worker may have work now."""
        if not self.suspect:
            return timedelta()
        return timedelta(seconds=max(0.0, self._resume_at - self._clock.monotonic()))

    @property
    def not_ready_reason(self) -> str:
        """Why the worker takes no work; empty when it does."""
        if not self.suspect or not self.pause:
            return ""
        first_line = self._last_reason.partition("\n")[0]
        return f"{self._failures} infrastructure failures in a row, the last: {first_line}"
