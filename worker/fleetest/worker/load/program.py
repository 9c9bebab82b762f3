"""A generator from its start to its end: gets ready, waits for the word, keeps to the schedule, tells each second."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from typing import Any

import gevent
from gevent.event import Event
from locust import events
from locust.env import Environment

from .closed_model import ClosedModel
from .line import Line
from .open_model import OpenModel
from .recording import Recorder
from .scenario import Unfit, filled, user_classes
from .schedule import Schedule
from .telling import ErrorTally, tell_error

__all__ = ["Generator", "run"]

_DRAIN_SECONDS = 30
"""So long may requests that were begun still take after the end of the schedule, before they are given up."""

_STOP_DRAIN_SECONDS = 3
_LOOK_SECONDS = 0.05
_NO_ANSWER = "(no answer)"


def run() -> int:
    """Answers the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    variables = os.environ
    line = Line(variables["FLEETEST_LOAD_SOCKET"], variables["FLEETEST_LOAD_TOKEN"])
    scenario = json.loads(variables["FLEETEST_LOAD_SCENARIO"])
    index, count = int(variables["FLEETEST_SHARD_INDEX"]), int(variables["FLEETEST_SHARD_TOTAL"])
    try:
        generator = Generator(line, scenario, index, count)
    except Unfit as problem:
        line.say({"event": "unfit", "reason": str(problem)})
        return 2
    except Exception as error:
        tell_error(error)
        line.say({"event": "unfit", "reason": f"{type(error).__name__}: {error}"})
        return 2
    line.say({"event": "ready"})
    return generator.run()


class Generator:
    """
    Args:
        index: which part of the load is its own, of `count`.

    Raises:
        Unfit: the scenario cannot be run.
    """

    def __init__(self, line: Line, scenario: dict[str, Any], index: int, count: int) -> None:
        self._line = line
        self._recorder = Recorder()
        self._errors = ErrorTally()
        self._schedule = Schedule(scenario["start"], [tuple(stage) for stage in scenario["stages"]])
        self._named = not scenario["locustfile"]  # by the suite; a locustfile names paths only
        self._stopped = Event()
        self._second = 0
        classes = user_classes(scenario)
        self._environment = Environment(
            user_classes=classes,
            events=events,  # those that a locustfile listens to
            host=filled(scenario["host"]) or None,
            stop_timeout=_DRAIN_SECONDS,
        )
        self._environment.events.request.add_listener(self._hear)
        runner = self._environment.create_local_runner()
        self._environment.events.init.fire(environment=self._environment, runner=runner, web_ui=None)
        model = OpenModel if scenario["model"] == "open" else ClosedModel
        self._model = model(self._environment, classes, self._schedule, index, count)

    def run(self) -> int:
        """Wait for the word, then make the load. Answers the exit code."""
        gevent.signal_handler(signal.SIGTERM, self._stop)
        gevent.spawn(self._stop_without_agent)
        while not self._line.begun.wait(_LOOK_SECONDS):
            if self._stopped.is_set():
                return 0
        start = time.perf_counter()
        self._recorder.cut()  # what users did to get ready
        self._environment.events.test_start.fire(environment=self._environment)
        making = gevent.spawn(self._model.run, start)
        self._tell_seconds(start)
        self._model.stop()
        self._drain(making)
        self._tell(0.0, last=True)
        self._model.leave()
        self._environment.events.test_stop.fire(environment=self._environment)
        self._errors.tell()
        if self._model.broken:
            self._line.say({"event": "unfit", "reason": self._model.broken})
            return 1
        return 0

    def _tell_seconds(self, start: float) -> None:
        """Until the schedule ends, or the load is stopped."""
        whole = self._schedule.seconds
        while self._second < whole and not self._stopped.is_set():
            begun, until = float(self._second), min(self._second + 1.0, whole)
            self._stopped.wait(max(0.0, start + until - time.perf_counter()))
            if self._stopped.is_set():
                until = min(until, max(begun, time.perf_counter() - start))
            self._tell(until - begun)

    def _tell(self, length: float, *, last: bool = False) -> None:
        arrivals, lag = self._model.cut()
        self._line.say(
            {
                "event": "sample",
                "second": self._second,
                "length_us": round(length * 1e6),
                "users": self._model.users,
                "arrivals": arrivals,
                "lag_us": round(lag * 1e6),
                "last": last,
                "requests": self._recorder.cut(),
            }
        )
        self._second += 1

    def _drain(self, making: Any) -> None:
        """Let requests end that were begun."""
        limit = time.perf_counter() + (_STOP_DRAIN_SECONDS if self._stopped.is_set() else _DRAIN_SECONDS)
        while time.perf_counter() < limit and (self._model.users or not making.dead):
            gevent.sleep(_LOOK_SECONDS)
        for _ in range(self._model.users):
            self._recorder.record(_NO_ANSWER, _DRAIN_SECONDS, failed=True)

    def _hear(self, request_type: str, name: str, response_time: float | None, exception: Any = None, **_: Any) -> None:
        late = self._model.lateness.pop(gevent.getcurrent(), 0.0)
        request = name if self._named else f"{request_type} {name}"
        self._recorder.record(request, (response_time or 0.0) / 1000 + late, failed=exception is not None)
        if exception is not None:
            self._errors.add(request, exception)

    def _stop(self) -> None:
        self._stopped.set()

    def _stop_without_agent(self) -> None:
        self._line.ended.wait()
        self._stopped.set()
