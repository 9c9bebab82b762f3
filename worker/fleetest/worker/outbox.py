"""Gathers what attempts report into batches, and keeps these in the spool until the master has them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Final, cast

import structlog
from msgspec.structs import replace

from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_MESSAGE_BYTES
from fleetest.common.states import Verdict
from fleetest.worker.assignments import AttemptRef, Ended
from fleetest.worker.convert import reports_from_bytes, reports_to_bytes
from fleetest.worker.reports import Done, HandedBack, Output, Report, ReportBody, Results, Running
from fleetest.worker.spool import Spool

__all__ = ["Outbox"]

_BATCH_RESULTS: Final = 200
_BATCH_BYTES: Final = 256 << 10
_BATCH_DELAY: Final = timedelta(milliseconds=25)
_BATCH_INTERVAL: Final = timedelta(milliseconds=150)
_QUIET: Final = timedelta(milliseconds=250)
"""Between two looks whether the spool can be emptied."""

_MESSAGE_BYTES: Final = MAX_MESSAGE_BYTES - 1024
"""The rest is for the envelope."""

_log = structlog.stdlib.get_logger()


class Outbox:
    """
    Reports wait a moment for others: until there are 200 results or 256 KiB, 25 ms have passed, or an attempt
    has ended (or handed cases back, for which others wait) and whatever else happened at that moment has been reported;
    one that has ended well and is soon followed by another waits for that.
    While results come all the time they wait longer, for at most 150 ms after those before, unless one is bad: each
    batch costs the master as much as a large one. The reports of one attempt keep their order, but for its output,
    which the master keeps by itself; all that a short one said besides that went well is one report (`Done`).

    When neither disk nor memory has room, reports are dropped and their attempt ends as errored, whatever it says
    itself, so that it runs again: a missing result must not look like a finished attempt.

    Attributes:
        holds_ends: whether attempts have ended of which that waits to be told.
        due: whether what waits need not wait any longer. Who tells it flushes; when nobody does, that happens soon.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: list[Report] = []
        self._waiting_results = 0
        self._waiting_bytes = 0
        self.holds_ends = False
        self.due = False
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = self._late_at = 0.0  # when more results are worth a batch again, and when it is made
        self._hurried = False  # whether somebody waits for that
        self._tidying: asyncio.TimerHandle | None = None
        self._on_news: Callable[[], None] = lambda: None
        self._emptied = asyncio.Event()
        self._lossy: dict[AttemptRef, str] = {}
        self._kept: deque[tuple[int, Sequence[AttemptRef]]] = deque(
            (sequence, _attempts_in(payload)) for sequence, payload in spool.after(0)
        )

    @property
    def attempts(self) -> frozenset[AttemptRef]:
        """Attempts with a report that the master has not acknowledged."""
        return frozenset(report.ref for report in self._waiting).union(*(refs for _, refs in self._kept))

    @property
    def empty(self) -> bool:
        """Whether the master has everything."""
        return not self._waiting and not self._spool

    @property
    def problem(self) -> str:
        """What keeps the worker from taking more work; empty when nothing does."""
        return "spool: disk full" if self._spool.full else ""

    def add(self, report: Report, size_bytes: int, *, more_soon: bool = False) -> None:
        """
        Keep a report; returns at once.

        Args:
            size_bytes: about how many it takes; only to know when a batch is large enough.
            more_soon: of an end: whether others follow within a moment.
        """
        body = report.body
        self._waiting.append(report)
        self._waiting_bytes += size_bytes
        self._waiting_results += isinstance(body, Results)
        if self._waiting_bytes >= _BATCH_BYTES or self._waiting_results >= _BATCH_RESULTS:
            self.flush()
            return
        if not self._hurried:
            self._set_time(urgent=_is_urgent(body))
        if self.due:
            return  # all goes at once, as a whole
        if isinstance(body, (Ended, HandedBack)) and not (more_soon and _is_good(body)):
            self.due = True
            self._on_news()
        elif more_soon:
            self.holds_ends = True

    def flush(self) -> None:
        """Put what waits into the spool."""
        reports = _coalesced(self._waiting)
        self._waiting, self._waiting_results, self._waiting_bytes = [], 0, 0
        self._hurried = self.holds_ends = self.due = False
        if reports:
            self._next_at = time.monotonic() + _BATCH_INTERVAL.total_seconds()
            self._keep(reports)
            self._on_news()

    def after(self, sequence: int) -> Iterator[tuple[int, bytes]]:
        """
        The batches behind `sequence` that are not acknowledged, by their numbers; those that come meanwhile, too.

        Raises:
            DependencyUnavailable: the disk does not give back what it took.
        """
        return self._spool.after(sequence)

    def on_news(self, callback: Callable[[], None]) -> None:
        """`callback` is called when there is another batch, or one is due."""
        self._on_news = callback

    def acknowledge(self, sequence: int) -> None:
        """The master has every batch up to this one."""
        self._spool.acknowledge(sequence)
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(_QUIET.total_seconds(), self._tidy)
        while self._kept and self._kept[0][0] <= sequence:
            self._kept.popleft()
        if self.empty:
            self._emptied.set()

    async def emptied(self) -> None:
        """Returns when the master has everything."""
        while not self.empty:
            self._emptied.clear()
            await self._emptied.wait()

    def _tidy(self) -> None:
        self._tidying = None
        self._spool.tidy()

    def _set_time(self, *, urgent: bool) -> None:
        """When a batch has to be made at the latest: the first report says, or the first for which somebody waits."""
        is_first = len(self._waiting) == 1
        if urgent or is_first:
            soon = time.monotonic() + _BATCH_DELAY.total_seconds()
            when = soon if urgent else max(soon, self._next_at)
            self._late_at = when if is_first else min(when, self._late_at)
            self._hurried = urgent
            if self._timer is None or self._late_at < self._timer.when():
                self._look_at(self._late_at)

    def _look_at(self, when: float) -> None:
        """One timer at a time, which outlasts what it was set for: most batches are made before theirs runs out."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._flush_if_late)

    def _flush_if_late(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if time.monotonic() >= self._late_at:
            self.flush()
        else:
            self._look_at(self._late_at)

    def _keep(self, reports: Sequence[Report]) -> None:
        if self._lossy or self._spool.overflowing:  # of an attempt its end must arrive, whatever else is lost
            reports = _parted(reports)
        if self._spool.overflowing:
            reports = [report for report in reports if not self._lose(report, "neither disk nor memory has room")]
            if not reports:
                return
        if self._lossy:
            reports = [self._honest(report) for report in reports]
        payload = reports_to_bytes(reports)
        if len(payload) <= _MESSAGE_BYTES:
            self._kept.append((self._spool.append(payload), [report.ref for report in reports]))
        elif len(reports) > 1:
            for report in reports:
                self._keep([report])
        elif isinstance(reports[0].body, Done):
            self._keep(_parted(reports))
        else:
            self._lose(reports[0], f"a report of {len(payload)} bytes is more than a message may hold")

    def _lose(self, report: Report, why: str) -> bool:
        """Drop a report, unless it is the end of its attempt: that is small, and must arrive."""
        if isinstance(report.body, Ended):
            return False
        if report.ref not in self._lossy:
            _log.error("reports_dropped", run_id=report.ref.run_id, shard_id=report.ref.shard_id, reason=why)
        self._lossy[report.ref] = why
        return True

    def _honest(self, report: Report) -> Report:
        """The end of an attempt of which something was lost says so; by then it is known what could be kept."""
        if not isinstance(report.body, Ended) or report.ref not in self._lossy:
            return report
        why = self._lossy.pop(report.ref)
        ended = replace(report.body, verdict=Verdict.ERRORED, reason=f"reports were lost: {why}")
        return replace(report, body=ended)


def _is_good(ended: Ended | HandedBack) -> bool:
    return isinstance(ended, Ended) and ended.verdict is Verdict.COMPLETED


def _is_urgent(body: ReportBody) -> bool:
    """Whether somebody waits for it: for anything but output, and results that are as they should be."""
    match body:
        case Results(results=results):
            return any(result.outcome.bad for result in results)
        case Output():
            return False
        case _:
            return True


def _coalesced(reports: Iterable[Report]) -> list[Report]:
    """
    What one attempt wrote becomes one report, before all else that it says; neighbouring results become one, and so
    does a whole attempt.
    """
    by_attempt: dict[AttemptRef, list[Report]] = defaultdict(list)
    for report in reports:
        by_attempt[report.ref].append(report)
    merged: list[Report] = []
    for own in by_attempt.values():
        kinds = {type(report.body) for report in own}
        said = own
        if Output in kinds:
            kinds.remove(Output)
            merged.append(_joined_output([report for report in own if isinstance(report.body, Output)]))
            said = [report for report in own if not isinstance(report.body, Output)]
        if len(kinds) < len(said):
            groups = groupby(said, key=lambda report: type(report.body))
            said = [report for kind, neighbours in groups for report in _joined(kind, list(neighbours))]
        merged += _whole(said)
    return merged


def _whole(own: list[Report]) -> list[Report]:
    """One report of an attempt that began and went well since the last batch, and had nothing to say but results."""
    match [report.body for report in own]:
        case [Running() as running, Results(results=results), Ended() as ended]:
            pass
        case [Running() as running, Ended() as ended]:
            results = ()
        case _:
            return own
    usage = ended.usage
    if running.variables or ended != Ended(verdict=Verdict.COMPLETED, usage=usage):
        return own
    return [Report(ref=own[-1].ref, body=Done(results=results, usage=usage))]


def _parted(reports: Iterable[Report]) -> list[Report]:
    """The opposite: a report for each thing that was said."""
    parted: list[Report] = []
    for report in reports:
        if isinstance(report.body, Done):
            done = report.body
            results = [Results(results=done.results)] if done.results else []
            ended = Ended(verdict=Verdict.COMPLETED, usage=done.usage)
            parted += [replace(report, body=body) for body in (Running(), *results, ended)]
        else:
            parted.append(report)
    return parted


def _joined(kind: type, reports: list[Report]) -> list[Report]:
    if kind is not Results:
        return reports
    results = tuple(result for report in reports for result in cast("Results", report.body).results)
    return [replace(reports[-1], body=Results(results=results))]


def _joined_output(reports: list[Report]) -> Report:
    pieces = [cast("Output", report.body) for report in reports]
    content = b"".join(piece.content for piece in pieces)
    body = Output(offset_bytes=pieces[0].offset_bytes, content=content, truncated=pieces[-1].truncated)
    return replace(reports[-1], body=body)


def _attempts_in(payload: bytes) -> Sequence[AttemptRef]:
    try:
        return [report.ref for report in reports_from_bytes(payload)]
    except InvalidRequest as error:
        _log.warning("spooled_batch_not_understood", reason=error.message)
        return []
