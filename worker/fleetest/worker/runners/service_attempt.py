"""One life of a service, from its start until it is stopped, or dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec.structs import replace

from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.results import CaseResult, ResourceSample, ResourceUsage
from fleetest.common.states import Outcome, Verdict
from fleetest.common.suite.durations import format_duration
from fleetest.common.tasks import Service
from fleetest.worker.artifacts import ArtifactCollector
from fleetest.worker.assignments import Assignment, Ended, Reporter
from fleetest.worker.left_files import LeftFiles
from fleetest.worker.ports import Blobs, Environment, Process
from fleetest.worker.runners.endings import signal_name
from fleetest.worker.runners.probing import look
from fleetest.worker.service_address import ServiceAddress
from fleetest.worker.tail import Tail

__all__ = ["ServiceAttempt"]

_SHELL: Final = ("/bin/sh", "-c")
_AT_ONCE: Final = timedelta()


class ServiceAttempt:
    """
    A service has no end of its own: until it is stopped it runs, and whatever ends it before has failed it.

    Attributes:
        assignment: what it was told to do.
        future: done once it has ended; never raises.
    """

    def __init__(
        self, assignment: Assignment, reporter: Reporter, environment: Environment, blobs: Blobs, _: LeftFiles
    ) -> None:
        self.assignment = assignment
        self.future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._reporter = reporter
        self._environment = environment
        self._blobs = blobs
        self._process: Process | None = None
        self._tail = Tail(MAX_RESULT_TEXT_BYTES // 2)
        self._began = time.monotonic()
        self._started_at = datetime.now(UTC)
        self._stopped = asyncio.Event()
        self._reason = ""

    async def run(self) -> Ended:
        """
        Start it, say when it is ready, and wait for its end.

        Raises:
            CapacityExceeded, DependencyUnavailable: it could not be started, through the infrastructure's doing.
        """
        service = self.assignment.spec.service
        if service is None:
            raise InvalidRequest("the task does not say how it serves")
        try:
            address = await self._environment.service_address(service)
            await self._start(address)
            problem = await self._serve(service, address)
        except InvalidRequest as error:
            return self._failed(error.message)
        finally:
            await self._end_process(_AT_ONCE)
        if self._stopped.is_set():
            ended = Ended(verdict=Verdict.CANCELLED, reason=self._reason, usage=self._usage())
        else:
            ended = self._failed(problem)
        collector = ArtifactCollector(self._blobs, self._environment.host_source, self.assignment.spec, self._reporter)
        await collector.finish(Verdict.COMPLETED)  # to be stopped is the end of a service that served well
        return ended

    @property
    def waits_for_others(self) -> bool:
        """Services start when they can."""
        return False

    async def cancel(self, reason: str, grace: timedelta) -> None:
        """End the service; the attempt ends as cancelled."""
        self._reason = reason
        self._stopped.set()
        await self._end_process(grace)

    def sample(self) -> ResourceSample | None:
        """What the service uses."""
        return self._process.sample() if self._process is not None else None

    async def _start(self, address: ServiceAddress) -> None:
        spec = self.assignment.spec
        self._process = await self._environment.start(
            (*_SHELL, spec.shell) if spec.shell else spec.command,
            env=self._variables(address),
            cwd=self._environment.source / spec.working_directory,
            output=self._write,
        )
        if self._stopped.is_set():  # while it was started
            await self._process.stop(_AT_ONCE)

    async def _serve(self, service: Service, address: ServiceAddress) -> str:
        """Answers why it serves no more."""
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        try:
            problem = await self._become_ready(service, address, ended)
            if problem:
                return problem
            self._reporter.running(self._environment.notes, address.variables(self.assignment.spec.task_id))
            return f"it {self._end(await ended)} while it was needed"
        finally:
            ended.cancel()
            await asyncio.wait([ended])

    async def _become_ready(self, service: Service, address: ServiceAddress, ended: asyncio.Future[int]) -> str:
        """Look until it is; answers why it never was."""
        probe = service.ready
        deadline = time.monotonic() + probe.timeout.total_seconds()
        while True:
            looking = asyncio.create_task(look(probe, address, lambda argv: self._run_beside(argv, address)))
            try:
                await asyncio.wait((looking, ended), return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return f"it {self._end(ended.result())} before it was ready"
                problem = looking.result()
            finally:
                looking.cancel()
                await asyncio.wait([looking])
            if not problem:
                return ""
            if time.monotonic() >= deadline:
                return f"it was not ready within {format_duration(probe.timeout)}: {problem}"
            await asyncio.wait([ended], timeout=probe.interval.total_seconds())

    async def _run_beside(self, argv: Sequence[str], address: ServiceAddress) -> tuple[int, str]:
        tail = Tail()
        code = await self._environment.run_beside(
            argv,
            env=self._variables(address),
            cwd=self._environment.source / self.assignment.spec.working_directory,
            output=tail.write,
        )
        return code, next(iter(tail.text().splitlines()[-1:]), "")

    async def _end_process(self, grace: timedelta) -> None:
        if self._process is not None:
            await self._process.stop(grace)

    def _variables(self, address: ServiceAddress) -> Mapping[str, str]:
        return {
            "FLEETEST_RUN_ID": self.assignment.ref.run_id,
            "FLEETEST_TASK": self.assignment.spec.task_id,
            **address.own_variables,
            **address.variables(self.assignment.spec.task_id),
            **self.assignment.secrets,
        }

    def _write(self, content: bytes) -> None:
        self._tail.write(content)
        self._reporter.output(content)

    def _end(self, exit_code: int) -> str:
        if self._process is not None and self._process.end_reason:
            return f"was ended ({self._process.end_reason})"
        if exit_code < 0:
            return f"was ended by {signal_name(-exit_code)}"
        return f"ended with exit code {exit_code}"

    def _usage(self) -> ResourceUsage:
        usage = self._process.usage() if self._process is not None else ResourceUsage()
        return replace(usage, wall_time=timedelta(seconds=time.monotonic() - self._began))

    def _failed(self, problem: str) -> Ended:
        """Its one result: a service that served as it should has none."""
        now = datetime.now(UTC)
        self._reporter.result(
            CaseResult(
                case_id=self.assignment.spec.task_id,
                outcome=Outcome.FAILED,
                duration=max(timedelta(), now - self._started_at),
                started_at=self._started_at,
                message=problem,
                details=self._tail.text(),
            )
        )
        return Ended(verdict=Verdict.COMPLETED, usage=self._usage())
