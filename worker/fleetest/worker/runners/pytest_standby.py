"""
Processes that have imported pytest and wait for the next run.

A developer runs, edits, and runs again: most of the time until the first case starts is an interpreter's start and the
import of pytest. One process for each environment is ready beforehand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import structlog

from fleetest.common.errors import DependencyUnavailable, FleetestError
from fleetest.common.ids import day_of_run
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Environment
from fleetest.worker.runners.pytest_resident import Conditions, Key, Resident, resident_key

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Standbys", "conditions_of"]

_NO_RUN: Final = ""

_log = structlog.stdlib.get_logger()


def conditions_of(environment: Environment, key: Key) -> Conditions:
    """What a process for the run and task of this key must be started with."""
    run_id, spec = key
    try:
        day = day_of_run(run_id).isoformat()
    except ValueError:  # nothing but a test calls a run so
        day = run_id
    return Conditions.of(environment, spec, day)


@dataclass(frozen=True, slots=True)
class _Waiting:
    resident: Resident
    conditions: Conditions


class Standbys:
    """The processes that wait, at most one in an environment."""

    def __init__(self, *, today: Callable[[], str] = lambda: datetime.now(UTC).date().isoformat()) -> None:
        self._today = today
        self._waiting: WeakKeyDictionary[Environment, _Waiting] = WeakKeyDictionary()
        self._ending: set[asyncio.Task[None]] = set()

    def __contains__(self, environment: Environment) -> bool:
        """Whether a process waits there."""
        return environment in self._waiting

    async def prepare(self, environment: Environment, spec: TaskSpec) -> None:
        """
        Let a process wait for a run of the like. Returns when it does, or when it could not be started; cancelled, it
        leaves none behind.
        """
        if environment in self._waiting:
            return
        conditions = Conditions.of(environment, spec, self._today())
        told = asyncio.Event()

        def on_message(_: Resident, message: Mapping[str, Any]) -> None:
            if message["event"] == "waiting":
                self._waiting[environment] = _Waiting(resident, conditions)
            told.set()

        def on_gone(_: Resident, ending: int | DependencyUnavailable) -> None:
            del ending
            waiting = self._waiting.get(environment)
            if waiting is not None and waiting.resident is resident:
                del self._waiting[environment]
            told.set()

        resident = Resident(resident_key(_NO_RUN, spec), on_message=on_message, on_gone=on_gone)
        try:
            await resident.start(environment, lambda _: None, conditions=conditions, waits=True)
            await told.wait()
        except (FleetestError, OSError) as error:
            _log.info("pytest_standby_not_started", reason=str(error))
        except asyncio.CancelledError:
            await resident.stop(timedelta())
            raise

    def take(self, environment: Environment, conditions: Conditions) -> Resident | None:
        """The process that waits, if it has been started just as one would be now."""
        waiting = self._waiting.pop(environment, None)
        if waiting is None:
            return None
        if waiting.conditions == conditions:
            return waiting.resident
        ending = asyncio.create_task(waiting.resident.stop(timedelta()))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return None

    async def end(self, environment: Environment) -> None:
        """End the process that waits in an environment, and those that did not fit."""
        waiting = self._waiting.pop(environment, None)
        if waiting is not None:
            await waiting.resident.stop(timedelta())
        if self._ending:
            await asyncio.wait(self._ending)
