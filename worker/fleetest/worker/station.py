"""What a slot holds open: an environment, and a session in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from fleetest.common.errors import DependencyUnavailable, FleetestError, InvalidRequest
from fleetest.common.states import Verdict
from fleetest.worker.assignments import Ended, TaskSpec
from fleetest.worker.ports import Environment, Executor, Runner, Session

__all__ = ["Station"]

_log = structlog.stdlib.get_logger()


class Station:
    """
    Opens and closes what attempts need. One caller at a time.

    Attributes:
        session: the open one, if any.
        environment_key: of the open environment; empty when there is none.
    """

    def __init__(
        self,
        slot: int,
        *,
        executors: Mapping[str, Executor],
        runners: Mapping[str, Runner],
        on_hungry: Callable[[], None],
    ) -> None:
        self.session: Session | None = None
        self.environment_key = ""
        self._slot = slot
        self._executors = executors
        self._runners = runners
        self._on_hungry = on_hungry
        self._environment: Environment | None = None
        self._spec: TaskSpec | None = None
        self._run_id = ""
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def run_network(self) -> str:
        """Which run's network the open environment is in; empty: none."""
        return self._spec.run_network if self._environment is not None and self._spec is not None else ""

    def session_for(self, run_id: str, spec: TaskSpec) -> Session | None:
        """
        The open session, if it may take attempts of this run and task. Runs do not share one: what a run's tests did to
        the workspace is no business of the next.
        """
        return self.session if self.environment_key == spec.environment_key and self._run_id == run_id else None

    async def open(
        self, run_id: str, spec: TaskSpec, *, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Ended | None:
        """Open what an attempt needs; answers the attempt's end when that fails. Close after a failure."""
        try:
            environment = await self._environment_for(spec, secrets, output)
            self.session = await self._runner(spec).open(spec, environment)
        except InvalidRequest as error:  # a failed setup, a missing interpreter: the same on every worker
            return Ended(verdict=Verdict.FAILED, reason=str(error))
        except FleetestError as error:
            return Ended(verdict=Verdict.ERRORED, reason=str(error))
        except Exception as error:  # noqa: BLE001 - one attempt must not take the slot with it
            _log.exception("environment_failed", task_id=spec.task_id, run_id=run_id)
            return Ended(verdict=Verdict.ERRORED, reason=f"the worker failed: {type(error).__name__}: {error}")
        self.session.on_hungry(self._on_hungry)
        self._run_id = run_id
        return None

    async def close(self) -> None:
        """Close session and environment. Harmless when there is none; what goes wrong is logged."""
        self._let_go()
        while self._closing:
            await asyncio.wait(self._closing)

    def _let_go(self) -> None:
        """Begin to close session and environment."""
        session, self.session = self.session, None
        environment, self._environment, self.environment_key = self._environment, None, ""
        closing = asyncio.create_task(self._close(session, environment), name=f"closing-{self._slot}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, session: Session | None, environment: Environment | None) -> None:
        await self._close_session(session)
        if environment is not None:
            try:
                for runner in self._runners.values():
                    await runner.leave(environment)
                await environment.close()
            except Exception:  # noqa: BLE001 - nobody is left to tell
                _log.exception("environment_close_failed", slot=self._slot)

    async def _environment_for(
        self, spec: TaskSpec, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Environment:
        if self._environment is not None and self._fits(spec, self._environment):
            session, self.session = self.session, None
            await self._close_session(session)
            await self._environment.refresh(spec)
            self._spec, self.environment_key = spec, spec.environment_key
            return self._environment
        if self._environment is not None and self._environment.is_apart_from(spec):
            self._let_go()  # nobody waits for what has nothing to do with the task
        else:
            await self.close()
        self._environment = await self._executor(spec).prepare(spec, slot=self._slot, secrets=secrets, output=output)
        self._spec, self.environment_key = spec, spec.environment_key
        return self._environment

    def _fits(self, spec: TaskSpec, environment: Environment) -> bool:
        """Whether a refresh makes the open environment that of the task: at most its files and arguments are others."""
        if self.environment_key == spec.environment_key:
            return True
        before = self._spec
        return environment.keeps_processes and before is not None and _place_of(before) == _place_of(spec) is not None

    async def _close_session(self, session: Session | None) -> None:
        if session is not None:
            try:
                await session.close()
            except Exception:  # noqa: BLE001 - nobody is left to tell
                _log.exception("session_close_failed", slot=self._slot)

    def _executor(self, spec: TaskSpec) -> Executor:
        name = spec.executor_name
        if name not in self._executors:
            raise DependencyUnavailable(
                f"this worker has no executor {name!r}", hint=f"It has: {', '.join(sorted(self._executors))}."
            )
        return self._executors[name]

    def _runner(self, spec: TaskSpec) -> Runner:
        if spec.type not in self._runners:
            raise DependencyUnavailable(
                f"this worker cannot run tasks of type {spec.type!r}",
                hint=f"It knows: {', '.join(sorted(self._runners))}.",
            )
        return self._runners[spec.type]


def _place_of(spec: TaskSpec) -> tuple[object, ...] | None:
    """What of a task makes its environment, but for its files; nothing for one with secrets, which shares with none."""
    if spec.secret_names:
        return None
    return (
        spec.project,
        spec.setup,
        spec.setup_digest,
        dict(spec.env),
        spec.python,
        spec.image,
        spec.network,
        spec.executor_name,
    )
