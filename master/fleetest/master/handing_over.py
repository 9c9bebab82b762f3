"""
Gives what a commit would queue to workers that have nothing to do, within that commit.

A shard's way through the queue is a script that puts it in, a word of that, a script that takes it out, and a commit in
which its attempt begins. When the queue has nothing for a worker whose stream this master holds, all of that leads to
what can be decided at once. See ADR 21.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from fleetest.common.tasks import Resources
from fleetest.master.assigning import Starter, let_expect, meets
from fleetest.master.queue.ports import Bid
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.environment import requirements_of
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import ShardStatus, TaskStatus
from fleetest.master.sessions import Assigned, AttemptRef, Session, Sessions
from fleetest.master.turned_down import TurnedDown

__all__ = ["HandOver"]


class HandOver:
    """
    Fulfils `Giver`.

    Args:
        sessions: workers whose streams this master holds.
        on_idle: called when workers want more than they were given.
    """

    def __init__(self, sessions: Sessions, turned_down: TurnedDown, on_idle: Callable[[], None] = lambda: None) -> None:
        self._sessions = sessions
        self._turned_down = turned_down
        self._on_idle = on_idle

    def give(self, decider: Decider) -> _Gift | None:
        by_task = defaultdict[str, list[ShardStatus]](list)
        for shard in decider.enqueue:
            if shard.waiting and (shard.retry_at is None or shard.retry_at <= decider.now):
                by_task[shard.task_id].append(shard)
        idle = self._turned_down.idle(self._sessions) if by_task else ()
        if not idle:
            return None
        gift = _Gift(self._sessions, sorted(idle, key=attrgetter("speed"), reverse=True), self._on_idle)
        tasks = [decider.status.tasks[task_id] for task_id in by_task]
        for task in sorted(tasks, key=lambda each: -each.task.priority):
            if _is_simple(decider.status, task):
                gift.take_from(decider, by_task[task.task.name])
        return gift if gift.begun else None


class _Gift:
    """What idle workers are to be given once the commit is durable. It is set aside of what they want until then."""

    def __init__(self, sessions: Sessions, idle: Sequence[Session], on_idle: Callable[[], None]) -> None:
        self.begun: list[tuple[Session, Assigned]] = []
        self._sessions = sessions
        self._idle = idle
        self._on_idle = on_idle

    def take_from(self, decider: Decider, shards: Sequence[ShardStatus]) -> None:
        """Of one task, so they are alike. Each worker gets one before any gets two, first who is warm."""
        task = decider.status.tasks[shards[0].task_id]
        requirements, key = requirements_of(task.task), decider.status.environment_key(task)
        bids = [(bid, session) for session in self._idle if (bid := session.bid()) is not None]
        bids = [each for each in bids if _is_able(each[0], task.task.resources, requirements)]
        bids.sort(key=lambda each: key not in each[0].warm_environment_keys)
        able = deque(session for _, session in bids)
        starter = Starter(decider, {})
        for shard in shards:
            while able and ((bid := able[0].bid()) is None or not task.packed.at_most(bid.capacity).fits(bid.free)):
                able.popleft()
            if not able:
                return
            session = able[0]
            able.rotate(-1)
            worker = session.presence
            takes = task.packed.at_most(worker.capacity)  # an empty worker that may have it always can
            begun = starter.start(shard.shard_id, worker, takes=takes, requirements=requirements)
            if begun is not None:
                session.set_aside(begun)
                self.begun.append((session, begun))

    def send(self) -> Sequence[AttemptRef]:
        by_session = defaultdict[Session, list[Assigned]](list)
        for session, each in self.begun:
            by_session[session].append(each)
        unsent: list[AttemptRef] = []
        for session, given in by_session.items():
            if session.over or self._sessions.get(session.presence.worker_id) is not session:
                unsent += [each.ref for each in given]
            else:
                session.assign_set_aside(given)
        if any(session.wants_more for session in self._sessions):
            let_expect([each for _, each in self.begun], self._sessions)
            self._on_idle()
        return unsent

    def undo(self) -> None:
        for session, each in self.begun:
            session.put_back(each)


def _is_simple(status: RunStatus, task: TaskStatus) -> bool:
    """Whether nothing but workers is needed for it: neither others of its kind, nor what Redis holds."""
    spec = task.task
    alone = spec.gang is None and spec.service is None and not task.served_by
    return alone and not spec.uses and not spec.secret_variables and status.may_be_queued(task)


def _is_able(bid: Bid, resources: Resources, requirements: Mapping[str, str]) -> bool:
    return resources.fits(bid.capacity) and meets(bid.capabilities, requirements)
