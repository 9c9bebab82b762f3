"""One generator of a load test, from its start to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace

from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.results import CaseResult, ResourceSample, ResourceUsage
from fleetest.common.states import Outcome, Verdict
from fleetest.common.suite.durations import format_duration
from fleetest.worker.artifacts import ArtifactCollector
from fleetest.worker.assignments import Assignment, Ended, Reporter
from fleetest.worker.left_files import LeftFiles
from fleetest.worker.ports import Blobs, Environment
from fleetest.worker.runners.endings import signal_name
from fleetest.worker.runners.load_generator import LoadGenerator
from fleetest.worker.tail import Tail

__all__ = ["LoadAttempt"]

_TIMEOUT_GRACE: Final = timedelta(seconds=5)
_AT_ONCE: Final = timedelta()


class LoadAttempt:
    """
    The generator is made ready before its gang begins, so that all of them really begin together. What it measures
    goes to the master, which makes the cases; of its own it has a result only when it breaks.

    Attributes:
        assignment: what it was told to do.
        future: done once it has ended; never raises.
    """

    def __init__(
        self, assignment: Assignment, reporter: Reporter, environment: Environment, blobs: Blobs, left: LeftFiles
    ) -> None:
        self.assignment = assignment
        self.future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._reporter = reporter
        self._environment = environment
        self._tail = Tail(MAX_RESULT_TEXT_BYTES // 2)
        self._generator = LoadGenerator(environment, on_sample=reporter.loaded, output=self._write)
        self._collector = ArtifactCollector(blobs, environment.host_source, assignment.spec, reporter, left=left)
        self._waiting: asyncio.Future[None] | None = None
        self._began = time.monotonic()
        self._cancelled: str | None = None

    async def run(self) -> Ended:
        """
        Start the generator, wait for the others, and let it run to the end of the schedule.

        Raises:
            CapacityExceeded, DependencyUnavailable: it could not be started, through the infrastructure's doing.
        """
        try:
            await self._generator.start(
                self.assignment.spec,
                index=self.assignment.shard_index,
                count=self.assignment.shard_count,
                variables=self._variables(),
            )
            if self._cancelled is not None:  # while it was started
                await self._generator.stop(_AT_ONCE)
            ended = await self._become_ready() or await self._begin_with_the_others() or await self._generate()
        except InvalidRequest as error:
            return Ended(verdict=Verdict.FAILED, reason=f"the generator: {error}")
        finally:
            await self._collector.stop()
            await self._generator.close()
        await self._collector.finish(ended.verdict)
        return ended

    @property
    def waits_for_others(self) -> bool:
        """Whether it makes no load yet, since its gang has not begun."""
        return self._waiting is not None

    async def cancel(self, reason: str, grace: timedelta) -> None:
        """Make no more load; the attempt ends as cancelled, with all that was measured so far told."""
        self._cancelled = reason
        if self._waiting is not None:
            self._waiting.cancel()
        await self._generator.stop(grace)

    def sample(self) -> ResourceSample | None:
        """What the generator uses."""
        process = self._generator.process
        return process.sample() if process is not None else None

    async def _become_ready(self) -> Ended | None:
        """Answers how it ended when it never was."""
        await _first_of(self._generator.ready.wait(), self._generator.ended())
        if self._cancelled is not None:
            return self._end(Verdict.CANCELLED, self._cancelled)
        if self._generator.ready.is_set():
            return None
        problem, written = self._generator.problem, self._tail.text()
        if not problem:
            last = next(iter(written.splitlines()[-1:]), "no output")
            problem = f"it {self._ending(await self._generator.ended())} before it was ready: {last}"
        return self._end(Verdict.FAILED, f"the generator: {problem}" + (f"\n{written}" if written else ""))

    async def _begin_with_the_others(self) -> Ended | None:
        """Wait until all generators begin; answers how it ended when that never came."""
        self._reporter.running(self._environment.notes)
        start = self._waiting = asyncio.ensure_future(self._reporter.common_start())
        await asyncio.wait([start])
        self._waiting = None
        if start.cancelled() or self._cancelled is not None:
            return self._end(Verdict.CANCELLED, self._cancelled or "")
        if isinstance(start.exception(), TimeoutError):
            limit = self.assignment.spec.start_timeout
            return self._end(Verdict.TIMED_OUT, f"start: the other generators were not ready within {limit}")
        start.result()
        return None

    async def _generate(self) -> Ended:
        self._began = time.monotonic()
        started_at = datetime.now(UTC)
        self._collector.watch()
        self._generator.begin()
        limit = self.assignment.spec.total_timeout
        try:
            async with asyncio.timeout(None if limit is None else limit.total_seconds()):
                code = await self._generator.ended()
        except TimeoutError:
            assert limit is not None
            await self._generator.stop(_TIMEOUT_GRACE)
            await self._generator.ended()
            reason = f"the total limit of {format_duration(limit)} has passed: a longer schedule needs a longer one"
            return self._end(Verdict.TIMED_OUT, reason)
        if self._cancelled is not None:
            return self._end(Verdict.CANCELLED, self._cancelled)
        if code != 0 or not self._generator.told_all:
            self._reporter.result(self._failed(code, started_at))
        return self._end(Verdict.COMPLETED)

    def _failed(self, code: int, started_at: datetime) -> CaseResult:
        assignment = self.assignment
        problem = self._generator.problem or f"it {self._ending(code)} before the end of the schedule"
        return CaseResult(
            case_id=f"generators::{assignment.shard_index + 1} of {assignment.shard_count}",
            outcome=Outcome.FAILED,
            duration=max(timedelta(), datetime.now(UTC) - started_at),
            started_at=started_at,
            message=problem,
            details=self._tail.text(),
        )

    def _ending(self, code: int) -> str:
        process = self._generator.process
        if process is not None and process.end_reason:
            return f"was ended ({process.end_reason})"
        return f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"

    def _variables(self) -> Mapping[str, str]:
        assignment = self.assignment
        return {
            "FLEETEST_RUN_ID": assignment.ref.run_id,
            "FLEETEST_TASK": assignment.spec.task_id,
            **assignment.secrets,
        }

    def _write(self, content: bytes) -> None:
        self._tail.write(content)
        self._reporter.output(content)

    def _end(self, verdict: Verdict, reason: str = "") -> Ended:
        process = self._generator.process
        usage = process.usage() if process is not None else ResourceUsage()
        wall_time = timedelta(seconds=time.monotonic() - self._began)
        return Ended(verdict=verdict, reason=reason, usage=replace(usage, wall_time=wall_time))


async def _first_of(*work: Coroutine[Any, Any, Any]) -> None:
    """Returns when one of them is done; the others are ended."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
