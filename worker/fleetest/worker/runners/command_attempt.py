"""One try at a command, from its start to its results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from msgspec.structs import replace

from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.results import CaseResult, ResourceSample, ResourceUsage
from fleetest.common.states import Outcome, ShardKind, Verdict
from fleetest.worker.artifacts import ArtifactCollector
from fleetest.worker.assignments import Assignment, Ended, Reporter
from fleetest.worker.left_files import LeftFiles
from fleetest.worker.ports import Blobs, Environment, Process
from fleetest.worker.runners.command_cases import CasesFile, listing_argv, results_for
from fleetest.worker.runners.command_reports import CommandReports
from fleetest.worker.runners.endings import signal_name
from fleetest.worker.tail import Tail

__all__ = ["CommandAttempt"]

_TIMEOUT_GRACE: Final = timedelta(seconds=2)
_MOST_EXTRA: Final = 20
_AT_ONCE: Final = 500
"""Cases that are read before the first of them is reported."""

_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


class CommandAttempt:
    """
    Attributes:
        assignment: what it was told to do.
        future: done once it has ended; never raises.
    """

    def __init__(
        self,
        assignment: Assignment,
        reporter: Reporter,
        environment: Environment,
        blobs: Blobs,
        left: LeftFiles | None = None,
    ) -> None:
        self.assignment = assignment
        self.future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._reporter = reporter
        self._environment = environment
        self._collector = ArtifactCollector(blobs, environment.host_source, assignment.spec, reporter, left=left)
        self._process: Process | None = None
        self._cases_file = CasesFile(environment)
        self._reports = CommandReports(assignment.spec, environment)
        self._waiting: asyncio.Future[None] | None = None
        self._tail = Tail(MAX_RESULT_TEXT_BYTES // 2)
        self._last_word = 0.0
        self._began = 0.0
        self._cancelled: str | None = None
        self._grace = timedelta()

    async def run(self) -> Ended:
        """
        Run the command; whatever it does is a result.

        Raises:
            CapacityExceeded, DependencyUnavailable: it could not be started, through the infrastructure's doing.
        """
        self._reporter.running(self._environment.notes)
        spec = self.assignment.spec
        if spec.cases:
            case_ids = () if self.assignment.kind is ShardKind.PLAN else self.assignment.case_ids
            await asyncio.to_thread(self._cases_file.write, case_ids)
        if self.assignment.kind is ShardKind.PLAN:
            return await self._list_cases(listing_argv(spec.cases))
        if spec.gang and (ended := await self._begin_with_the_others()) is not None:
            return ended
        await asyncio.to_thread(self._reports.look)
        started_at = datetime.now(UTC)
        self._collector.watch()
        try:
            timed_out = await self._execute(self._argv())
            ended = await self._conclude(self._running, timed_out, started_at)
            await self._collector.finish(ended.verdict)
        except InvalidRequest as error:
            return self._not_started(error, started_at)
        finally:
            await self._collector.stop()
        return ended

    async def _begin_with_the_others(self) -> Ended | None:
        """Wait until all of its gang begin; answers how it ended when that never came."""
        start = self._waiting = asyncio.ensure_future(self._reporter.common_start())
        await asyncio.wait([start])
        self._waiting = None
        if start.cancelled():
            return Ended(verdict=Verdict.CANCELLED, reason=self._cancelled or "")
        if isinstance(start.exception(), TimeoutError):
            reason = f"start: the others of its gang were not ready within {self.assignment.spec.start_timeout}"
            return Ended(verdict=Verdict.TIMED_OUT, reason=reason)
        start.result()
        return None

    @property
    def waits_for_others(self) -> bool:
        """Whether its command has not begun, since its gang has not."""
        return self._waiting is not None

    async def cancel(self, reason: str, grace: timedelta) -> None:
        """End the command; the attempt ends as cancelled."""
        self._cancelled, self._grace = reason, grace
        if self._waiting is not None:
            self._waiting.cancel()
        if self._process is not None:
            await self._process.stop(grace)

    def sample(self) -> ResourceSample | None:
        """What the command uses."""
        return self._process.sample() if self._process is not None else None

    @property
    def _case_id(self) -> str:
        assignment = self.assignment
        if assignment.shard_count <= 1:
            return assignment.spec.task_id
        return f"{assignment.spec.task_id} {assignment.shard_index + 1}/{assignment.shard_count}"

    def _argv(self) -> Sequence[str]:
        spec = self.assignment.spec
        if not spec.shell and not spec.command:
            raise InvalidRequest("the task has neither a command nor a shell line")
        return ("/bin/sh", "-c", spec.shell) if spec.shell else spec.command

    def _not_started(self, error: InvalidRequest, started_at: datetime) -> Ended:
        failed = self._result(Outcome.FAILED, error.message, started_at)
        for case_id in self.assignment.case_ids or (failed.case_id,):
            self._reporter.result(replace(failed, case_id=case_id))
        return Ended(verdict=Verdict.COMPLETED)

    @property
    def _running(self) -> Process:
        assert self._process is not None, "nothing was started"
        return self._process

    async def _list_cases(self, argv: Sequence[str]) -> Ended:
        timed_out = await self._execute(argv)
        exit_code = await self._running.wait()
        usage = self._usage()
        if self._cancelled is not None:
            return Ended(verdict=Verdict.CANCELLED, reason=self._cancelled, usage=usage)
        if timed_out:
            return Ended(verdict=Verdict.TIMED_OUT, reason=f"`cases`: the {timed_out} has passed", usage=usage)
        if exit_code != 0:
            reason = f"`cases`: {self._failure(self._running, exit_code)}"
            return Ended(verdict=Verdict.FAILED, reason=reason, usage=usage)
        self._reporter.planned(await asyncio.to_thread(self._cases_file.read), deselected=0, collection_errors=())
        return Ended(verdict=Verdict.COMPLETED, usage=usage)

    async def _execute(self, argv: Sequence[str]) -> str:
        """Start a command and wait for its end. Answers which limit ended it, or nothing. Raises as `start`."""
        self._last_word = asyncio.get_running_loop().time()
        self._began = time.monotonic()
        self._process = await self._environment.start(
            argv,
            env={**self._variables(), **self.assignment.secrets},
            cwd=self._environment.source / self.assignment.spec.working_directory,
            output=self._write,
        )
        if self._cancelled is not None:  # while it was started; it may have begun already
            await self._process.stop(self._grace)
        return await self._wait(self._process)

    def _variables(self) -> Mapping[str, str]:
        own = self._cases_file.env if self.assignment.spec.cases else {}
        return {
            **own,
            "FLEETEST_RUN_ID": self.assignment.ref.run_id,
            "FLEETEST_TASK": self.assignment.spec.task_id,
            "FLEETEST_SHARD_INDEX": str(self.assignment.shard_index),
            "FLEETEST_SHARD_TOTAL": str(self.assignment.shard_count),
        }

    def _write(self, content: bytes) -> None:
        self._last_word = asyncio.get_running_loop().time()
        self._tail.write(content)
        self._reporter.output(content)

    async def _wait(self, process: Process) -> str:
        """Wait for its end; answers which limit ended it, or nothing."""
        spec = self.assignment.spec
        try:
            async with asyncio.timeout(_seconds(spec.total_timeout)):
                return "" if await self._wait_while_not_silent(process) else f"silence limit of {spec.silence_timeout}"
        except TimeoutError:
            return f"total limit of {spec.total_timeout}"
        finally:
            await process.stop(_TIMEOUT_GRACE)

    async def _wait_while_not_silent(self, process: Process) -> bool:
        """Whether it ended by itself."""
        loop = asyncio.get_running_loop()
        limit = _seconds(self.assignment.spec.silence_timeout)
        while True:
            deadline = None if limit is None else self._last_word + limit
            try:
                async with asyncio.timeout_at(deadline):
                    await process.wait()
                    return True
            except TimeoutError:
                if deadline is not None and loop.time() >= self._last_word + (limit or 0):
                    return False

    async def _conclude(self, process: Process, timed_out: str, started_at: datetime) -> Ended:
        exit_code = await process.wait()
        usage = self._usage()
        if self._cancelled is not None:
            return Ended(verdict=Verdict.CANCELLED, reason=self._cancelled, usage=usage)
        if timed_out:
            whole = self._result(Outcome.TIMED_OUT, f"its {timed_out} has passed", started_at)
        elif exit_code != 0:
            whole = self._result(Outcome.FAILED, self._failure(process, exit_code), started_at)
        else:
            whole = self._result(Outcome.PASSED, "", started_at)
        cases = await asyncio.to_thread(self._reports.read)
        if self.assignment.spec.cases:
            return self._conclude_each(await asyncio.to_thread(list, cases), whole, usage)
        number, bad = await self._report_each(cases)
        if timed_out or not number or (whole.outcome.bad and not bad):
            self._reporter.result(whole)
        if timed_out.startswith("total"):
            return Ended(verdict=Verdict.TIMED_OUT, reason=f"the {timed_out} has passed", usage=usage)
        return Ended(verdict=Verdict.COMPLETED, usage=usage)

    async def _report_each(self, cases: Iterator[CaseResult]) -> tuple[int, int]:
        """Report cases as they are read; answers how many there are, and how many of them are bad."""
        number = bad = 0
        while batch := await asyncio.to_thread(lambda: list(islice(cases, _AT_ONCE))):
            for case in batch:
                self._collector.hear(case)
                self._reporter.result(case)
                number, bad = number + 1, bad + case.outcome.bad
        return number, bad

    def _conclude_each(self, reported: Sequence[CaseResult], whole: CaseResult, usage: ResourceUsage) -> Ended:
        """A result for each case that was given; a failure that none of them shows is one of the whole shard."""
        given = self.assignment.case_ids
        results = list(results_for(given, reported, whole))
        for result in results:
            self._collector.hear(result)
            self._reporter.result(result)
        untold = whole.outcome.bad and not any(result.outcome.bad for result in results)
        return Ended(
            verdict=Verdict.FAILED if untold else Verdict.COMPLETED,
            reason=whole.message if untold else "",
            usage=usage,
            extra=tuple(case.case_id for case in reported if case.case_id not in given)[:_MOST_EXTRA],
        )

    def _usage(self) -> ResourceUsage:
        return replace(self._running.usage(), wall_time=timedelta(seconds=time.monotonic() - self._began))

    def _failure(self, process: Process, exit_code: int) -> str:
        if process.end_reason:
            return process.end_reason
        if exit_code < 0:
            return f"the command was ended by {signal_name(-exit_code)}"
        last = next(iter(self._tail.text().splitlines()[-1:]), "")
        if exit_code == _NOT_FOUND:
            return f"command not found (exit code {exit_code}): {last}"
        if exit_code == _NOT_EXECUTABLE:
            return f"command not executable (exit code {exit_code}): {last}"
        return f"the command ended with exit code {exit_code}"

    def _result(self, outcome: Outcome, message: str, started_at: datetime) -> CaseResult:
        """Of the command as a whole."""
        return CaseResult(
            case_id=self._case_id,
            outcome=outcome,
            duration=max(timedelta(), datetime.now(UTC) - started_at),
            started_at=started_at,
            message=message,
            details=self._tail.text() if outcome.bad else "",
        )


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
