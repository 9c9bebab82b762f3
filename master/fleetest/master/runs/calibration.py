"""
How fast workers are, learnt from cases that ran on several of them.

Of each two workers that had cases in common, the median of the ratios of durations says how much faster one is; a
median, since single tests vary wildly. What workers that are the same machine tell of each other's cases is how the
code changed meanwhile, and is taken out first. The ratios of pairs are then reconciled by weighted least squares on
their logarithms (as the pairwise comparisons of Bradley and Terry are), and anchored on the workers known before.

A speed of 2 means that cases take half as long as on a worker of speed 1, which is what nobody knows anything about.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fleetest.master.runs.task_status import TaskStatus
from fleetest.master.store.ports import CaseHistory

__all__ = ["Measure", "Speed", "learn", "measures_of", "speed_of"]

FEWEST_COMMON: Final = 5
"""Fewer common cases say nothing of two workers."""

_SHORTEST: Final = timedelta(milliseconds=1)  # below, what surrounds a test is measured rather than the test
_MOST_WEIGHT: Final = 100
_ROUNDS: Final = 30
_SLOWEST, _FASTEST = 0.1, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a worker is, and the number of common cases that say so."""

    speed: float
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A case that ran on `worker_id` in `took`, and before on `earlier_id` in `earlier_took`."""

    worker_id: str
    took: timedelta
    earlier_id: str
    earlier_took: timedelta


def speed_of(speeds: Mapping[str, Speed], worker_id: str) -> float:
    """1 of a worker of which nothing is known."""
    known = speeds.get(worker_id)
    return 1.0 if known is None else known.speed


def measures_of(task: TaskStatus, history: Mapping[str, CaseHistory]) -> list[Measure]:
    """What an ended task says of workers, compared with what was known of its cases before. Bad ends say nothing."""
    return [
        Measure(
            worker_id=case.worker_id,
            took=case.duration,
            earlier_id=earlier.worker_id,
            earlier_took=earlier.measured,
        )
        for case_id, case in task.cases.items()
        if case.outcome is not None
        and not case.cached
        and not case.outcome.bad
        and case.duration >= _SHORTEST
        and (earlier := history.get(case_id)) is not None
        and earlier.worker_id
        and earlier.outcome is case.outcome
        and earlier.measured >= _SHORTEST
    ]


def learn(known: Mapping[str, Speed], measures: Sequence[Measure]) -> Mapping[str, Speed]:
    """The speeds of those workers of which the measures tell something. What was known moves half way to it."""
    links = _links(measures)
    if not links:
        return {}
    neighbours: defaultdict[str, list[tuple[str, float, int]]] = defaultdict(list)
    for (one, other), (faster, cases) in links.items():
        weight = min(cases, _MOST_WEIGHT)
        neighbours[one].append((other, faster, weight))
        neighbours[other].append((one, -faster, weight))
    levels = {worker_id: math.log(speed_of(known, worker_id)) for worker_id in sorted(neighbours)}
    before = dict(levels)
    for _ in range(_ROUNDS):
        for worker_id, others in neighbours.items():
            total = sum(weight for _, _, weight in others)
            levels[worker_id] = sum(weight * (levels[other] + faster) for other, faster, weight in others) / total
    anchors = [worker_id for worker_id in levels if worker_id in known] or list(levels)
    shift = statistics.fmean(levels[worker_id] - before[worker_id] for worker_id in anchors)
    return {
        worker_id: _moved(known.get(worker_id), math.exp(level - shift), sum(each[2] for each in neighbours[worker_id]))
        for worker_id, level in levels.items()
    }


def _moved(known: Speed | None, speed: float, cases: int) -> Speed:
    if known is not None:
        speed = math.sqrt(known.speed * speed)
    return Speed(speed=min(max(speed, _SLOWEST), _FASTEST), cases=cases + (known.cases if known is not None else 0))


def _links(measures: Sequence[Measure]) -> dict[tuple[str, str], tuple[float, int]]:
    """Of each two workers with enough cases in common, by what logarithm the first is faster, and their number."""
    same = [math.log(each.took / each.earlier_took) for each in measures if each.worker_id == each.earlier_id]
    change = statistics.median(same) if len(same) >= FEWEST_COMMON else 0.0
    ratios: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for each in measures:
        slower = math.log(each.took / each.earlier_took) - change
        if each.worker_id < each.earlier_id:
            ratios[each.worker_id, each.earlier_id].append(-slower)
        elif each.worker_id > each.earlier_id:
            ratios[each.earlier_id, each.worker_id].append(slower)
    return {pair: (statistics.median(some), len(some)) for pair, some in ratios.items() if len(some) >= FEWEST_COMMON}
