"""
The rules of a run: which events a request leads to.

A `Decider` takes requests one after the other, applies the events that they lead to at once, and collects what one
commit will hold. Nothing is true before that commit is durable; when it is not, the whole `RunStatus` is thrown away.

The state diagram is in `docs/lifecycle.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType

from fleetest.common.backoff import Backoff
from fleetest.common.coverage import FileCoverage, totals_of
from fleetest.common.errors import InvalidRequest, LeaseLost, NotFound, WrongState
from fleetest.common.latencies import decode_counts
from fleetest.common.load import LoadSample
from fleetest.common.results import Artifact, ResourceUsage
from fleetest.common.states import ShardKind, TaskState, Verdict
from fleetest.master.runs.accepting import accepted_of, told_by, wrong_hits_of
from fleetest.master.runs.coverage import CoverageTable
from fleetest.master.runs.draft import Draft
from fleetest.master.runs.endings import (
    DESERTED,
    NOBODY_NEEDS_IT,
    SERVED,
    cases_to_retry,
    count,
    end_of_run,
    end_of_task,
    gone,
    not_collected,
    past,
    settle,
)
from fleetest.master.runs.events import (
    ArtifactsSaved,
    AttemptEnded,
    AttemptRunning,
    CancelRequested,
    CasesAskedBack,
    CasesFinished,
    CasesHandedBack,
    CoverageUpdated,
    DoneAttempt,
    Event,
    GangBroken,
    GangStarted,
    LoadSampled,
    RunSubmitted,
    Supplied,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
)
from fleetest.master.runs.gangs import BROKEN_GANG, GANG_NOTICE, gang_is_ready, goes_on_without, stop_of
from fleetest.master.runs.handing_back import shards_of_given
from fleetest.master.runs.load_verdicts import ABORTED, broken_abort, judged, live_figures
from fleetest.master.runs.planner import Plan
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import Attempt, ShardStatus, TaskStatus
from fleetest.master.runs.task_status import shard_id as shard_id_of

__all__ = ["Decider"]

_LOST = frozenset({Verdict.ERRORED, Verdict.LOST})


class Decider(Draft):
    """Takes requests for one commit."""

    def __init__(self, status: RunStatus, now: datetime, backoff: Backoff) -> None:
        super().__init__(status, now)
        self._backoff = backoff

    def record(self, event: Event) -> None:
        """Take an event as other rules than these have it, and draw no conclusions from it."""
        self.emit(event)
        self.status.touched.clear()

    def submit(self, event: RunSubmitted) -> None:
        """Begin the run. Repeating it changes nothing."""
        if self.status.submitted is None:
            self.emit(event)
            self._advance()

    def supply(self, task_id: str, supplied: Supplied) -> None:
        """What the task takes of others is in its workspace: it waits for a worker. Repeating it changes nothing."""
        status = self.status.tasks[task_id]
        if self.status.awaits_inputs(status):
            self.emit(TaskQueued(at=self.now, task_id=task_id, supplied=supplied))
            self.enqueue += status.shards.values()
            self._advance()

    def give_up_supplying(self, task_id: str, state: TaskState, reason: str) -> None:
        """What the task takes of others cannot be had: it ends before it begins."""
        status = self.status.tasks[task_id]
        if self.status.awaits_inputs(status):
            self._end_task(status, state, reason)
            self._advance()

    def start_attempt(self, shard_id: str, worker_id: str, instance: str) -> int:
        """
        Give a waiting shard to a worker; answers the attempt's token.

        Raises:
            WrongState: the shard does not wait (any more).
        """
        shard = self.status.shard(shard_id)
        if shard is None or not shard.waiting or self.status.tasks[shard.task_id].state.ended:
            raise WrongState(f"{shard_id} of run {self.status.run_id} waits for no worker")
        status = self.status.tasks[shard.task_id]
        if status.stop is not None:
            raise WrongState(f"{shard.task_id} of run {self.status.run_id} is being stopped")
        if status.served_by and not self._is_served_on(status, worker_id):
            raise WrongState(f"the services of {shard.task_id} of run {self.status.run_id} are not on {worker_id}")
        self.add_started(status, shard, worker_id, instance)
        return self.position

    def _is_served_on(self, status: TaskStatus, worker_id: str) -> bool:
        elsewhere = self.status.followed(status) and self.status.worker_of(status) != worker_id
        return not elsewhere and self.status.is_served(status)

    def attempt_running(self, shard_id: str, token: int, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        """
        The worker has the environment ready. Idempotent. When the last one of a gang has, all of it begins.

        Args:
            variables: of a service, which is ready itself: what those that it serves are to be told.
        """
        shard, attempt = self.attempt(shard_id, token)
        if attempt.running:
            return
        self.emit(AttemptRunning(at=self.now, shard_id=shard_id, token=token, variables=dict(variables)))
        status = self.status.tasks[shard.task_id]
        if status.task.gang is not None and gang_is_ready(status):
            self.emit(GangStarted(at=self.now, task_id=status.task.name, start_at=self.now + GANG_NOTICE))
            self.start.append(status)
        if status.task.service is not None:
            for name, _ in status.dependents:  # those that followed it to this worker
                self.enqueue += [each for each in self.status.tasks[name].shards.values() if each.waiting]
            self._advance()

    def planned(
        self,
        shard_id: str,
        token: int,
        plan: Plan,
        *,
        deselected: int,
        collection_errors: Sequence[KeptResult],
    ) -> None:
        """
        The task's cases are known.

        As in pytest, a file that cannot be collected keeps the whole task from running, unless its arguments say
        `--continue-on-collection-errors`.
        """
        shard, _ = self.attempt(shard_id, token)
        status = self.status.tasks[shard.task_id]
        if status.planned or shard.kind is not ShardKind.PLAN:
            return
        self._finish_cases(shard, collection_errors)
        if collection_errors and "--continue-on-collection-errors" not in status.task.args:
            plan = Plan(cases=(), shards=(), predicted=None)
        self.emit(
            TaskPlanned(
                at=self.now,
                task_id=shard.task_id,
                cases=plan.cases,
                shards=plan.shards,
                predicted=plan.predicted,
                predicted_us=plan.predicted_us,
                speeds=plan.speeds,
                deselected=deselected + plan.left_out,
                cache_keys=plan.cache_keys,
                sampled=plan.sampled,
            )
        )
        self._take_cached(shard, plan.cached)
        self._finish_cases(shard, [gone(case_id) for case_id in plan.missing])
        self.enqueue += [each for each in status.shards.values() if each.kind is ShardKind.EXECUTE]
        self._advance()

    def cases_finished(self, shard_id: str, token: int, results: Sequence[KeptResult]) -> None:
        """Take each case's result, at most once in an attempt. One that the attempt was not given is left out."""
        shard, attempt = self.attempt(shard_id, token)
        if shard.kind is ShardKind.PLAN:
            return
        self._finish_cases(shard, accepted_of(self.status.tasks[shard.task_id], shard, attempt, results))
        self._advance()

    def ask_back_cases(self, shard_id: str, token: int, case_ids: Sequence[str], parts: int) -> None:
        """
        Slots are idle: ask the shard's worker for those of these cases that it has not started.

        Args:
            parts: over how many slots what comes back is to be dealt.
        """
        shard, attempt = self.attempt(shard_id, token)
        wanted = tuple(case_id for case_id in case_ids if case_id in attempt.awaited)
        if not wanted or self.status.tasks[shard.task_id].stop is not None:
            return
        self.emit(
            CasesAskedBack(
                at=self.now, shard_id=shard_id, task_id=shard.task_id, token=token, case_ids=wanted, parts=parts
            )
        )
        self.ask_back.append(shard)

    def cases_handed_back(self, shard_id: str, token: int, case_ids: Sequence[str]) -> None:
        """
        The worker will not run these cases in this attempt. They wait again, in shards of their own; when nothing is
        left of the attempt, its shard does.
        """
        shard, attempt = self.attempt(shard_id, token)
        named = attempt.awaited.intersection(case_ids)
        given = tuple(case_id for case_id in shard.case_ids if case_id in named)
        if given and len(given) == len(shard.case_ids):
            self._put_back(shard, attempt, f"handed back by {attempt.worker_id}")
        elif given or attempt.asked_back is not None:
            shards = shards_of_given(self.status.tasks[shard.task_id], attempt, given)
            self.emit(
                CasesHandedBack(
                    at=self.now,
                    shard_id=shard_id,
                    task_id=shard.task_id,
                    token=token,
                    case_ids=given,
                    shards=shards,
                )
            )
            status = self.status.tasks[shard.task_id]
            if status.stop is None:
                self.enqueue += [status.shards[each.shard_id] for each in shards]
        self._advance()

    def load_sampled(self, shard_id: str, token: int, sample: LoadSample) -> None:
        """
        What a generator did in one second. When an abort threshold does not hold any more, all generators are stopped.
        """
        shard, _ = self.attempt(shard_id, token)
        status = self.status.tasks[shard.task_id]
        plan, measured = status.task.load, status.measured
        if plan is None or measured is None:
            return
        try:
            for request in sample.requests:
                decode_counts(request.histogram)
        except InvalidRequest as error:
            reason = f"{shard_id} sent a sample that cannot be read: {error.message}"
            self._stop_load(status, by=BROKEN_GANG, reason=reason)
            return
        known = measured.whole.seconds
        self.emit(LoadSampled(at=self.now, shard_id=shard_id, task_id=shard.task_id, token=token, sample=sample))
        if measured.whole.seconds > known:
            self.emit(live_figures(self.now, shard.task_id, measured))
            if reason := broken_abort(plan, measured):
                self._stop_load(status, by=ABORTED, reason=reason)

    def _stop_load(self, status: TaskStatus, *, by: str, reason: str) -> None:
        if status.stop is None:
            self._request_stop(CancelRequested(at=self.now, task_id=status.task.name, by=by, reason=reason))
            self._advance()

    def load_recorded(self, task_id: str, record: Artifact) -> None:
        """What a load test measured so far is a file; it takes the place of the one before."""
        first = shard_id_of(task_id, 0)
        artifact = replace(record, created_at=self.now)
        self.emit(ArtifactsSaved(at=self.now, shard_id=first, task_id=task_id, artifacts=(artifact,)))

    def artifacts_saved(
        self, shard_id: str, token: int, artifacts: Sequence[Artifact], problems: Sequence[str]
    ) -> None:
        """The attempt left files behind; their content is stored."""
        shard, _ = self.attempt(shard_id, token)
        self.emit(
            ArtifactsSaved(
                at=self.now,
                shard_id=shard_id,
                task_id=shard.task_id,
                artifacts=tuple(
                    replace(artifact, attempt=shard.attempts, created_at=self.now) for artifact in artifacts
                ),
                problems=tuple(problems),
            )
        )

    def coverage_measured(self, task_id: str, files: Mapping[str, FileCoverage]) -> None:
        """
        Running tests have executed this, of those that the task combines. What is known already is left out; once the
        task has combined it, or the run has ended, nothing is taken.
        """
        news = self.status.coverage.get(task_id, CoverageTable()).news(files)
        if news and task_id in self.status.tasks and not self.status.state.ended:
            totals = self.status.coverage.get(task_id, CoverageTable()).totals_with(news)
            self.emit(CoverageUpdated(at=self.now, task_id=task_id, files=news, totals=totals))

    def coverage_combined(self, shard_id: str, token: int, files: Mapping[str, FileCoverage]) -> None:
        """The task has combined what others measured: this is all that there is."""
        shard, _ = self.attempt(shard_id, token)
        self.emit(
            CoverageUpdated(
                at=self.now, task_id=shard.task_id, files=dict(files), totals=totals_of(files), combined=True
            )
        )

    def attempt_ended(
        self,
        shard_id: str,
        token: int,
        verdict: Verdict,
        reason: str,
        *,
        usage: ResourceUsage = ResourceUsage(),  # noqa: B008 - a frozen value
        missing: Sequence[str] = (),
    ) -> None:
        """The attempt is over, for the worker or, with `lost`, for us. What is still to do is queued again."""
        shard, attempt = self.attempt(shard_id, token)
        status = self.status.tasks[shard.task_id]
        absent = [case_id for case_id in dict.fromkeys(missing) if case_id in attempt.awaited]
        self._finish_cases(shard, [not_collected(case_id, attempt.worker_id) for case_id in absent])
        if absent and not attempt.awaited and verdict is Verdict.FAILED:
            verdict = Verdict.COMPLETED  # those cases say it; the others of the task are not to blame
        if status.gang_break is not None and status.stop is None:
            self._put_back(shard, attempt, f"stopped, to begin again: {status.gang_break.reason}")
            self._advance()
            return
        verdict, reason = settle(verdict, reason, shard, attempt, status)
        again = cases_to_retry(shard, attempt, status, verdict)
        if (
            again is not None
            and status.task.service is not None
            and not self._may_serve_again(status, attempt, verdict)
        ):
            again = None
        if again is None and status.open_shards == 1:
            self._judge_load(shard)
        self.emit(
            AttemptEnded(
                at=self.now,
                shard_id=shard_id,
                task_id=shard.task_id,
                token=token,
                verdict=verdict,
                reason=reason,
                usage=usage,
                will_retry=again is not None,
                retry_at=self._retry_at(shard, verdict) if again is not None else None,
                case_ids=again or (),
            )
        )
        if again is not None:
            self.enqueue.append(shard)
            self._break_gang(shard, reason)
        elif verdict is Verdict.FAILED and status.stop is None:
            self._stop_task(status, by="failed", reason=reason)
        elif status.task.gang is not None and (verdict in _LOST or status.gang_start is None):
            self._end_gang(shard, reason)
        self._advance()

    def attempts_done(self, attempts: Iterable[DoneAttempt]) -> list[DoneAttempt]:
        """
        Workers tell at once what they would have told by `running`, `cases_finished` and `attempt_ended`, of attempts
        that went well. Answers those that are over.
        """
        over = []
        for done in attempts:
            try:
                shard, attempt = self.attempt(done.shard_id, done.token)
            except LeaseLost:
                over.append(done)
                continue
            status = self.status.tasks[shard.task_id]
            accepted = told_by(status, shard, attempt, done)
            if accepted is not None:
                self.add_done(status, shard, accepted, attempt.worker_id)
                if self.status.touched:
                    self._advance()
                continue
            self.attempt_running(done.shard_id, done.token)
            self.cases_finished(done.shard_id, done.token, done.results)
            usage = done.usage or ResourceUsage()
            self.attempt_ended(done.shard_id, done.token, Verdict.COMPLETED, "", usage=usage)
        return over

    def _judge_load(self, last: ShardStatus) -> None:
        """The last generator of a load test ends: what all of them measured is judged, unless somebody cut it short."""
        status = self.status.tasks[last.task_id]
        if status.task.load is None or status.measured is None or status.gang_start is None:
            return
        if status.stop is None or status.stop.by == ABORTED:
            aborted = status.stop.reason if status.stop is not None else ""
            self._finish_cases(last, list(judged(status.task.load, status.measured, aborted)))

    def _may_serve_again(self, service: TaskStatus, attempt: Attempt, verdict: Verdict) -> bool:
        """One that died by itself while it served has failed whom it served."""
        if self.status.stop is not None or not self.status.is_needed(service):
            return False
        return not attempt.running or verdict in {Verdict.ERRORED, Verdict.LOST}

    def attempt_declined(self, shard_id: str, token: int, reason: str) -> None:
        """The worker never began; the shard waits again, at no cost to its retries."""
        shard, attempt = self.attempt(shard_id, token)
        if attempt.seen:
            raise WrongState(f"{shard_id} has results already, its worker cannot decline it")
        delay = self._backoff.delay(attempt.number)
        self._put_back(shard, attempt, f"declined by {attempt.worker_id}: {reason}", retry_at=self.now + delay)
        self._break_gang(shard, f"{shard_id} was declined by {attempt.worker_id}: {reason}")
        self._advance()

    def cancel(self, task_id: str = "", *, by: str, reason: str, grace: timedelta = timedelta(seconds=10)) -> bool:
        """
        Stop a task, or with an empty id the run. Answers whether there was anything to stop. Idempotent.

        What is being stopped after its running cases is stopped without waiting for them.

        Raises:
            NotFound: there is no such run, or no such task.
        """
        if self.status.submitted is None:
            raise NotFound(f"there is no run {self.status.run_id}")
        if task_id and task_id not in self.status.tasks:
            raise NotFound(f"run {self.status.run_id} has no task {task_id!r}")
        target = self.status.tasks[task_id] if task_id else self.status
        if target.state.ended:
            return False
        if target.stop is None or target.stop.waits:
            self._request_stop(CancelRequested(at=self.now, task_id=task_id, by=by, reason=reason, grace=grace))
            self._advance()
        return True

    def give_up_waiting(self, task_id: str) -> None:
        """The task has waited in the queue for longer than it may. Once a worker took it, nothing happens."""
        status = self.status.tasks[task_id]
        if status.state is TaskState.QUEUED and status.stop is None:
            limit = status.task.timeouts.queue
            self._end_task(status, TaskState.TIMED_OUT, f"no worker took it within its queue timeout of {limit}")
            self._advance()

    def _put_back(self, shard: ShardStatus, attempt: Attempt, reason: str, *, retry_at: datetime | None = None) -> None:
        """Let a shard that its worker gave up wait again, at no cost to its retries, unless it is being stopped."""
        stopping = self.status.tasks[shard.task_id].stop is not None
        self.emit(
            AttemptEnded(
                at=self.now,
                shard_id=shard.shard_id,
                task_id=shard.task_id,
                token=attempt.token,
                verdict=Verdict.CANCELLED,
                reason=reason,
                will_retry=not stopping,
                retry_at=None if stopping else retry_at,
            )
        )
        if not stopping:
            self.enqueue.append(shard)

    def _break_gang(self, lost: ShardStatus, reason: str) -> None:
        """A shard of a gang waits again, so all of them must: they begin together."""
        status = self.status.tasks[lost.task_id]
        if status.task.gang is None or not status.live or status.gang_break is not None or status.stop is not None:
            return
        broken = GangBroken(at=self.now, task_id=status.task.name, reason=reason or f"{lost.shard_id} was lost")
        self.emit(broken)
        self.stop += [(shard, stop_of(broken)) for shard in status.live_attempts]

    def _end_gang(self, lost: ShardStatus, reason: str) -> None:
        """A shard of a gang will not come back: the others go on without it, or end."""
        status = self.status.tasks[lost.task_id]
        if status.stop is None and status.live and not goes_on_without(status):
            name = status.task.name
            self._request_stop(CancelRequested(at=self.now, task_id=name, by=BROKEN_GANG, reason=reason))

    def _finish_cases(self, shard: ShardStatus, results: Sequence[KeptResult]) -> None:
        if not results:
            return
        assert shard.attempt is not None
        status = self.status.tasks[shard.task_id]
        self._tell_cases(shard, shard.attempt, results, shard.attempt.worker_id)
        for wrong in wrong_hits_of(status, results, self.now):
            self.emit(wrong)
        self._stop_at_failures(status)

    def _take_cached(self, shard: ShardStatus, results: Sequence[KeptResult]) -> None:
        """No worker has run them."""
        if results:
            assert shard.attempt is not None
            self._tell_cases(shard, shard.attempt, results, worker_id="")

    def _tell_cases(self, shard: ShardStatus, attempt: Attempt, results: Sequence[KeptResult], worker_id: str) -> None:
        self.emit(
            CasesFinished(
                at=self.now,
                shard_id=shard.shard_id,
                task_id=shard.task_id,
                token=attempt.token,
                worker_id=worker_id,
                results=tuple(results),
            )
        )

    def _stop_at_failures(self, status: TaskStatus) -> None:
        if status.stop is not None:
            return
        limit = status.task.maxfail
        if self.status.request.fail_fast and status.final_failures:
            self._stop_run(status)
        elif limit and status.final_failures >= limit:
            self._stop_task(status, by="maxfail", reason=f"stopped after {count(limit, 'failure')}")

    def _stop_run(self, failed: TaskStatus) -> None:
        """What the others run is of no use any more; what the failed task runs may tell more of the failure."""
        name = failed.task.name
        reason = f"stopped at the first failure, in {name}"
        self._request_stop(CancelRequested(at=self.now, by="fail_fast", reason=reason, spares=name))

    def _stop_task(self, status: TaskStatus, *, by: str, reason: str) -> None:
        self._request_stop(
            CancelRequested(at=self.now, task_id=status.task.name, by=by, reason=reason, finish_running_case=True)
        )

    def _request_stop(self, request: CancelRequested) -> None:
        before = {task_id: status.stop for task_id, status in self.status.tasks.items()}
        self.emit(request)
        for task_id, status in self.status.tasks.items():
            if status.stop is not None and status.stop is not before[task_id]:
                self.stop += [(shard, status.stop) for shard in status.live_attempts]

    def _retry_at(self, shard: ShardStatus, verdict: Verdict) -> datetime | None:
        """Only the infrastructure's own failures are worth a wait; a lost worker is already gone."""
        return self.now + self._backoff.delay(shard.mishaps + 1) if verdict is Verdict.ERRORED else None

    def _advance(self) -> None:
        """Draw every consequence of what was just decided, until there is none left."""
        while self.status.touched and not self.status.state.ended:
            touched, self.status.touched = self.status.touched, {}
            for task_id in touched:
                status = self.status.tasks[task_id]
                if status.state is TaskState.BLOCKED:
                    self._unblock(status)
                elif not status.state.ended:
                    self._follow_services(status)
                    self._close(status)
        if self.status.submitted is not None and not self.status.live_tasks and not self.status.state.ended:
            self.emit(end_of_run(self.status, self.now))

    def _unblock(self, status: TaskStatus) -> None:
        if status.stop is not None:
            self._end_task(status, TaskState.CANCELLED, status.stop.reason)
        elif status.unmet is not None:
            need, end = status.unmet, self.status.tasks[status.unmet.task].state
            self._end_task(status, TaskState.SKIPPED, f"needs {need.task} {need.when.value}, which {past(end)}")
        elif status.task.service is not None and not self.status.is_needed(status):
            self._end_task(status, TaskState.SKIPPED, NOBODY_NEEDS_IT)
        elif not status.open_needs and self.status.is_served(status) and not status.task.inputs:
            self.emit(TaskQueued(at=self.now, task_id=status.task.name))
            self.enqueue += status.shards.values()

    def _follow_services(self, status: TaskStatus) -> None:
        """A service ends when nobody needs it any more; who needs one that has ended, cannot go on."""
        if status.stop is not None:
            return
        name, service = status.task.name, status.task.service
        if status.unmet is not None:
            end = past(self.status.tasks[status.unmet.task].state)
            reason = f"needs {status.unmet.task} ready, which {end}"
            self._request_stop(CancelRequested(at=self.now, task_id=name, by=DESERTED, reason=reason))
        elif service is not None and not self.status.is_needed(status):
            self._request_stop(
                CancelRequested(at=self.now, task_id=name, by=SERVED, reason=NOBODY_NEEDS_IT, grace=service.grace)
            )

    def _close(self, status: TaskStatus) -> None:
        """End the task when nothing of it is left to do."""
        if not status.live and (status.stop is not None or not status.open_shards):
            self._end_task(status, *end_of_task(status))

    def _end_task(self, status: TaskStatus, state: TaskState, reason: str) -> None:
        self.emit(TaskEnded(at=self.now, task_id=status.task.name, state=state, reason=reason))
        failed = state in {TaskState.FAILED, TaskState.ERRORED, TaskState.TIMED_OUT}
        if failed and self.status.request.fail_fast and self.status.stop is None:
            self._stop_run(status)
