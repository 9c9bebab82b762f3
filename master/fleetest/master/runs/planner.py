"""
Deals the cases of a task to shards.

Cases that must stay together form a unit; units are packed in the order of collection, which keeps fixtures of wider
scope warm, into shards of about equal predicted duration. Shards much longer than the others go first, so that no slot
idles while another holds a tail (longest processing time first: Graham, 1969).
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fleetest.common.results import CacheOrigin, PlannedCase
from fleetest.common.tasks import Split, Task
from fleetest.master.runs.events import ShardPlan
from fleetest.master.runs.fail_fast import makespan, most_that_may_come_first
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.task_status import shard_id
from fleetest.master.store.ports import CaseHistory

__all__ = ["Fleet", "Plan", "Unit", "deal_again", "plan", "units_of"]

SHARDS_PER_SLOT: Final = 8
"""Parts for each slot when nothing is known of durations: enough to even out what we could not foresee."""

ROUNDS_PER_SLOT: Final = 4
"""Parts for each slot when durations are known."""

SHORTEST_TARGET_SECONDS: Final = 0.25
"""Below this, handing out a shard costs more than it evens out."""

LONGEST_TARGET_SECONDS: Final = 10.0
"""A shard is also what a dead worker has to repeat."""

_NO_RISK: Final[Mapping[str, float]] = {}

LONG_FACTOR: Final = 1.5
"""A shard longer than this many targets goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What a task consists of.

    Args:
        predicted_us: of each case, in microseconds; empty without any history.
        left_out: how many collected cases the task does not ask for.
        missing: asked for by id, but not collected.
        speeds: of the workers, by id, those of which something is known.
        cached: results of cases that are in no shard.
        sampled: cases that are in one although the cache has a result, and where that comes from.
        cache_keys: under which results are cached, by file; empty without a cache.
    """

    cases: tuple[PlannedCase, ...]
    shards: tuple[ShardPlan, ...]
    predicted: timedelta | None
    predicted_us: tuple[int, ...] = ()
    left_out: int = 0
    missing: tuple[str, ...] = ()
    speeds: Mapping[str, float] = field(default_factory=dict)
    cached: tuple[KeptResult, ...] = ()
    sampled: Mapping[str, CacheOrigin] = field(default_factory=dict)
    cache_keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """
    Who could run shards.

    Args:
        slots: of each worker, by id.
        speeds: of the workers of which it is known.
    """

    slots: Mapping[str, int]
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def each_slot(self) -> list[float]:
        """The speed of every slot, of which there is at least one."""
        return [self.speeds.get(worker_id, 1.0) for worker_id, number in self.slots.items() for _ in range(number)] or [
            1.0
        ]

    @property
    def pace(self) -> float:
        """How many slots of speed 1 do as much, at least 1."""
        return max(1.0, sum(self.each_slot))


@dataclass(frozen=True, slots=True)
class Unit:
    """Cases that must stay together, by their indexes, and how long they should take."""

    cases: list[int]
    seconds: float


def plan(
    task: Task,
    collected: Sequence[PlannedCase],
    history: Mapping[str, CaseHistory],
    *,
    fleet: Fleet,
    risk: Mapping[str, float] = _NO_RISK,
) -> Plan:
    """
    Deal cases to shards. An id that was collected twice is one case, since nothing tells its results apart.

    Args:
        collected: in the order of collection.
        history: of earlier runs, by case id; a case without any gets the median of the others.
        risk: how likely cases are to fail, by id: these come first, as far as that lengthens nothing (`fail_fast`).
    """
    unique: dict[str, PlannedCase] = {}
    for case in collected:
        unique.setdefault(case.case_id, case)
    cases, missing = _selected(task, list(unique.values()), history)
    seconds = _predictions(cases, history)
    units = units_of(task.split, cases, seconds)
    likely = [risk.get(case.case_id, 0.0) for case in cases] if risk else []
    parts = _parts(task, units, fleet, likely, known=bool(history)) if units else []
    shards = tuple(
        ShardPlan(
            shard_id=shard_id(task.name, index),
            cases=tuple(_in_order(part, likely)),
            predicted=timedelta(seconds=_total(part)) if history else None,
        )
        for index, part in enumerate(parts)
    )
    return Plan(
        cases=tuple(cases),
        shards=shards,
        predicted=timedelta(seconds=sum(seconds)) if history else None,
        predicted_us=tuple(round(each * 1e6) for each in seconds) if history else (),
        left_out=len(unique) - len(cases),
        missing=missing,
        speeds=fleet.speeds,
    )


def _parts(
    task: Task, units: Sequence[Unit], fleet: Fleet, likely: Sequence[float], *, known: bool
) -> list[list[Unit]]:
    def dealt(some: Sequence[Unit]) -> list[list[Unit]]:
        if task.shards is not None:
            return _balanced(some, min(task.shards, len(some)))
        return _packed(some, _target(some, fleet.pace, known=known), len(fleet.each_slot)) if some else []

    if not likely:
        return dealt(units)

    def with_first(number: int) -> list[list[Unit]]:
        chosen = {id(unit) for unit in likeliest[:number]}
        if task.shards is not None:
            return sorted(dealt(units), key=lambda part: chosen.isdisjoint(map(id, part)))
        return _short(likeliest[:number], fleet, known=known) + dealt(
            [each for each in units if id(each) not in chosen]
        )

    def lasts(number: int) -> float:
        return makespan([_total(part) for part in with_first(number)], slots)

    worth = {id(unit): _chance(unit, likely) / max(unit.seconds, SHORTEST_TARGET_SECONDS) for unit in units}
    likeliest = sorted((unit for unit in units if worth[id(unit)]), key=lambda unit: worth[id(unit)], reverse=True)
    slots = fleet.each_slot
    return with_first(most_that_may_come_first(len(likeliest), lasts))


def _short(units: Sequence[Unit], fleet: Fleet, *, known: bool) -> list[list[Unit]]:
    """As they come, in parts so short that every slot has one at once."""
    if not units:
        return []
    shortest = SHORTEST_TARGET_SECONDS if known else 1.0
    target = min(max(_total(units) / fleet.pace, shortest), LONGEST_TARGET_SECONDS)
    return _cut(units, math.ceil(_total(units) / target))


def _chance(unit: Unit, likely: Sequence[float]) -> float:
    """That some case of it fails."""
    return 1 - math.prod(1 - likely[index] for index in unit.cases)


def _in_order(part: Sequence[Unit], likely: Sequence[float]) -> list[int]:
    """As they were collected, which keeps fixtures warm; but units with what is likely to fail come first."""
    first = [case for unit in part if likely and _chance(unit, likely) for case in unit.cases]
    return [*first, *sorted({case for unit in part for case in unit.cases}.difference(first))]


def deal_again(split: Split, cases: Sequence[PlannedCase], seconds: Sequence[float], parts: int) -> list[list[int]]:
    """
    Deal cases that were handed back to at most so many parts of about equal length, the longest first.

    Answers indexes into `cases`.
    """
    units = units_of(split, cases, seconds)
    dealt = _balanced(units, min(parts, len(units))) if units else []
    return [sorted(case for unit in part for case in unit.cases) for part in dealt]


def _selected(
    task: Task, collected: Sequence[PlannedCase], history: Mapping[str, CaseHistory]
) -> tuple[Sequence[PlannedCase], tuple[str, ...]]:
    if task.only_cases:
        wanted = dict.fromkeys(task.only_cases)
        found = [case for case in collected if case.case_id in wanted]
        for case in found:
            wanted.pop(case.case_id, None)
        return found, tuple(wanted)
    if task.last_failed:
        failed = [case for case in collected if case.case_id in history and history[case.case_id].outcome.bad]
        return failed or collected, ()  # with no failure known, pytest's --lf runs everything
    return collected, ()


def _predictions(cases: Sequence[PlannedCase], history: Mapping[str, CaseHistory]) -> list[float]:
    known = [history[case.case_id].duration.total_seconds() for case in cases if case.case_id in history]
    median = statistics.median(known) if known else 1.0
    return [history[case.case_id].duration.total_seconds() if case.case_id in history else median for case in cases]


def units_of(split: Split, cases: Sequence[PlannedCase], seconds: Sequence[float]) -> list[Unit]:
    """What must stay together, in the order of each unit's first case. An `xdist_group` always stays together."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            leader[key] = key = leader[leader[key]]
        return key

    def keys(index: int, case: PlannedCase) -> Iterable[str]:
        if case.group:
            yield f"group:{case.group}"
        if split is Split.FILE:
            yield f"file:{case.file}"
        yield f"case:{index}"

    for index, case in enumerate(cases):
        first, *others = keys(index, case)
        for other in others:
            leader[find(other)] = find(first)
    members: dict[str, list[int]] = {}
    for index in range(len(cases)):
        members.setdefault(find(f"case:{index}"), []).append(index)
    return [Unit(indexes, sum(seconds[index] for index in indexes)) for indexes in members.values()]


def _target(units: Sequence[Unit], slots: float, *, known: bool) -> float:
    total = _total(units)
    if not known:  # every case counts as one second here
        return max(total / (slots * SHARDS_PER_SLOT), 1.0)
    return min(max(total / (slots * ROUNDS_PER_SLOT), SHORTEST_TARGET_SECONDS), LONGEST_TARGET_SECONDS)


def _packed(units: Sequence[Unit], target: float, slots: int) -> list[list[Unit]]:
    """What is long by itself first, then the rest in equal parts, as many for each slot: so all have an end at once."""
    long = [[unit] for unit in units if unit.seconds > LONG_FACTOR * target]
    short = [unit for unit in units if unit.seconds <= LONG_FACTOR * target]
    count = math.ceil(_total(short) / target)
    for_each_slot = -(-count // slots) * slots
    if count > slots or _total(short) >= for_each_slot * SHORTEST_TARGET_SECONDS:
        count = for_each_slot  # three parts for two slots would leave one idle for a third of the time
    return sorted(long, key=_total, reverse=True) + _cut(short, count)


def _cut(units: Sequence[Unit], count: int) -> list[list[Unit]]:
    """As they come, in about so many parts of about the same length."""
    share = _total(units) / max(count, 1)
    parts: list[list[Unit]] = []
    filled = 0.0
    for unit in units:
        if not parts or (len(parts) < count and filled + unit.seconds / 2 > len(parts) * share):
            parts.append([])
        parts[-1].append(unit)
        filled += unit.seconds
    return parts


def _balanced(units: Sequence[Unit], count: int) -> list[list[Unit]]:
    parts: list[list[Unit]] = [[] for _ in range(count)]
    lightest = [(0.0, 0, index) for index in range(count)]
    for unit in sorted(units, key=lambda unit: unit.seconds, reverse=True):
        seconds, number, index = lightest[0]
        parts[index].append(unit)
        heapq.heapreplace(lightest, (seconds + unit.seconds, number + 1, index))
    return sorted(parts, key=_total, reverse=True)


def _total(units: Sequence[Unit]) -> float:
    return sum(unit.seconds for unit in units)
