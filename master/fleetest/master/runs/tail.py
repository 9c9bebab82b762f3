"""
Which cases of running shards are worth handing back, because slots are idle that could run them now.

Judged by remaining seconds, as they were predicted and as this run corrects that: a case that goes on for much longer
than predicted says that those behind it may, too, and that it may go on for as long again (Lindy's rule, the best guess
when nothing bounds it). Work stealing takes half of what its victim has left, from the end (Blumofe and Leiserson,
1999); here an idle slot takes an equal share of the longest rest, in whole units of what the task's `split` and its
`xdist_group` marks keep together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleetest.common.states import ShardKind
from fleetest.common.tasks import Access, RunnerType
from fleetest.master.runs.planner import units_of
from fleetest.master.runs.task_status import Attempt, ShardStatus, TaskStatus

__all__ = ["COLD_WORTH_SECONDS", "WORTH_SECONDS", "Request", "TailLook", "look_at_tail"]

WORTH_SECONDS: Final = 0.3
"""What handing back must win at least: it costs two commits, and four messages."""

COLD_WORTH_SECONDS: Final = 3.0
"""The same when no idle slot has the task's environment warm, and must prepare it first."""

NOTICEABLE_SECONDS: Final = 0.2
"""By so much results may be late that nothing has held up."""

ASK_AGAIN: Final = timedelta(seconds=5)
"""After so long without an answer, the worker is asked again: the question, or the worker's stream, was lost."""

RELUCTANT_FOR: Final = timedelta(seconds=2)
"""After an answer that gave nothing, the worker is left alone for so long."""

_SLACK_SECONDS: Final = 0.1  # of cases that took so little, a ratio says nothing
_SHORTEST_CASE_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Cases to ask back of an attempt. `parts` is the number of slots among which they are to be dealt."""

    shard_id: str
    token: int
    case_ids: tuple[str, ...]
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TailLook:
    """
    What is worth asking for now.

    Args:
        again_in: after so many seconds another look may find more, though nothing is heard meanwhile; `None`: it will
            not.
    """

    requests: tuple[Request, ...] = ()
    again_in: float | None = None


@dataclass(slots=True, kw_only=True)
class _Donor:
    """
    A running shard.

    Args:
        kept_seconds: how long it takes until all that cannot be moved is done.
        units: what can be moved, in order.
        parts: among how many slots its rest is shared, its own included.
        elsewhere: how many seconds idle slots take for one of its own.
    """

    shard: ShardStatus
    attempt: Attempt
    kept_seconds: float
    units: list[_Movable]
    again_in: float
    elsewhere: float
    parts: int = 1

    @property
    def total(self) -> float:
        return self.kept_seconds + sum(unit.seconds for unit in self.units)

    def given(self, parts: int) -> list[_Movable]:
        """The end of its units that comes closest to what others should have of it."""
        wanted = self.total * (parts - 1) / (parts - 1 + self.elsewhere)
        chosen: list[_Movable] = []
        taken = 0.0
        for unit in reversed(self.units):
            if parts == 1 or (chosen and taken + unit.seconds / 2 > wanted):
                break
            chosen.append(unit)
            taken += unit.seconds
        return chosen

    def lasts(self, parts: int) -> float:
        """How long its rest takes when so many slots share it."""
        given = self.given(parts)
        if not given:
            return self.total
        taken = sum(unit.seconds for unit in given)
        longest = max(taken / (parts - 1), *(unit.seconds for unit in given))
        return max(self.total - taken, longest * self.elsewhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Movable:
    case_ids: tuple[str, ...]
    seconds: float


def look_at_tail(
    task: TaskStatus,
    now: datetime,
    *,
    idle: int,
    worth_seconds: float = WORTH_SECONDS,
    idle_speed: float = 1.0,
    slots: Mapping[str, int],
) -> TailLook:
    """
    What to ask back so that idle slots have something to do.

    Args:
        idle: how many slots could run the task's shards now.
        worth_seconds: by how much the shards' rest must become shorter.
        idle_speed: of the idle slots' workers.
        slots: of the workers, by id.
    """
    if not _shares(task):
        return TailLook()
    waiting = sum(shard.waiting for shard in task.shards.values())
    under_way = sum(_asked(shard, now) for shard in task.live_attempts)
    shards = [shard for shard in task.live_attempts if shard.kind is ShardKind.EXECUTE]
    left_alone = [seconds for shard in shards if (seconds := _left_alone_for(shard, now)) > 0]
    donors = [_donor(task, shard, now, slots, idle_speed) for shard in shards if _left_alone_for(shard, now) <= 0]
    donors = [donor for donor in donors if donor.units]
    _share(donors, idle - waiting - under_way, worth_seconds)
    return TailLook(
        requests=tuple(_request(donor) for donor in donors if donor.parts > 1),
        again_in=min([*left_alone, *(donor.again_in for donor in donors if donor.parts == 1)], default=None),
    )


def _shares(task: TaskStatus) -> bool:
    """
    Not a command, which is begun as a whole; not a task whose suite says into how many parts it goes: perhaps only so
    many may run at once; nor one that takes of a pool for each of them.
    """
    under_way = task.planned and task.live > 0 and task.stop is None
    bounded = task.task.shards is not None or any(use.access is Access.COUNTED for use in task.task.uses)
    return under_way and task.task.runner is RunnerType.PYTEST and not bounded


def _asked(shard: ShardStatus, now: datetime) -> int:
    """For how many slots its worker is asked just now."""
    asked = shard.attempt.asked_back if shard.attempt is not None else None
    return asked.parts if asked is not None and now - asked.at < ASK_AGAIN else 0


def _left_alone_for(shard: ShardStatus, now: datetime) -> float:
    """How many seconds it is of no use to ask its worker again."""
    attempt = shard.attempt
    assert attempt is not None
    until = [attempt.asked_back.at + ASK_AGAIN] if attempt.asked_back is not None else []
    until += [attempt.gave_nothing_at + RELUCTANT_FOR] if attempt.gave_nothing_at is not None else []
    return max(((each - now).total_seconds() for each in until), default=0.0)


def _share(donors: Sequence[_Donor], idle: int, worth_seconds: float) -> None:
    """Give each idle slot a share of the longest rest that is worth it."""
    candidates = list(donors)
    while idle > 0 and candidates:
        donor = max(candidates, key=lambda each: each.lasts(each.parts))
        if donor.lasts(donor.parts) - donor.lasts(donor.parts + 1) < worth_seconds:
            candidates.remove(donor)
            continue
        donor.parts += 1
        idle -= 1


def _request(donor: _Donor) -> Request:
    given = {case_id for unit in donor.given(donor.parts) for case_id in unit.case_ids}
    return Request(
        shard_id=donor.shard.shard_id,
        token=donor.attempt.token,
        case_ids=tuple(case_id for case_id in donor.shard.case_ids if case_id in given),
        parts=donor.parts - 1,
    )


def _donor(task: TaskStatus, shard: ShardStatus, now: datetime, slots: Mapping[str, int], idle_speed: float) -> _Donor:
    attempt = shard.attempt
    assert attempt is not None
    speed = task.speeds.get(attempt.worker_id, 1.0)
    foretold = [task.expected_seconds(case_id, speed=speed) for case_id in shard.case_ids]
    todo = [index for index, case_id in enumerate(shard.case_ids) if case_id in attempt.awaited]
    ahead = _ahead(task, shard, slots)
    factor = _correction(task, shard, foretold)
    present = todo[0] if todo and not ahead else None
    kept, again_in = 0.0, NOTICEABLE_SECONDS
    if ahead:
        kept = min(_donor(task, other, now, slots, idle_speed).total for other in ahead)
    elif present is not None:
        expected = foretold[present] * factor
        elapsed = (now - attempt.since).total_seconds() if attempt.running else 0.0
        if elapsed > expected + NOTICEABLE_SECONDS:
            factor = max(factor, elapsed / max(foretold[present], _SHORTEST_CASE_SECONDS))
            kept = elapsed
        else:
            kept = max(expected - elapsed, 0.0)
            again_in = expected + NOTICEABLE_SECONDS - elapsed
    unstarted = set(todo) - {present}
    units = units_of(task.task.split, task.planned_cases(shard.case_ids), foretold)
    movable = [unit for unit in units if unstarted.issuperset(unit.cases)]
    bound = unstarted.difference(*(unit.cases for unit in movable))
    return _Donor(
        shard=shard,
        attempt=attempt,
        kept_seconds=kept + factor * sum(foretold[index] for index in bound),
        units=[
            _Movable(
                case_ids=tuple(shard.case_ids[index] for index in unit.cases),
                seconds=factor * max(unit.seconds, _SHORTEST_CASE_SECONDS),
            )
            for unit in movable
        ],
        again_in=again_in,
        elsewhere=speed / idle_speed,
    )


def _correction(task: TaskStatus, shard: ShardStatus, foretold: Sequence[float]) -> float:
    """How many times longer the attempt's cases took than predicted; less than that is not counted on."""
    assert shard.attempt is not None
    done = [index for index, case_id in enumerate(shard.case_ids) if case_id in shard.attempt.seen]
    took = sum(task.cases[shard.case_ids[index]].duration.total_seconds() for index in done)
    return max(1.0, (took + _SLACK_SECONDS) / (sum(foretold[index] for index in done) + _SLACK_SECONDS))


def _ahead(task: TaskStatus, shard: ShardStatus, slots: Mapping[str, int]) -> list[ShardStatus]:
    """Shards that their worker has to finish before it comes to this one; none when it has a slot for each."""
    assert shard.attempt is not None
    worker_id, token = shard.attempt.worker_id, shard.attempt.token
    older = [
        other
        for other in task.live_attempts
        if other.attempt is not None
        and other is not shard
        and other.attempt.worker_id == worker_id
        and (other.attempt.token, other.index) < (token, shard.index)
    ]
    return older if not shard.attempt.running and len(older) >= slots.get(worker_id, len(older) + 1) else []
