"""One resident pytest process: started, spoken with and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from fleetest.common.digest import digest_of
from fleetest.common.errors import DependencyUnavailable
from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.regular_files import open_beneath
from fleetest.common.results import CaseResult, PlannedCase
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import KILLED_THROUGH_PARENT, Environment, Process
from fleetest.worker.runners.endings import ending_of
from fleetest.worker.runners.output_fence import OutputFence
from fleetest.worker.runners.pytest_channel import Channel, case_result, fingerprints, planned_cases
from fleetest.worker.runners.pytest_claims import Claims
from fleetest.worker.runners.pytest_coverage import Measured
from fleetest.worker.tail import Tail

__all__ = ["Collection", "Conditions", "Resident", "resident_key"]

_FILES: Final = Path(__file__).parent.parent / "resident"
_DRAIN: Final = timedelta(seconds=2)
_END_GRACE: Final = timedelta(seconds=10)
_MEASURED_GRACE: Final = timedelta(seconds=60)  # what it has measured is lost with it
_STACKS_WAIT_SECONDS: Final = 2.0
_STACKS_POLL_SECONDS: Final = 0.05
_LOST_AFTER_SECONDS: Final = 1.0
_TAIL_BYTES: Final = 16 << 10
_OPEN_DIRECTORY: Final = 0o777
_OPEN_FILE: Final = 0o644
# A real-time signal, because tests use the others themselves.
_DUMP_SIGNAL: Final = (signal.SIGRTMAX - 4) if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
_HASH_SEED: Final = "PYTHONHASHSEED"
_HASH_SEEDS: Final = (1 << 32) - 1

_CLAIMS: Final = "claims"

Key = tuple[str, TaskSpec]


@dataclass(slots=True, kw_only=True)
class Collection:
    """
    What the process collected.

    Args:
        skipped: modules that skip themselves, by id.
        keep_going: whether cases run in spite of errors (`--continue-on-collection-errors`).
        fingerprints: by file, what the results of its cases depend on; those that it was asked for.
        problem: why there are no fingerprints.
    """

    cases: dict[str, PlannedCase] = field(default_factory=dict)
    skipped: dict[str, CaseResult] = field(default_factory=dict)
    errors: list[CaseResult] = field(default_factory=list)
    deselected: int = 0
    keep_going: bool = False
    complete: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    def take(self, message: Mapping[str, Any]) -> None:
        """
        Add what a message of the collection says.

        Raises:
            ValueError: the message is malformed.
        """
        match message["event"]:
            case "collected":
                self.cases.update((case.case_id, case) for case in planned_cases(message))
            case "collect_error":
                self.errors.append(case_result(message))
            case "collect_skip":
                result = case_result(message)
                self.skipped[result.case_id] = result
            case "fingerprints":
                self.fingerprints = fingerprints(message)
                self.problem = str(message["problem"])
            case "ready":
                self.deselected = int(message.get("deselected", 0))
                self.keep_going = bool(message.get("keep_going"))
                self.complete = True

    def planned(self) -> list[PlannedCase]:
        """What would run: pytest runs nothing when something could not be collected, unless it is told to."""
        if self.errors and not self.keep_going:
            return []
        skipped = [PlannedCase(case_id=id_, file=result.file) for id_, result in self.skipped.items()]
        return [*self.cases.values(), *skipped]


def resident_key(run_id: str, spec: TaskSpec) -> Key:
    """Attempts of equal keys may share a process: a run never sees what another run's tests left in memory."""
    return run_id, spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """
    What a process takes from its start alone, and cannot be told later.

    Args:
        directory: where it is.
        variables: the environment variables that the interpreter itself reads.
    """

    directory: Path
    variables: Mapping[str, str]
    memory_bytes: int

    @classmethod
    def of(cls, environment: Environment, spec: TaskSpec, day: str) -> Conditions:
        """
        Args:
            day: of the run. Ids and order of cases that come from sets must be the same in all sessions of a run, and
                should not be the same for ever.
        """
        seed = int(digest_of(f"{spec.project} {day}".encode())[:15], 16) % _HASH_SEEDS + 1
        return cls(
            directory=environment.source / spec.working_directory,
            variables={} if _HASH_SEED in spec.env else {_HASH_SEED: str(seed)},
            memory_bytes=spec.limits.memory_bytes,
        )


class Resident:
    """
    A pytest process that collects once and then runs what it is told.

    Args:
        on_message: gets what the process says of cases.
        on_gone: called once, when the process has ended and all that it said has been delivered; with its exit code, or
            with the error that tells why nobody knows how it ended.

    Attributes:
        stopped: kind and reason, once pytest has said that it will run nothing more.
        finished: how many cases it has finished.
        flushed: whether it knows that nothing comes after what it has.
        has_waited: whether it waited for its run, and has said nothing since that began.
        measured: of coverage; `None` when nothing is measured.
    """

    def __init__(
        self,
        key: Key,
        *,
        on_message: Callable[[Resident, Mapping[str, Any]], None],
        on_gone: Callable[[Resident, int | DependencyUnavailable], None],
    ) -> None:
        self.key = key
        self.collection = Collection()
        self.stopped: tuple[str, str] | None = None
        self.finished = 0
        self.flushed = False
        self.has_waited = False
        self.measured: Measured | None = None
        self._on_message = on_message
        self._on_gone = on_gone
        self._broken = ""
        self._lost: asyncio.TimerHandle | None = None
        self._tail = Tail(_TAIL_BYTES)
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._claims: Claims | None = None
        self._output: Callable[[bytes], None] = _nowhere
        self._directory = Path()
        self._watch: asyncio.Task[None] | None = None

    async def start(
        self,
        environment: Environment,
        output: Callable[[bytes], None],
        *,
        conditions: Conditions,
        waits: bool,
        fingerprints: bool = False,
    ) -> None:
        """
        Start the process.

        Args:
            conditions: as `Conditions.of` has them for the key.
            waits: whether it waits for `begin` when it has imported pytest, and says so (``waiting``).
            fingerprints: whether it shall find out what its results depend on.

        Raises:
            InvalidRequest, CapacityExceeded, DependencyUnavailable: as `Environment.start` does.
        """
        run_id, spec = self.key
        self._directory = await asyncio.to_thread(_install, environment.host_channel_directory)
        seen = environment.channel_directory / self._directory.name  # as the process sees it
        token, mark = secrets.token_hex(16), secrets.token_hex(8)
        self._output = output

        def write(content: bytes) -> None:
            self._tail.write(content)
            self._output(content)

        fence = OutputFence(mark, on_output=write, on_message=self._hear)
        self._channel = Channel(
            self._directory / "s",
            token=token,
            on_message=fence.say,
            on_garbage=self.hang_up,
            on_ended=self._expect_end,
        )
        self._channel.listen()
        self._claims = Claims(self._directory / _CLAIMS)
        if spec.coverage is not None:
            self.measured = Measured(environment, spec.coverage)
            await asyncio.to_thread(self.measured.prepare)
        config = self._directory / "config.json"
        content = {
            **_own_config(seen, token, mark),
            **_config(environment, spec, seen, fingerprints=fingerprints),
            "coverage": self.measured.config() if self.measured is not None else None,
            "compiled": str(environment.compiled_directory or ""),
            "waits": waits,
        }
        config.write_text(json.dumps(content), encoding="utf-8")
        config.chmod(_OPEN_FILE)
        try:
            self._process = await environment.start(
                [environment.python, str(seen / "launch.py"), str(seen / config.name)],
                env={**_variables(run_id, spec), **conditions.variables},
                cwd=conditions.directory,
                output=fence.write,
            )
        except BaseException:
            await self._channel.close()
            self._claims.close()
            raise
        self._watch = asyncio.create_task(self._wait(fence))

    def begin(
        self,
        key: Key,
        environment: Environment,
        output: Callable[[bytes], None],
        *,
        on_message: Callable[[Resident, Mapping[str, Any]], None],
        on_gone: Callable[[Resident, int | DependencyUnavailable], None],
        fingerprints: bool = False,
    ) -> None:
        """Let a process that waits go on as one that is started with `key` does."""
        self.key = key
        self.has_waited = True
        self._output, self._on_message, self._on_gone = output, on_message, on_gone
        run_id, spec = key
        seen = environment.channel_directory / self._directory.name
        begin = {
            "config": _config(environment, spec, seen, fingerprints=fingerprints),
            "environ": _variables(run_id, spec),
            "directory": str(environment.source / spec.working_directory),
        }
        self._send({"begin": begin})

    @property
    def process(self) -> Process | None:
        return self._process

    @property
    def killed_through_parent(self) -> bool:
        """Whether a test killed it so; death comes a moment later, when the next case may have begun."""
        return self._process is not None and self._process.end_reason == KILLED_THROUGH_PARENT

    def run(self, case_ids: Sequence[str]) -> None:
        if self._claims is not None:
            self._claims.tell(case_ids)
        self._send({"run": list(case_ids)})
        self.flushed = False

    def take_back(self, case_ids: Sequence[str]) -> Sequence[str]:
        """Keep it from running these; answers those that it has not begun, and never will."""
        taken = self._claims.take_back(case_ids) if self._claims is not None else {}
        if taken:
            self._send({"drop": list(taken.values())})
        return tuple(taken)

    def read_later(self, pause: timedelta) -> None:
        """Read nothing of what it says and writes for so long: to be woken up for a word costs more than the word."""
        if self._channel is not None and self._process is not None:
            self._channel.read_later(pause)
            self._process.read_later(pause)

    def flush(self) -> None:
        self._send({"flush": True})
        self.flushed = True

    def clear(self) -> None:
        self._send({"clear": True})

    def explain(self, exit_code: int) -> str:
        """Why the process ended, in one line."""
        reason = self._process.end_reason if self._process is not None else ""
        if self.stopped is not None:
            reason = reason or self.stopped[1]
        if exit_code == -signal.SIGKILL:  # we may have sent it
            reason = reason or self._broken
        return reason or ending_of(exit_code, self._tail.text(), collected=self.collection.complete)

    def tail(self) -> str:
        """The end of its output."""
        return self._tail.text()

    async def stacks(self) -> str:
        """The stacks of its threads, as faulthandler writes them; empty when it cannot say."""
        if self._process is None:
            return ""
        self._process.interrupt(_DUMP_SIGNAL)
        deadline = asyncio.get_running_loop().time() + _STACKS_WAIT_SECONDS
        seen = ""
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_STACKS_POLL_SECONDS)
            before, seen = seen, await asyncio.to_thread(_read_stacks, self._directory)
            if seen and seen == before:
                break
        return seen

    async def end(self) -> None:
        """Let it tear down its fixtures and end, after the case that runs; end it when that takes too long."""
        self._send({"clear": True})
        self._send({"end": True})
        if self._watch is not None:
            grace = _END_GRACE if self.measured is None else _MEASURED_GRACE
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._watch), grace.total_seconds())
        await self.stop(timedelta())

    async def stop(self, grace: timedelta) -> None:
        """End it and all it started."""
        if self._process is not None:
            await self._process.stop(grace)
        if self._watch is not None:
            await self._watch

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message["event"] != "measured" or self.measured is None:
            self._on_message(self, message)
            return
        try:  # whoever has ended the process listens no more, and this it says last
            self.measured.take(message)
        except ValueError as error:
            self.hang_up(f"the session said what makes no sense: {error}")

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def hang_up(self, reason: str) -> None:
        """End it, because it cannot be spoken with any more."""
        self._broken = self._broken or reason
        if self._process is not None:
            self._process.interrupt(signal.SIGKILL)

    def _expect_end(self) -> None:
        """A process whose line has ended ends too; one that does not has lost it."""
        reason = "a test closed the descriptor over which its session reports"
        self._lost = asyncio.get_running_loop().call_later(_LOST_AFTER_SECONDS, self.hang_up, reason)

    async def _wait(self, fence: OutputFence) -> None:
        assert self._process is not None
        assert self._channel is not None
        assert self._claims is not None
        ending: int | DependencyUnavailable
        try:
            ending = await self._process.wait()
        except DependencyUnavailable as error:
            ending = error
        if self._lost is not None:
            self._lost.cancel()
        await self._channel.drain(_DRAIN)
        await self._channel.close()
        fence.end()
        self._claims.close()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        if self.measured is not None:
            self.measured.end()
        self._on_gone(self, ending)


def _own_config(directory: Path, token: str, mark: str) -> Mapping[str, Any]:
    """What a process must know of itself; `directory` is its own, as it sees it."""
    return {
        "socket": str(directory / "s"),
        "token": token,
        "mark": mark,
        "claims_file": str(directory / _CLAIMS),
        "dump_file": str(directory / "stacks"),
        "dump_signal": int(_DUMP_SIGNAL),
        "text_limit_bytes": MAX_RESULT_TEXT_BYTES,
    }


def _config(environment: Environment, spec: TaskSpec, directory: Path, *, fingerprints: bool) -> Mapping[str, Any]:
    """What it must know of its task."""
    # A cache of its own, so that `--lf` and its like select the same in every session of a run.
    cache = ["-o", f"cache_dir={directory / 'cache'}"]
    return {
        "workspace": str(environment.source),
        "seed": spec.random_seed,
        "own_hash_seed": _HASH_SEED in spec.env,
        "arguments": [*cache, *spec.command],
        "fingerprints": fingerprints,
        "cache_inputs": list(spec.cache_inputs) if spec.fingerprints else None,
    }


def _nowhere(_: bytes) -> None:
    """Nobody reads it."""


def _install(channel_directory: Path) -> Path:
    """
    Put the session's files where its interpreter sees them, in a directory of this process alone.

    It runs as the environment's user, who may be another than ours, and writes there too.
    """
    number = 0
    while True:
        directory = channel_directory / str(number)
        try:
            directory.mkdir()
            directory.chmod(_OPEN_DIRECTORY)
            break
        except FileExistsError:
            number += 1
    for path in _FILES.glob("*.py"):
        (directory / path.name).write_bytes(path.read_bytes())
        (directory / path.name).chmod(_OPEN_FILE)
    return directory


def _variables(run_id: str, spec: TaskSpec) -> Mapping[str, str]:
    return {"FLEETEST_RUN_ID": run_id, "FLEETEST_TASK": spec.task_id}


def _read_stacks(directory: Path) -> str:
    """The end of what the session wrote there, unless a test has put something else in its place."""
    try:
        descriptor = open_beneath(directory.parent, f"{directory.name}/stacks")
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(max(0, os.fstat(descriptor).st_size - MAX_RESULT_TEXT_BYTES // 2))
        return file.read(MAX_RESULT_TEXT_BYTES // 2).decode(errors="backslashreplace")
