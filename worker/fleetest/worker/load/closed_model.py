"""The closed model: so many users, each of whom waits for an answer before going on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.event import Event

from .schedule import Schedule, share_of

__all__ = ["ClosedModel"]

_STEP_SECONDS = 0.1


class ClosedModel:
    """
    Args:
        classes: of users, who come by their weights; those with a fixed count come first.
        index: which of the users are this generator's own, of `count`.

    Attributes:
        lateness: nobody is ever late.
        broken: what a task raised, if one did.
    """

    def __init__(self, environment: Any, classes: Sequence[Any], schedule: Schedule, index: int, count: int) -> None:
        self.lateness: dict[Any, float] = {}
        self.broken = ""
        self._runner = environment.runner
        self._order = _Order(classes)
        self._schedule = schedule
        self._index, self._count = index, count
        self._present: list[str] = []
        self._stopped = Event()
        environment.events.user_error.add_listener(self._hear_error)

    @property
    def users(self) -> int:
        """How many are there now."""
        return int(self._runner.user_count)

    def cut(self) -> tuple[int, float]:
        """Nobody arrives."""
        return 0, 0.0

    def run(self, start: float) -> None:
        """Keep to the schedule until it ends or `stop` is called; `start` is by `time.perf_counter`."""
        step = 0
        while not self._stopped.is_set():
            at = step * _STEP_SECONDS
            if at >= self._schedule.seconds:
                break
            self._be(share_of(self._schedule.target(at), self._index, self._count))
            step += 1
            left = start + min(step * _STEP_SECONDS, self._schedule.seconds) - time.perf_counter()
            self._stopped.wait(max(left, 0.0))
        self._be(0)

    def stop(self) -> None:
        """All may go after what they do."""
        self._stopped.set()

    def leave(self) -> None:
        """All have gone."""

    def _be(self, users: int) -> None:
        """Let users come or go until there are so many."""
        coming = [
            self._order.name_of(self._index + number * self._count) for number in range(len(self._present), users)
        ]
        going = self._present[users:]
        if coming:
            self._present += coming
            self._runner.spawn_users(dict(Counter(coming)), wait=False)
        elif going:
            del self._present[users:]
            gevent.spawn(self._runner.stop_users, dict(Counter(going)))  # after what they are doing

    def _hear_error(self, user_instance: Any, exception: Any, tb: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's names
        self.broken = self.broken or f"a task raised {type(exception).__name__}: {exception}"


class _Order:
    """Which class each user is of, by number."""

    def __init__(self, classes: Sequence[Any]) -> None:
        self._fixed: list[str] = [each.__name__ for each in classes for _ in range(int(each.fixed_count or 0))]
        self._weights: dict[str, float] = {
            each.__name__: float(each.weight) for each in classes if not each.fixed_count
        }
        self._credit = dict.fromkeys(self._weights, 0.0)
        self._known = list(self._fixed)

    def name_of(self, number: int) -> str:
        while len(self._known) <= number:
            if not self._weights:
                self._known.append(self._fixed[len(self._known) % len(self._fixed)])
                continue
            for name, weight in self._weights.items():
                self._credit[name] += weight
            chosen = max(self._credit, key=lambda name: self._credit[name])
            self._credit[chosen] -= sum(self._weights.values())
            self._known.append(chosen)
        return self._known[number]
