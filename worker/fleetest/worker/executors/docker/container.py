"""A container of ours, which outlives the processes that run in it one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Final

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, NotFound, WrongState
from fleetest.common.threads import in_thread
from fleetest.worker.container_cgroup import ContainerCgroup, find_cgroup
from fleetest.worker.executors.docker.companion import run_beside
from fleetest.worker.executors.docker.container_process import ContainerProcess
from fleetest.worker.executors.docker.engine import ContainerSpec, Engine, ExecSpec
from fleetest.worker.executors.docker.exec_watch import ExecWatch
from fleetest.worker.executors.docker.lifeline import LIFELINE, Lifeline
from fleetest.worker.executors.docker.memory_files import wipe_memory

__all__ = ["KEEPER", "Container", "keeper_user"]

KEEPER: Final = ("/bin/sh", "-c", f"read -r line < {LIFELINE}")
"""The main process: it waits for the agent's end, under the Engine's init, which collects orphans."""

_KEEPER_PIDS: Final = 2
_CLEAR_SECONDS: Final = 5.0
_NOBODY: Final = 65534
_ROOT: Final = "0:0"
_KILL_ALL: Final = ("/bin/sh", "-c", "kill -s KILL -- -1")
# Ends with another code than 0 when something is left that it cannot remove.
_WIPE: Final = (
    "/bin/sh",
    "-c",
    """\
for place in /tmp /dev/shm /dev/mqueue; do
    cd "$place" 2>/dev/null || continue
    chmod -R u+rwx . 2>/dev/null
    rm -rf -- * .[!.]* ..?*
    [ -z "$(ls -A)" ] || exit 1
done
for objects in /proc/sysvipc/*; do
    [ "$(wc -l < "$objects")" -le 1 ] || exit 1
done
""",
)
_ENDING_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 0.01


def keeper_user(user: str) -> str:
    """Who keeps the container running: another than its processes' user, so that they cannot end it."""
    number = _NOBODY if user.partition(":")[0] != str(_NOBODY) else _NOBODY - 1
    return f"{number}:{number}"


class Container:
    """
    One process (with all that it starts) at a time.

    Args:
        name: unique on the Engine.
        spec: its main process is `KEEPER`, as `keeper_user`; what `lifeline` makes is mounted at `LIFELINE`.
        user: `uid:gid` of the processes.
        lifeline: held as long as the container is wanted.
    """

    def __init__(
        self,
        engine: Engine,
        watch: ExecWatch,
        *,
        name: str,
        spec: ContainerSpec,
        user: str,
        lifeline: Lifeline,
    ) -> None:
        self.name = name
        self.spec = spec
        self._engine = engine
        self._watch = watch
        self._user = user
        self._lifeline = lifeline
        self._id = ""
        self._pid = 0
        self._cgroup: ContainerCgroup | None = None
        self._suspect = False
        self._process: ContainerProcess | None = None

    @property
    def id(self) -> str:
        """Of the Engine; empty before it is there."""
        return self._id

    @property
    def cgroup(self) -> ContainerCgroup | None:
        """Where it can be seen what it uses."""
        return self._cgroup

    @property
    def memory_limit_bytes(self) -> int:
        return self.spec.memory_bytes

    async def open(self) -> None:
        """Create and start it. Raises what `Engine.create` and `Engine.start` do."""
        await self._lifeline.open()
        self._id = await self._engine.create(self.name, self.spec)
        await self._engine.start(self._id)
        await self._find_cgroup()

    async def close(self) -> None:
        """Remove it, with all that runs in it."""
        if self._process is not None:
            self._process.abandon()
        if self._cgroup is not None:
            self._cgroup.close()
        self._lifeline.close()
        await self._engine.remove(self._id or self.name)
        self._watch.forget(self._id)

    async def run(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: PurePath, output: Callable[[bytes], None]
    ) -> ContainerProcess:
        """
        Start a process; see `Environment.start`.

        A container that was lost, or that has no room for a process any more, is started anew first.
        """
        if self._suspect:
            await self.revive()
        try:
            self._process = await ContainerProcess.start(self, argv, env=env, cwd=cwd, output=output)
        except (NotFound, WrongState, CapacityExceeded):
            await self.revive()
            self._process = await ContainerProcess.start(self, argv, env=env, cwd=cwd, output=output)
        return self._process

    async def run_beside(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: PurePath, output: Callable[[bytes], None]
    ) -> int:
        """
        Run a command beside the process, to its end; see `Environment.run_beside`.

        Raises:
            NotFound, WrongState: the container is gone, or does not run.
        """
        return await run_beside(self, argv, env=env, cwd=cwd, output=output)

    async def clear(self) -> None:
        """End all that still runs in it, except for its keeper."""
        if self._cgroup is not None and 0 < self._cgroup.read().pids <= _KEEPER_PIDS:
            return
        if await self._do(_KILL_ALL) is None:
            await self.revive()

    async def wipe(self) -> None:
        """End all that still runs, and remove what it left in memory."""
        if not await self.clean():
            await self.revive()

    async def clean(self) -> bool:
        """
        The same, but false when that cannot be done in a container that runs on.

        Raises:
            DependencyUnavailable: the Engine does not answer.
        """
        if self._suspect:
            return False
        await self.clear()
        if self._cgroup is None:
            return await self._do(_WIPE) == 0
        if not await self._has_ended(self._cgroup):
            return False
        try:
            return await in_thread(wipe_memory, self._pid)
        except OSError:  # not from here: this agent is not root
            return await self._do(_WIPE) == 0

    async def _has_ended(self, cgroup: ContainerCgroup) -> bool:
        """Whether only the keeper is left. What was killed may take a moment to be gone."""
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                while cgroup.read().pids > _KEEPER_PIDS:  # noqa: ASYNC110 - control groups ring no bell
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        except TimeoutError:
            return False
        return cgroup.read().pids > 0

    async def published_ports(self) -> Mapping[int, int]:
        """Ports of the Engine's machine by its own. Raises what `Engine.published_ports` does."""
        return await self._engine.published_ports(self._id)

    async def revive(self) -> None:
        """
        Start it anew, with empty file systems in memory; make it anew when the Engine has lost it.

        Raises:
            DependencyUnavailable: the Engine does not answer.
        """
        self._suspect = True
        try:
            await self._engine.restart(self._id)
        except NotFound:
            await self.open()
        else:
            await self._find_cgroup()
        self._suspect = False

    def lose(self) -> None:
        """The Engine went away: what runs in it, and whether it still does, is not known."""
        self._suspect = True

    async def signal(self, signal_number: int, pid: int) -> bool:
        """Send a signal to a process as the container counts it, or minus a group; false when that could not be."""
        return await self._do(("/bin/sh", "-c", f"kill -s {_signal_name(signal_number)} -- {pid}")) is not None

    async def do_as_root(self, argv: Sequence[str]) -> bool:
        """
        Run something of our own as the user who owns the image's files, with no capabilities either; answers whether it
        succeeded.
        """
        return await self._do(argv, user=_ROOT) == 0

    async def create_exec(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        user: str = "",
        attached: bool = False,
        terminal: bool = False,
    ) -> str:
        spec = ExecSpec(argv=tuple(argv), user=user or self._user, env=env, attached=attached, terminal=terminal)
        return await self._engine.create_exec(self._id, spec)

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def watch(self) -> ExecWatch:
        return self._watch

    async def _do(self, argv: Sequence[str], *, user: str = "") -> int | None:
        """Run something of our own to its end, and answer its exit code; nothing when there is no room for it."""
        with contextlib.suppress(NotFound, WrongState, DependencyUnavailable, CapacityExceeded, TimeoutError):
            exec_id = await self.create_exec(argv, {}, user=user)
            ended = self._watch.expect(exec_id)
            try:
                await self._engine.start_exec_detached(exec_id)
                async with asyncio.timeout(_CLEAR_SECONDS):
                    return await ended
            finally:
                ended.cancel()
        return None

    async def _find_cgroup(self) -> None:
        with contextlib.suppress(FleetestError):
            if self._cgroup is not None:
                self._cgroup.close()
            state = await self._engine.state(self._id)
            self._pid = state.pid
            self._cgroup = find_cgroup(self._id, state.pid) if state.pid else None


def _signal_name(number: int) -> str:
    """As `kill -s` takes it: shells know real-time signals by number only."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)
