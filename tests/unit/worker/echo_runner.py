"""A small runner and executor that play cases back, for tests of the agent: a case's id says what becomes of it."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleetest.common.results import CaseResult, ResourceSample
from fleetest.common.states import Outcome, Verdict
from fleetest.worker.assignments import Ended


class EchoEnvironment:
    source = host_source = channel_directory = host_channel_directory = Path("/nowhere")
    compiled_directory = None
    keeps_processes = False
    python = sys.executable
    notes = ("echo",)
    image = ""

    def __init__(self, executor, spec):
        self.executor = executor
        self.spec = spec

    def is_apart_from(self, spec):
        return self.executor.apart

    async def refresh(self, spec):
        self.executor.log.append(("refresh", spec.environment_key))

    async def close(self):
        await self.executor.closable.wait()
        self.executor.log.append(("close", self.spec.environment_key))


class EchoExecutor:
    """
    Its log holds what happened to environments, in order. `failure` is raised by the next preparations; environments are
    `apart` from one another or not.
    """

    name = "process"

    def __init__(self):
        self.log = []
        self.failure = None
        self.apart = False
        self.ready, self.closable = asyncio.Event(), asyncio.Event()
        self.ready.set()
        self.closable.set()

    async def prepare(self, spec, *, slot, secrets, output):
        self.log.append(("prepare", spec.environment_key))
        output(b"preparing\n")
        await self.ready.wait()
        if self.failure is not None:
            raise self.failure
        return EchoEnvironment(self, spec)

    async def close(self):
        pass


class EchoRunner:
    """
    Case `pass` and the like pass, `fail` fails, `wait-NAME` passes once `gate(NAME)` is set, `silent` never ends and never starts
    its attempt, `secret` puts the attempt's secrets into all that it says.
    """

    type = "echo"

    def __init__(self):
        self.sessions = []
        self.gates = {}
        self.ahead = 0
        self.ran = asyncio.Event()

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    async def open(self, spec, environment):
        session = EchoSession(self, spec, environment)
        self.sessions.append(session)
        return session

    async def leave(self, environment):
        pass


class EchoSession:
    """Holds the last case back until it knows what comes next, as the resident pytest session does."""

    def __init__(self, runner, spec, environment):
        self.environment_key = spec.environment_key
        self.runner = runner
        self.environment = environment
        self.flushes = 0
        self._flushed = False
        self.closed = False
        self._todo = deque()
        self._running = None
        self._callbacks = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._play())

    def submit(self, assignment, reporter):
        future = asyncio.get_running_loop().create_future()
        self._flushed = False
        self._todo.extend((assignment, reporter, future, case) for case in assignment.case_ids)
        self._changed.set()
        self._tell()
        return future

    def expect(self, run_id):
        self.expected = run_id

    def hand_back(self, ref, case_ids):
        mine = [item for item in self._todo if item[0].ref == ref]
        for item in mine:
            self._todo.remove(item)
            item[1].handed_back([item[3]])
            item[2].set_result(Ended(verdict=Verdict.COMPLETED))

    def flush(self):
        self.flushes += 1
        self._flushed = True
        self._changed.set()

    @property
    def backlog(self):
        return len(self._todo)

    @property
    def ahead(self):
        return self.runner.ahead

    def on_hungry(self, callback):
        self._callbacks.append(callback)

    async def stop(self, ref, *, reason, grace, finish_running_case):
        mine = [item for item in self._todo if item[0].ref == ref]
        for item in mine:
            self._todo.remove(item)
        running = self._running
        if running is not None and running[0].ref == ref:
            mine.append(running)
            if finish_running_case:
                await asyncio.wait({running[2]})
                return
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._running = None
            self._task = asyncio.create_task(self._play())
        if mine and not mine[0][2].done():
            mine[0][2].set_result(Ended(verdict=Verdict.CANCELLED, reason=reason))

    def sample(self):
        return ResourceSample(at=datetime.now(UTC), cpu_cores=0.5, memory_bytes=1000)

    async def close(self):
        self.closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for *_, future, _case in [*self._todo, *([self._running] if self._running else [])]:
            if not future.done():
                future.set_result(Ended(verdict=Verdict.CANCELLED, reason="closed"))

    async def _play(self):
        while True:
            while not self._todo or (len(self._todo) == 1 and not self._flushed):
                self._changed.clear()
                await self._changed.wait()
            self._running = self._todo.popleft()
            self._tell()
            await self._play_case(*self._running)
            self._running = None

    async def _play_case(self, assignment, reporter, future, case):
        if case == "silent":
            await asyncio.Event().wait()
        reporter.running(["echo"])
        if case.startswith("wait-"):
            self.runner.ran.set()
            await self.runner.gate(case.removeprefix("wait-")).wait()
        message = ""
        if case == "secret":
            message = " ".join(assignment.secrets.values())
            reporter.output(message.encode())
        outcome = Outcome.FAILED if case == "fail" else Outcome.PASSED
        reporter.result(CaseResult(case_id=case, outcome=outcome, duration=timedelta(seconds=1), message=message))
        if not any(item[2] is future for item in self._todo):
            future.set_result(Ended(verdict=Verdict.COMPLETED))

    def _tell(self):
        if len(self._todo) <= 1:
            for callback in self._callbacks:
                asyncio.get_running_loop().call_soon(callback)
