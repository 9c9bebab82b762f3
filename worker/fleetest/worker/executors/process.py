"""
The process executor: tests run as plain processes of the worker's own user.

It isolates little: a test sees the machine, its network and its user's files. What it does give: nothing that a test
started stays behind, sources and temporary files are the test's own, and setup happens in a virtual environment.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from fleetest.common.errors import CapacityExceeded, InvalidRequest
from fleetest.common.tasks import Service
from fleetest.common.threads import in_thread
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.base_environment import base_environment, with_interpreter, with_venv
from fleetest.worker.executors.child import ChildProcess
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.executors.foreground import run_in_foreground
from fleetest.worker.executors.places import Place, Places
from fleetest.worker.executors.scratch import Scratch, remove_abandoned
from fleetest.worker.executors.setup import run_line, run_setup
from fleetest.worker.executors.setup_products import SetupProducts
from fleetest.worker.executors.shared_setups import SharedSetups
from fleetest.worker.ports import Environment, Workspaces
from fleetest.worker.service_address import LOOPBACK, ServiceAddress, address_among_processes

__all__ = ["COPIED_NOTE", "REUSED_NOTE", "ProcessEnvironment", "ProcessExecutor"]

ISOLATION_NOTE: Final = "isolation is weak: tests run as processes of this worker's user, with its files and network"
_PLAIN_SHELL: Final = "/bin/sh"
REUSED_NOTE: Final = "setup reused"
COPIED_NOTE: Final = "setup copied from another slot"
_LEAST_FREE_BYTES: Final = 64 << 20


class ProcessEnvironment:
    """Fulfils `Environment`; see there. `ProcessExecutor.prepare` makes and fills it."""

    def __init__(
        self,
        spec: TaskSpec,
        *,
        place: Place,
        places: Places,
        workspaces: Workspaces,
        python: str,
        scratch: Scratch,
        compiled_directory: Path | None,
        published_host: Callable[[], str],
    ) -> None:
        self.source = self.host_source = place.source
        self.python = python
        self.keeps_processes = True
        self.notes: tuple[str, ...] = (ISOLATION_NOTE,)
        self.channel_directory = self.host_channel_directory = scratch.channel
        self.compiled_directory = compiled_directory
        self.image = ""
        self.where = f"as processes of this machine in {place.source}"
        self.variables: Mapping[str, str] = {}
        self._spec = spec
        self._place = place
        self._places = places
        self._workspaces = workspaces
        self._scratch = scratch
        self._published_host = published_host
        self._processes: list[ChildProcess] = []

    @property
    def shell(self) -> tuple[str, ...]:
        return (self.variables.get("SHELL") or _PLAIN_SHELL,)

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Callable[[bytes], None],
    ) -> ChildProcess:
        variables = {**self.variables, **env}
        self._check_startable(argv, variables.get("PATH", os.defpath), cwd)
        process = await ChildProcess.start(
            argv, env=variables, cwd=cwd, memory_limit_bytes=self._spec.limits.memory_bytes, output=output
        )
        self._processes = [other for other in self._processes if not other.ended]
        self._processes.append(process)
        return process

    async def run_beside(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Callable[[bytes], None],
    ) -> int:
        process = await self.start(argv, env=env, cwd=cwd, output=output)
        try:
            return await process.wait()
        finally:
            await process.stop(timedelta())

    async def service_address(self, service: Service) -> ServiceAddress:
        return await address_among_processes(service, self._published_host)

    async def attach(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> int:
        return await run_in_foreground(argv, env={**self.variables, **env}, cwd=cwd)

    async def refresh(self, spec: TaskSpec) -> None:
        self._spec = spec
        with _DiskFullNamed(self.source):
            if spec.workspace_digest:
                await self._workspaces.synchronise(spec.workspace_digest, self.source)
            elif not _is_empty(self.source):
                await asyncio.to_thread(_empty, self.source)
            if spec.setup and self._place.is_set_up:
                await self.restore_setup_products()

    async def restore_setup_products(self) -> None:
        """Put what setup leaves in the source tree there. Raises OSError."""
        await asyncio.to_thread(SetupProducts(self._place.setup_products).restore, self.source)

    def is_apart_from(self, spec: TaskSpec) -> bool:  # noqa: ARG002 - whatever it is
        return False  # the machine is one, and its ports are

    async def close(self) -> None:
        for process in self._processes:
            await process.stop(timedelta())
        await asyncio.to_thread(self._scratch.remove)
        self._places.close(self._place)

    def _check_startable(self, argv: Sequence[str], path: str, cwd: Path) -> None:
        if not cwd.is_dir():
            raise InvalidRequest(
                f"the working directory {_relative(cwd, self.source)} does not exist in the workspace",
                hint="Paths of working_directory are relative to the workspace.",
            )
        name = argv[0]
        found = shutil.which(cwd / name if os.sep in name else name, path=path)
        if found is None:
            raise InvalidRequest(
                f"command not found: {name}",
                hint="It is neither in the workspace nor on the worker's PATH, or it is not executable.",
            )


class ProcessExecutor:
    """
    Fulfils `Executor`.

    Args:
        root: a directory of this worker alone; sources and virtual environments live below it.
        python: the interpreter for tasks that name none.
        setups: a directory for what slots say of their setups, best shared by the workers of one machine; absent
            means in `root`.
        compiled: what sessions keep; absent means nothing.
        pass_environment: the variables that tests inherit, filtered; absent means this process's own.
        published_host: answers under which address others reach this machine; may block.
    """

    name = "process"

    def __init__(
        self,
        root: Path,
        workspaces: Workspaces,
        *,
        python: str,
        setups: Path | None = None,
        compiled: CompiledModules | None = None,
        pass_environment: Mapping[str, str] | None = None,
        published_host: Callable[[], str] = lambda: LOOPBACK,
    ) -> None:
        self._root = root
        self._workspaces = workspaces
        self._python = python
        self._inherited = dict(os.environ if pass_environment is None else pass_environment)
        self._places = Places(root)
        self._setups = SharedSetups(setups or root / "setups")
        self._compiled = compiled
        self._published_host = published_host
        remove_abandoned()

    async def prepare(
        self, spec: TaskSpec, *, slot: int, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Environment:
        python = self._find_python(spec.python or self._python)
        compiled = await in_thread(self._compiled.open, spec.project) if self._compiled is not None else None
        with _DiskFullNamed(self._root):
            place = self._places.open(spec, slot=slot, python=python)
            self._check_free_space(spec)
            scratch = Scratch.create()
        environment = ProcessEnvironment(
            spec,
            place=place,
            places=self._places,
            workspaces=self._workspaces,
            python=python,
            scratch=scratch,
            compiled_directory=compiled,
            published_host=self._published_host,
        )
        try:
            with _DiskFullNamed(self._root):
                await self._fill(environment, spec, place, scratch, secrets, output)
        except BaseException:
            await environment.close()
            raise
        return environment

    def release_idle(self) -> None:
        """It keeps files only."""

    async def close(self) -> None:
        """Nothing to give back: environments are closed by who has them."""

    async def _fill(
        self,
        environment: ProcessEnvironment,
        spec: TaskSpec,
        place: Place,
        scratch: Scratch,
        secrets: Mapping[str, str],
        output: Callable[[bytes], None],
    ) -> None:
        await environment.refresh(spec)
        interpreter = environment.python
        if spec.setup:
            environment.python = str(place.python)
        base = base_environment(self._inherited, temporary=scratch.temporary)
        activated = with_venv(base, place.venv) if spec.setup else with_interpreter(base, interpreter)
        environment.variables = {**activated, **spec.env, **secrets}
        if place.is_set_up:
            environment.notes += (REUSED_NOTE,)
        elif spec.setup:
            async with self._setups.hold(place):
                if await self._setups.copy(place):
                    environment.notes += (COPIED_NOTE,)
                    await environment.restore_setup_products()
                else:
                    await self._set_up(environment, spec, place, interpreter, output)
                    await self._setups.offer(place)
                place.mark_set_up()  # only now that all of it has succeeded

    async def _set_up(
        self,
        environment: ProcessEnvironment,
        spec: TaskSpec,
        place: Place,
        interpreter: str,
        output: Callable[[bytes], None],
    ) -> None:
        place.forget_setup()
        make_venv = [interpreter, "-m", "venv", str(place.venv)]
        await run_line(environment, make_venv, " ".join(make_venv), cwd=place.source, output=output)
        await run_setup(environment, spec, products=SetupProducts(place.setup_products), output=output)

    def _find_python(self, python: str) -> str:
        found = shutil.which(python, path=self._inherited.get("PATH", os.defpath))
        if found is None:
            raise InvalidRequest(
                f"there is no interpreter {python} on this worker",
                hint="Name one that exists, or require the capability of a worker that has it.",
            )
        # Not resolved: the link is what makes an interpreter one of its virtual environment.
        return str(Path.cwd() / found)

    def _check_free_space(self, spec: TaskSpec) -> None:
        free = shutil.disk_usage(self._root).free
        needed = max(spec.limits.disk_bytes, _LEAST_FREE_BYTES)
        if free < needed:
            raise CapacityExceeded(
                f"the disk of {self._root} has {free >> 20} MiB free, the task needs {needed >> 20} MiB"
            )


class _DiskFullNamed:
    """A context that says of a full disk that it is one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise CapacityExceeded(f"the disk of {self._root} is full") from error


def _is_empty(directory: Path) -> bool:
    """Whether it is a directory of ours with nothing in it: a look costs less than a thread."""
    try:
        mode = os.lstat(directory).st_mode
        usable = stat.S_ISDIR(mode) and mode & stat.S_IRWXU == stat.S_IRWXU
        with os.scandir(directory) as entries:
            return usable and next(entries, None) is None
    except OSError:
        return False


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
