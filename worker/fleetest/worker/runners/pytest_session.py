"""
A pytest session that outlives attempts, and the process in it.

Everything that happens (an attempt comes, pytest says something, its process ends, a limit passes) is put in one line
and dealt with one after the other by one task, so no two of them ever interleave. After each, `_advance` does what the
state then asks for: start a process, end one that belongs to another run, feed cases, flush.

Progress is certain: a process that ends before it has run any case ends the attempt; otherwise the case that ran has a
result, or one was finished before, and the rest goes on in a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from fleetest.common.errors import DependencyUnavailable, FleetestError, InvalidRequest
from fleetest.common.results import CaseResult, ResourceSample, ResourceUsage
from fleetest.common.states import Outcome, Verdict
from fleetest.worker.artifacts import ArtifactCollector
from fleetest.worker.assignments import Assignment, AttemptRef, Ended, Reporter, TaskSpec
from fleetest.worker.left_files import LeftByTask
from fleetest.worker.ports import Blobs, Environment, Process
from fleetest.worker.runners.pytest_alarm import Alarm
from fleetest.worker.runners.pytest_appetite import Appetite
from fleetest.worker.runners.pytest_attempt import Attempt, RunningCase
from fleetest.worker.runners.pytest_channel import case_result
from fleetest.worker.runners.pytest_farewells import Farewells
from fleetest.worker.runners.pytest_output import SessionOutput
from fleetest.worker.runners.pytest_resident import Collection, Key, Resident, resident_key
from fleetest.worker.runners.pytest_spending import Spending
from fleetest.worker.runners.pytest_standby import Standbys, conditions_of

__all__ = ["PytestSession"]

_CLOSED: Final = "the session is closed"
_IDLE_SECONDS: Final = 3.0
_ORDERLY: Final = frozenset({"exit", "limit"})  # kinds of stop after which pytest ends by itself, as it was asked
_log = structlog.get_logger(__name__)

Event = Callable[[], Awaitable[bool | None] | bool | None]


class PytestSession:
    """Fulfils `Session`; see there."""

    def __init__(self, spec: TaskSpec, environment: Environment, blobs: Blobs, standbys: Standbys) -> None:
        self.environment_key = spec.environment_key
        self._spec = spec
        self._environment = environment
        self._blobs = blobs
        self._standbys = standbys
        self._preparing: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._attempts: list[Attempt] = []
        self._resident: Resident | None = None
        self._last_key: Key | None = None
        self._spending = Spending()
        self._started_at = 0.0
        self._running: RunningCase | None = None
        self._last_owner: Attempt | None = None
        self._last_word = 0.0
        self._clearing = False
        self._flush_wanted = False
        self._closing = False
        self._output = SessionOutput()
        self._appetite = Appetite()
        self.on_hungry = self._appetite.on_hungry
        self._farewells = Farewells(blobs)
        self._left = LeftByTask()
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(lambda: self._events.put_nowait(self._on_deadline))
        self._server = asyncio.create_task(self._serve())

    # -- the port

    def submit(self, assignment: Assignment, reporter: Reporter) -> asyncio.Future[Ended]:
        attempt = Attempt(
            assignment=assignment,
            reporter=reporter,
            future=self._loop.create_future(),
            collector=ArtifactCollector(
                self._blobs, self._environment.host_source, assignment.spec, reporter, left=self._left.of(assignment)
            ),
        )
        if self._closing:
            attempt.future.set_result(Ended(verdict=Verdict.CANCELLED, reason=_CLOSED))
        else:
            # In line at once, so that `backlog` counts it; the one task only ever looks at the front.
            self._attempts.append(attempt)
            self._flush_wanted = False
            self._appetite.renew()
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._wake()
        return attempt.future

    def flush(self) -> None:
        self._flush_wanted = True
        self._wake()

    @property
    def backlog(self) -> int:
        running = 1 if self._running is not None and self._running.attempt is not None else 0
        return sum(len(attempt.todo) for attempt in self._attempts) - running

    @property
    def ahead(self) -> int:
        return self._appetite.ahead

    def expect(self, run_id: str) -> None:
        self._events.put_nowait(lambda: self._begin_early(resident_key(run_id, self._spec)))

    def hand_back(self, ref: AttemptRef, case_ids: Sequence[str]) -> None:
        self._events.put_nowait(lambda: self._hand_back(ref, case_ids))

    async def stop(self, ref: AttemptRef, *, reason: str, grace: timedelta, finish_running_case: bool) -> None:
        stopping: asyncio.Future[Attempt | None] = self._loop.create_future()
        how = self._cancel_gently if finish_running_case else self._cancel_now

        async def cancel() -> None:
            attempt = next((other for other in self._attempts if other.assignment.ref == ref), None)
            try:
                if attempt is not None:
                    await how(attempt, reason, grace)
            finally:
                stopping.set_result(attempt)

        if self._server.done():
            return
        self._events.put_nowait(cancel)
        attempt = await stopping
        if attempt is not None:
            await asyncio.wait([attempt.future])

    def sample(self) -> ResourceSample | None:
        return self._process.sample() if self._process is not None else None

    async def close(self) -> None:
        self._events.put_nowait(self._end_all)
        await self._server
        self._alarm.cancel()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._preparing is not None:  # it may have begun before the end was dealt with
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
        await self._farewells.done()

    # -- the one task

    async def _serve(self) -> None:
        while not (self._closing and self._events.empty()):
            try:
                goes_on = await self._deal_with_next()
                if goes_on and not self._events.empty():
                    continue
                self._output.pass_on()
                await self._advance()
            except Exception as error:  # noqa: BLE001 - a defect of ours must not leave attempts without an end
                _log.exception("pytest_session_broke")
                for attempt in list(self._attempts):
                    self._end(attempt, Verdict.ERRORED, f"internal error: {error!r}")
                await self._kill_resident(timedelta())
            if self._attempts:
                busy = self._running is not None and self._running.attempt is not None
                self._appetite.look_at(self.backlog, busy=busy)
                self._read_later()

    async def _deal_with_next(self) -> bool:
        """Answers whether all goes on as before, so that nothing follows from it."""
        if self._events.empty():
            self._alarm.set(min((when for when, _ in self._limits()), default=None))
        event = await self._events.get()
        done = event()
        return bool(done if done is None or isinstance(done, bool) else await done)

    def _read_later(self) -> None:
        """While quick cases run, what is said of them is heard some at a time."""
        head = self._attempts[0]
        if head.fed and self._resident is not None and (pause := head.pause(self._appetite.last_duration)):
            self._resident.read_later(pause)

    def _wake(self) -> None:
        """Let the one task look at what has changed."""
        self._events.put_nowait(lambda: None)

    async def _end_all(self) -> None:
        self._closing = True
        for attempt in list(self._attempts):
            self._end(attempt, Verdict.CANCELLED, _CLOSED)
        await self._end_resident()

    async def _advance(self) -> None:
        while self._attempts and not self._closing:
            head = self._attempts[0]
            if head.active_since is None:
                head.active_since = self._started_at = self._loop.time()
                self._output.pass_on(head)
                head.used_before = self._spending.recent_total(self._process)
            if self._resident is not None and (self._resident.key != head.key or self._is_leaving()):
                await self._end_resident()
            if self._resident is None and not await self._start(head):
                continue
            assert self._resident is not None
            if not self._resident.collection.complete or self._clearing:
                return
            self._feed(self._resident)
            if self._attempts and self._attempts[0] is head:
                self._pass_on_flush(self._resident)
                return

    def _is_leaving(self) -> bool:
        stopped = self._resident.stopped if self._resident is not None else None
        return stopped is not None and stopped[0] in _ORDERLY

    async def _start(self, head: Attempt) -> bool:
        """Start a process for `head`; false when it could not be, and `head` has ended."""
        try:
            if self._last_key is not None and self._last_key != head.key:
                await self._make_pristine(head.assignment.spec)
                await self._farewells.discard_measured()
            wanted = head.is_plan and head.assignment.spec.fingerprints
            self._resident = await self._open_resident(head.key, fingerprints=wanted)
        except InvalidRequest as error:
            self._end(head, Verdict.FAILED, str(error))
            return False
        except (FleetestError, OSError) as error:
            self._end(head, Verdict.ERRORED, str(error))
            return False
        self._last_key = head.key
        self._started_at = self._last_word = self._loop.time()
        return True

    async def _open_resident(self, key: Key, *, fingerprints: bool) -> Resident:
        conditions = conditions_of(self._environment, key)
        # Coverage is measured from before pytest is imported.
        waiting = self._standbys.take(self._environment, conditions) if key[1].coverage is None else None
        if waiting is not None:
            waiting.begin(
                key,
                self._environment,
                self._post_output,
                on_message=self._post_message,
                on_gone=self._post_gone,
                fingerprints=fingerprints,
            )
            return waiting
        resident = Resident(key, on_message=self._post_message, on_gone=self._post_gone)
        await resident.start(
            self._environment, self._post_output, conditions=conditions, waits=False, fingerprints=fingerprints
        )
        if resident.measured is not None:
            self._farewells.measures(resident.measured)
        return resident

    async def _begin_early(self, key: Key) -> None:
        """Nothing has been asked for yet. What goes wrong now goes wrong again, and is told, when something is."""
        if self._attempts or self._resident is not None or self._closing:
            return
        with contextlib.suppress(FleetestError, OSError):
            self._resident = await self._open_resident(key, fingerprints=False)
            self._last_key = key

    def _rest_soon(self) -> None:
        if not self._attempts and self._environment.keeps_processes:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._idle_timer = self._loop.call_later(_IDLE_SECONDS, self._events.put_nowait, self._rest)

    async def _rest(self) -> None:
        """
        Nothing has been asked for a while. Exchange the process, which holds what its cases need, for one that holds
        nothing yet, and is soon there for the next run.
        """
        if self._attempts or self._closing or self._last_key is None:
            return
        await self._end_resident()
        if self._last_key[1].coverage is None and (self._preparing is None or self._preparing.done()):
            self._preparing = asyncio.create_task(self._standbys.prepare(self._environment, self._last_key[1]))

    async def _make_pristine(self, spec: TaskSpec) -> None:
        """For another run, after the process of the one before has ended and may have written its last."""
        await self._farewells.done()
        await self._environment.refresh(spec)

    def _feed(self, resident: Resident) -> None:
        """Tell the process of every attempt in line that it may run."""
        for attempt in list(self._attempts):
            if attempt.key != resident.key:
                self._flush_wanted = True
                return
            if attempt.fed:
                continue
            attempt.fed = True
            if attempt is self._attempts[0]:
                attempt.announce(self._environment.notes)
            if attempt.is_plan:
                self._end(attempt, *attempt.answer(resident.collection, self._environment))
                continue
            attempt.match(resident.collection)
            if attempt.todo:
                self._last_word = self._loop.time()
                resident.run(list(attempt.todo))
            else:
                self._complete(attempt)

    def _pass_on_flush(self, resident: Resident) -> None:
        self._attempts[0].announce(self._environment.notes)
        if self._flush_wanted and not resident.flushed:
            self._last_word = self._loop.time()
            resident.flush()

    # -- what pytest says

    def _post_message(self, resident: Resident, message: Mapping[str, Any]) -> None:
        self._events.put_nowait(lambda: self._on_message(resident, message))

    def _post_gone(self, resident: Resident, ending: int | DependencyUnavailable) -> None:
        if isinstance(ending, DependencyUnavailable):
            self._events.put_nowait(lambda: self._on_lost(resident, ending))
        else:
            self._events.put_nowait(lambda: self._on_gone(resident, ending))

    async def _on_message(self, resident: Resident, message: Mapping[str, Any]) -> bool:
        if resident is not self._resident:
            return False
        self._last_word = self._loop.time()
        resident.has_waited = False
        try:
            match message["event"]:
                case "start":
                    self._on_start(resident, message["id"])
                    return True
                case "done":
                    return self._on_done(resident, message)
                case "stopped":
                    self._on_stopped(resident, str(message["kind"]), str(message["reason"]))
                case "cleared":
                    self._on_cleared(str(message["problem"]))
                case "unfit":
                    _log.info("pytest_standby_unfit", reason=str(message["reason"]))
                    await self._kill_resident(timedelta())
                case _:
                    resident.collection.take(message)
                    if resident.collection.complete:
                        self._rest_soon()
        except (KeyError, ValueError) as error:
            resident.hang_up(f"the session said what makes no sense: {error}")
        return False

    def _on_start(self, resident: Resident, case_id: str) -> None:
        case = resident.collection.cases[case_id]
        owner = next((attempt for attempt in self._attempts if attempt.fed and case_id in attempt.todo), None)
        self._running = RunningCase(case=case, attempt=owner, started_at=datetime.now(UTC))
        self._last_owner = owner
        if owner is not None:
            owner.began = True

    def _on_done(self, resident: Resident, message: Mapping[str, Any]) -> bool:
        running, self._running = self._running, None
        resident.finished += 1
        if running is None or running.case.case_id != message["id"]:
            raise ValueError(f"a result for {message['id']!r}, which does not run")
        result = case_result(message, started_at=running.started_at)
        self._appetite.last_duration = result.duration
        self._report(running, result)
        return running.attempt is not None and bool(running.attempt.todo)

    def _report(self, running: RunningCase, result: CaseResult) -> None:
        attempt = running.attempt
        if attempt is None or result.case_id not in attempt.todo:
            return
        del attempt.todo[result.case_id]
        attempt.busy += result.duration
        attempt.collector.hear(result)
        attempt.reporter.result(result)
        if not attempt.todo:
            self._complete(attempt)

    def _on_stopped(self, resident: Resident, kind: str, reason: str) -> None:
        resident.stopped = (kind, reason)
        owner = self._last_owner
        if kind in _ORDERLY and owner in self._attempts:
            assert owner is not None
            self._end(owner, Verdict.FAILED, reason)

    def _on_cleared(self, problem: str) -> None:
        self._clearing = False
        for attempt in self._attempts:
            attempt.fed = False
        if problem:
            self._write(f"\nfixtures that were no longer needed could not be torn down:\n{problem}\n".encode())

    def _post_output(self, content: bytes) -> None:
        self._events.put_nowait(lambda: self._write(content))

    def _write(self, content: bytes) -> bool:
        self._last_word = self._loop.time()
        running = self._running
        head = self._attempts[0] if self._attempts else None
        self._output.write(content, running.attempt if running is not None and running.attempt is not None else head)
        return True

    # -- ends

    async def _on_gone(self, resident: Resident, exit_code: int) -> None:
        if resident is not self._resident:
            return
        running = self._running
        self._lose_resident()
        if resident.has_waited:
            return  # it may have died while nobody needed it: whether the run is to blame, a new one shows
        reason = resident.explain(exit_code)
        if running is not None:
            if not (resident.killed_through_parent and resident.finished > 0 and running.may_be_innocent()):
                self._report(running, running.ended(Outcome.FAILED, message=reason, details=resident.tail()))
        elif self._attempts and resident.finished == 0:
            self._end_unstarted(self._attempts[0], resident, reason)

    def _on_lost(self, resident: Resident, error: DependencyUnavailable) -> None:
        """What became of the process is not known, so neither is what became of the case that ran."""
        if resident is not self._resident:
            return
        self._lose_resident()
        if self._attempts:
            self._end(self._attempts[0], Verdict.ERRORED, str(error))

    def _end_unstarted(self, head: Attempt, resident: Resident, reason: str) -> None:
        collection = resident.collection
        if head.is_plan and collection.errors and not collection.complete:
            # With --maxfail pytest stops at the first file that it cannot collect.
            head.announce(self._environment.notes)
            head.reporter.planned([], deselected=collection.deselected, collection_errors=collection.errors)
            self._end(head, Verdict.COMPLETED, "")
        else:
            self._end(head, Verdict.FAILED, reason)

    def _lose_resident(self) -> None:
        """The process is gone, or will not be listened to any more."""
        self._spending.lose(self._process)
        self._resident = self._running = None
        self._clearing = False
        for attempt in self._attempts:
            attempt.fed = False

    async def _end_resident(self) -> None:
        resident = self._resident
        self._lose_resident()
        self._last_owner = None
        if resident is not None:
            await resident.end()

    async def _kill_resident(self, grace: timedelta) -> None:
        resident = self._resident
        self._lose_resident()
        if resident is not None:
            await resident.stop(grace)

    def _complete(self, attempt: Attempt) -> None:
        collection = self._resident.collection if self._resident is not None else Collection()
        self._end(attempt, *attempt.ending(collection))

    def _end(self, attempt: Attempt, verdict: Verdict, reason: str) -> None:
        self._output.pass_on()
        self._attempts.remove(attempt)
        self._rest_soon()
        if attempt.began:
            self._appetite.attempt_ended(attempt.busy)
        ended = Ended(verdict=verdict, reason=reason, usage=self._used(attempt), missing=attempt.missing)
        if attempt.is_measured:
            self._events.put_nowait(lambda: self._end_measured(attempt, ended))
        else:
            self._farewells.bid(attempt, ended)

    async def _end_measured(self, attempt: Attempt, ended: Ended) -> None:
        """All that its tests execute is known once their process has ended; unless other attempts go on in that."""
        if self._resident is not None and not any(other.key == self._resident.key for other in self._attempts):
            await self._end_resident()
        self._farewells.bid(attempt, ended)

    @property
    def _process(self) -> Process | None:
        return self._resident.process if self._resident is not None else None

    def _used(self, attempt: Attempt) -> ResourceUsage:
        if attempt.active_since is None:
            return ResourceUsage()
        wall_time = timedelta(seconds=self._loop.time() - attempt.active_since)
        return self._spending.since(attempt.used_before, self._process, wall_time=wall_time)

    # -- giving up

    def _hand_back(self, ref: AttemptRef, case_ids: Sequence[str]) -> None:
        """What the process was told of may have begun before it is heard of, so it is asked to let go."""
        attempt = next((other for other in self._attempts if other.assignment.ref == ref), None)
        self._appetite.others_wait()
        if attempt is None:
            return  # it has ended, which says all
        wanted = [case_id for case_id in case_ids if case_id in attempt.todo and attempt.decided is None]
        given = self._resident.take_back(wanted) if attempt.fed and self._resident is not None else wanted
        for case_id in given:
            del attempt.todo[case_id]
        attempt.reporter.handed_back(given)
        if not attempt.todo:
            attempt.returned = not attempt.began
            self._complete(attempt)

    async def _cancel_gently(self, attempt: Attempt, reason: str, _grace: timedelta) -> None:
        running = self._running
        if running is not None and running.attempt is attempt:
            attempt.decided = (Verdict.CANCELLED, reason)
            attempt.todo = {running.case.case_id: None}
        else:
            self._end(attempt, Verdict.CANCELLED, reason)
        if attempt.fed and self._resident is not None:
            self._clearing = True
            self._resident.clear()

    async def _cancel_now(self, attempt: Attempt, reason: str, grace: timedelta) -> None:
        running = self._running
        if running is not None and running.attempt is attempt:
            self._end(attempt, Verdict.CANCELLED, reason)
            await self._kill_resident(grace)
        else:
            await self._cancel_gently(attempt, reason, grace)

    # -- limits

    async def _on_deadline(self) -> None:
        now = self._loop.time()
        for when, act in list(self._limits()):
            if when <= now:
                await act()
                return

    def _limits(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        """The limits that hold now, as the loop's time, with what to do when they pass."""
        if not self._attempts or self._resident is None:
            return []
        head, resident = self._attempts[0], self._resident
        spec = head.assignment.spec
        found: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        if spec.total_timeout is not None and head.active_since is not None:
            found.append((head.active_since + spec.total_timeout.total_seconds(), self._total_passed))
        if not resident.collection.complete:
            if spec.start_timeout is not None:
                found.append((self._started_at + spec.start_timeout.total_seconds(), self._start_passed))
        elif spec.silence_timeout is not None and self._is_busy(resident):
            found.append((self._last_word + spec.silence_timeout.total_seconds(), self._silence_passed))
        return found

    def _is_busy(self, resident: Resident) -> bool:
        """Whether pytest has something to do, other than to wait for what follows the case that it holds back."""
        if self._running is not None or self._clearing:
            return True
        fed = sum(len(attempt.todo) for attempt in self._attempts if attempt.fed)
        return fed > 1 or (fed == 1 and resident.flushed)

    async def _total_passed(self) -> None:
        head = self._attempts[0]
        limit = head.assignment.spec.total_timeout
        left = len(head.todo)
        head.decided = (Verdict.TIMED_OUT, f"the total limit of {limit} has passed; {left} cases had not ended")
        await self._time_out(f"the attempt's total limit of {limit} has passed")
        if head in self._attempts:
            self._end(head, *head.decided)

    async def _start_passed(self) -> None:
        head = self._attempts[0]
        limit = head.assignment.spec.start_timeout
        stacks = await self._time_out("")
        self._write(stacks.encode())
        self._end(head, Verdict.TIMED_OUT, f"pytest had not collected its cases when the limit of {limit} had passed")

    async def _silence_passed(self) -> None:
        head = self._attempts[0]
        limit = head.assignment.spec.silence_timeout
        stuck_before_any = self._running is None and self._resident is not None and self._resident.finished == 0
        stacks = await self._time_out(f"no word for {limit}")
        if stuck_before_any:
            self._write(stacks.encode())
            self._end(head, Verdict.TIMED_OUT, f"pytest said nothing for {limit} and ran no case")

    async def _time_out(self, message: str) -> str:
        """End the process, and the case that runs as timed out; answers the stacks of its threads."""
        resident, running = self._resident, self._running
        if resident is None:
            return ""
        stacks = await resident.stacks()
        await self._kill_resident(timedelta())
        if running is not None:
            self._report(running, running.ended(Outcome.TIMED_OUT, message=message, details=stacks))
        return stacks
