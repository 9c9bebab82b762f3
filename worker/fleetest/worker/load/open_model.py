"""
The open model: users arrive when they are due, however slow the answers are.

A request's latency counts from when it was due. If the generator, or a system that answers slowly, keeps it from
beginning then, that wait is a user's too; to leave it out is known as coordinated omission.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import Semaphore
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopUser
from locust.user import User
from locust.user.task import DefaultTaskSet

from .schedule import Schedule
from .telling import tell_error

__all__ = ["OpenModel"]

_MOST_AT_ONCE = 20_000
_READY_MADE = 20
_MOST_TRACEBACKS = 5


class OpenModel:
    """
    Args:
        classes: of users, who arrive by their weights.
        index: which of the arrivals are this generator's own, of `count`.

    Attributes:
        lateness: by greenlet, how long its arrival began after it was due, until a request has taken that along.
        broken: what a task raised, if one did.
    """

    def __init__(self, environment: Any, classes: Sequence[Any], schedule: Schedule, index: int, count: int) -> None:
        self.lateness: dict[Any, float] = {}
        self.broken = ""
        self._environment = environment
        self._classes = _Turns(classes)
        self._schedule = schedule
        self._index, self._count = index, count
        self._idle: dict[Any, list[Any]] = {each: [] for each in classes}
        self._room = Semaphore(_MOST_AT_ONCE)
        self._in_flight = 0
        self._raised = 0
        self._stopped = Event()
        self._begun = 0
        self._longest = 0.0
        for each in classes:
            if each.on_start is User.on_start:  # what users do to get ready is part of the load
                self._idle[each] += [self._arrive(each) for _ in range(_READY_MADE // len(classes) + 1)]

    @property
    def users(self) -> int:
        """How many are there now."""
        return self._in_flight

    def cut(self) -> tuple[int, float]:
        """How many arrivals were begun since the last cut, and the longest that one of them was late."""
        begun, self._begun = self._begun, 0
        longest, self._longest = self._longest, 0.0
        return begun, longest

    def run(self, start: float) -> None:
        """Let them arrive until the schedule ends or `stop` is called; `start` is by `time.perf_counter`."""
        for due in self._schedule.arrivals(self._index, self._count):
            self._wait_until(start + due)
            if self._stopped.is_set():
                return
            self._room.acquire()
            self._begun += 1
            self._in_flight += 1
            gevent.spawn(self._visit, self._classes.next(), start + due)

    def stop(self) -> None:
        """Nobody arrives any more."""
        self._stopped.set()

    def leave(self) -> None:
        """Let those go who are free."""
        for user in (user for users in self._idle.values() for user in users):
            try:
                user.on_stop()
            except Exception as error:
                self._tell(error)

    def _wait_until(self, moment: float) -> None:
        left = moment - time.perf_counter()
        if left > 0:
            self._stopped.wait(left)

    def _visit(self, kind: Any, due: float) -> None:
        me = gevent.getcurrent()
        user: Any = None
        try:
            user = self._idle[kind].pop() if self._idle[kind] else self._arrive(kind)
            late = max(0.0, time.perf_counter() - due)
            self.lateness[me] = late
            self._longest = max(self._longest, late)
            self._do_task(user)
            self._idle[kind].append(user)
        except StopUser:
            user.on_stop()
        except Exception as error:
            self._tell(error)
        finally:
            self.lateness.pop(me, None)
            self._in_flight -= 1
            self._room.release()

    def _arrive(self, kind: Any) -> Any:
        user = kind(self._environment)
        user._state = "running"
        user._taskset_instance = DefaultTaskSet(user)
        user.on_start()
        return user

    def _do_task(self, user: Any) -> None:
        tasks = user._taskset_instance
        # One that interrupts itself is over as any other.
        with contextlib.suppress(InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately):
            tasks.execute_task(tasks.get_next_task())

    def _tell(self, error: Exception) -> None:
        self.broken = self.broken or f"a task raised {type(error).__name__}: {error}"
        self._raised += 1
        if self._raised <= _MOST_TRACEBACKS:
            tell_error(error)


class _Turns:
    """Classes by their weights, as evenly as these allow."""

    def __init__(self, classes: Sequence[Any]) -> None:
        self._weights = {each: float(each.weight) or 1.0 for each in classes}
        self._credit = dict.fromkeys(classes, 0.0)

    def next(self) -> Any:
        """Whose turn it is."""
        for each, weight in self._weights.items():
            self._credit[each] += weight
        chosen = max(self._credit, key=lambda each: self._credit[each])
        self._credit[chosen] -= sum(self._weights.values())
        return chosen
