"""
The ports between the agent, the runners that know kinds of tests, and the executors that know where to run them.

An executor prepares an `Environment`; a runner opens a `Session` in it; the agent feeds the session attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from fleetest.common.results import Artifact, ResourceSample, ResourceUsage
    from fleetest.common.tasks import Service
    from fleetest.worker.assignments import Assignment, AttemptRef, Ended, Reporter, TaskSpec
    from fleetest.worker.ownership import Owner
    from fleetest.worker.service_address import ServiceAddress

__all__ = [
    "KILLED_THROUGH_PARENT",
    "Blobs",
    "Environment",
    "Executor",
    "Process",
    "Runner",
    "Session",
    "Workspaces",
]


class Blobs(Protocol):
    """The master's blob store as a worker sees it."""

    async def fetch(self, digests: Sequence[str]) -> None:
        """
        Bring blobs into the local cache.

        Raises:
            NotFound, CapacityExceeded, DependencyUnavailable
        """

    async def store(self, root: Path, paths: Sequence[Path]) -> tuple[Sequence[Artifact], Sequence[str]]:
        """Upload files; answers them with paths relative to `root`, and problems with those that could not be."""


class Workspaces(Protocol):
    """Puts a workspace's files into a directory."""

    async def synchronise(
        self, workspace_digest: str, target: Path, *, owner: Owner | None = None, shown_by: Path | None = None
    ) -> None:
        """
        Make `target` hold exactly the workspace's files, as copies that a test may write to. No digest means no files.

        Files that are right already stay as they are; what does not belong is removed.

        Args:
            owner: whose files and directories they are to be; absent means the agent's own.
            shown_by: an earlier target, whose files this one shows as long as nobody writes to it (an overlay).

        Raises:
            NotFound: the master does not know the workspace.
            CapacityExceeded: the disk is full.
            DependencyUnavailable: the master does not answer.
        """

    async def forget(self, target: Path) -> None:
        """The target will not be used again."""


KILLED_THROUGH_PARENT: Final = "the test's process was killed through its parent"
"""The `end_reason` of a process whose parent was killed: by a test, as nobody else would."""


class Process(Protocol):
    """
    A process (and all it started) in an environment.

    Args:
        pid: of the main process.
        end_reason: why it ended, when the executor knows a cause outside of itself: its memory limit, a killed
            parent. Empty otherwise, and while it runs.
    """

    pid: int
    end_reason: str

    async def wait(self) -> int:
        """
        Its exit code; minus the signal's number when a signal ended it. Its whole tree is gone by then.

        Raises:
            DependencyUnavailable: the executor lost it, and nobody knows what became of it.
        """

    async def stop(self, grace: timedelta) -> None:
        """Ask it to end (SIGTERM), end it and all it started (SIGKILL) when the grace has passed. Never raises."""

    def interrupt(self, signal_number: int) -> None:
        """Send a signal to the main process only; nothing happens when it is gone."""

    def read_later(self, pause: timedelta) -> None:
        """Nobody needs its output before so much time has passed, or it has ended; what it writes may wait."""

    def sample(self) -> ResourceSample:
        """What its tree used since the sample before."""

    def usage(self) -> ResourceUsage:
        """Totals so far."""


class Environment(Protocol):
    """
    A prepared place to run: workspace present, setup done.

    Args:
        source: the workspace, as processes in the environment see it.
        host_source: the same directory as this agent sees it.
        python: the interpreter to run tests with.
        notes: for people: what was reused, how strong the isolation is.
        where: for people: what and where it is.
        image: the digest of the image that it was made of; empty when it was made of none.
        channel_directory: a private directory for sockets, plugin files and dumps, as processes see it. Empty at first.
        keeps_processes: whether processes live on through a `refresh`, and see what that puts in place.
        host_channel_directory: the same directory as this agent sees it. What lies above it keeps strangers out, so
            what is in it may be open to everybody: processes in the environment may be another user's.
        compiled_directory: where sessions keep what modules were compiled to, as processes see it; absent where they
            keep nothing.
    """

    source: Path
    host_source: Path
    python: str
    notes: tuple[str, ...]
    where: str
    image: str
    channel_directory: Path
    host_channel_directory: Path
    compiled_directory: Path | None
    keeps_processes: bool

    @property
    def shell(self) -> tuple[str, ...]:
        """How a shell is started there, for people."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Callable[[bytes], None],
    ) -> Process:
        """
        Start a process; `output` gets its standard output and error, interleaved, as they come.

        Raises:
            InvalidRequest: the command does not exist there; the message names it.
            CapacityExceeded, DependencyUnavailable
        """

    async def run_beside(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Callable[[bytes], None],
    ) -> int:
        """
        Run a short command to its end, beside the process that was started last, which goes on; answers the exit code.
        Cancelled, it ends the command.

        Raises:
            InvalidRequest, CapacityExceeded, DependencyUnavailable: as for `start`.
        """

    async def service_address(self, service: Service) -> ServiceAddress:
        """
        Where a service that is started here is to listen, and where it is found then.

        Raises:
            InvalidRequest: a port that it asks for cannot be had; the message names it.
            DependencyUnavailable
        """

    async def attach(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> int:
        """
        Run a command in the foreground of this agent's own process: its terminal, or whatever its standard streams are,
        belong to the command meanwhile. Answers the exit code, 128 and the signal's number when a signal ended it; a
        command that does not exist, or cannot be executed, ends with 127 or 126 and says so, as in a shell.

        To be called from the main thread. Whatever it started is gone when the environment is closed.

        Raises:
            CapacityExceeded, DependencyUnavailable
        """

    def is_apart_from(self, spec: TaskSpec) -> bool:
        """Whether a task's environment can be prepared and used while this one is being closed: they share nothing."""

    async def refresh(self, spec: TaskSpec) -> None:
        """Bring the workspace back to its pristine files before the next session."""

    async def close(self) -> None:
        """Give back what it holds; stops what still runs."""


class Executor(Protocol):
    """Knows one way to run things: as processes, in containers."""

    name: str

    async def prepare(
        self, spec: TaskSpec, *, slot: int, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Environment:
        """
        Workspace, then setup, whose output goes to `output`.

        Raises:
            SetupFailed: a line of `setup` failed; the message holds it and its exit code.
            NotFound, CapacityExceeded, DependencyUnavailable
        """

    def release_idle(self) -> None:
        """Give back what is kept for later, soon: memory is short."""

    async def close(self) -> None: ...


class Session(Protocol):
    """
    A place where attempts of equal `environment_key` run one after the other, perhaps in one resident process.

    A session may hold its last case back until it knows what comes next: `submit` more, or `flush`.
    """

    environment_key: str

    def submit(self, assignment: Assignment, reporter: Reporter) -> asyncio.Future[Ended]:
        """Queue an attempt behind those that the session has. The future never raises."""

    def expect(self, run_id: str) -> None:
        """An attempt of this run is likely to come: begin what it will need, where that is harmless if none does."""

    def flush(self) -> None:
        """Nothing more is known to come: finish what is held back. Harmless at any time."""

    @property
    def backlog(self) -> int:
        """How many cases, or commands, it has not started yet, a held-back one included."""

    def on_hungry(self, callback: Callable[[], None]) -> None:
        """`callback` is called when an attempt is under way and it would help to know what comes next."""

    @property
    def ahead(self) -> int:
        """How many more attempts than one may come at once: as long as they are short, none waits here for long."""

    def hand_back(self, ref: AttemptRef, case_ids: Sequence[str]) -> None:
        """
        Others could run these cases now: give up those of the attempt that have not been started, and tell its reporter
        which. An attempt of which nothing is left ends as completed. One that is not here has ended already.
        """

    async def stop(self, ref: AttemptRef, *, reason: str, grace: timedelta, finish_running_case: bool) -> None:
        """End one attempt as cancelled; its future is done when this returns."""

    def sample(self) -> ResourceSample | None: ...

    async def close(self) -> None:
        """End the session in order (session fixtures are torn down), within a grace."""


class Runner(Protocol):
    """Knows one type of task."""

    type: str

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        """Start a session. Its process may start with the first attempt."""

    async def leave(self, environment: Environment) -> None:
        """The environment is about to be closed: end what is kept ready in it. Never raises."""
