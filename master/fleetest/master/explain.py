"""Why is this task not running? Counts, for every constraint that is not met, the workers that do not meet it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleetest.common.serving import published_prefix
from fleetest.common.states import ShardKind, TaskState
from fleetest.common.suite.sizes import format_size
from fleetest.common.tasks import Resources, When
from fleetest.master.queue.ports import Presence, QueuePlace, ResourceLedger, ShardQueue
from fleetest.master.resource_reasons import Obstacle, obstacles
from fleetest.master.roster import Roster
from fleetest.master.runs.services import asked_by, required_by
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["Reason", "ReasonKind", "TaskExplanation", "explain"]

_TELLING_DIFFERENCE: Final = 0.1


class ReasonKind(StrEnum):
    """What keeps a task, or does not; see `ReasonKind` in `run.proto`."""

    WAITS_FOR_TASK = "waits_for_task"
    NO_WORKERS = "no_workers"
    MISSING_CAPABILITY = "missing_capability"
    TOO_LARGE = "too_large"
    WORKERS_BUSY = "workers_busy"
    WORKERS_DRAINING = "workers_draining"
    WORKERS_NOT_READY = "workers_not_ready"
    BEHIND_OTHERS = "behind_others"
    RETRY_WAIT = "retry_wait"
    RUNS = "runs"
    ENDED = "ended"
    STOPPING = "stopping"
    WAITS_FOR_RESOURCE = "waits_for_resource"
    WAITS_FOR_INPUTS = "waits_for_inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """
    One thing that keeps the task.

    Args:
        workers: how many workers it concerns, of `workers_total`.
        constraint: what is not met: `browser=chromium`, `memory 64 GiB`, a task's or a resource's name.
        queue_position: 1 is next.
    """

    kind: ReasonKind
    message: str
    workers: int = 0
    workers_total: int = 0
    constraint: str = ""
    queue_position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExplanation:
    """A task, its state and what keeps it."""

    task_id: str
    state: TaskState
    reasons: tuple[Reason, ...]


async def explain(
    status: RunStatus, task_id: str, roster: Roster, queue: ShardQueue, resources: ResourceLedger
) -> TaskExplanation:
    """
    Raises:
        DependencyUnavailable: Redis does not answer.
    """
    task = status.tasks[task_id]
    waiting = [shard for shard in task.shards.values() if shard.waiting]
    if task.state.ended or task.stop is not None or not waiting or not status.is_served(task):
        reasons = tuple(_without_queue(status, task))
    else:
        workers = [worker for worker in await roster.list() if not worker.offline]
        place = await queue.place(status.run_id, waiting[0].shard_id)
        in_the_way: Sequence[Obstacle] = ()
        if task.task.uses and waiting[0].kind is ShardKind.EXECUTE:
            in_the_way = obstacles(status, task, await resources.view())
        reasons = (*_where_it_runs(status, task), *_reasons_to_wait(status, task, workers, place, in_the_way))
    return TaskExplanation(task_id=task_id, state=task.state, reasons=reasons)


def _without_queue(status: RunStatus, task: TaskStatus) -> Iterator[Reason]:
    if task.state.ended:
        because = f": {task.reason}" if task.reason else ""
        yield Reason(kind=ReasonKind.ENDED, message=f"it has ended: {task.state.value}{because}")
        return
    if task.stop is not None:
        yield Reason(kind=ReasonKind.STOPPING, message=f"it is being stopped: {task.stop.reason}")
    for need in task.task.needs:
        needed = status.tasks[need.task].state
        if not needed.ended and not (need.when is When.READY and status.serving(need.task)):
            is_now = "starting" if need.when is When.READY and status.tasks[need.task].live else needed.value
            message = f"it needs {need.task} {need.when.value}, which is {is_now}{_for_what(task, need.task)}"
            yield Reason(kind=ReasonKind.WAITS_FOR_TASK, message=message, constraint=need.task)
    if status.awaits_inputs(task):
        leavers = ", ".join(dict.fromkeys(each.task for each in task.task.inputs))
        message = f"what it takes of {leavers} is being put into its workspace"
        yield Reason(kind=ReasonKind.WAITS_FOR_INPUTS, message=message)
    yield from _where_it_runs(status, task)


def _for_what(task: TaskStatus, needed: str) -> str:
    """What the task takes of the one that it waits for; empty when that is nothing."""
    wanted = next((each for each in task.task.inputs if each.task == needed), None)
    return "" if wanted is None else f"; it takes {', '.join(wanted.files) or 'all artifacts'} of it"


def _where_it_runs(status: RunStatus, task: TaskStatus) -> Iterator[Reason]:
    workers = sorted({shard.attempt.worker_id for shard in task.live_attempts if shard.attempt is not None})
    if workers:
        shards = sum(1 for _ in task.live_attempts)
        named = ", ".join(f"{worker_id}{_speed(task, worker_id)}" for worker_id in workers)
        message = f"{shards} of its shards {'runs' if shards == 1 else 'run'} on {named}"
        serving = status.serving(task.task.name) if task.task.service is not None else None
        if serving is not None:
            serves = [name for name, _ in task.dependents if not status.tasks[name].state.ended]
            message += f"; it is ready, and serves {', '.join(serves)}"
            if url := serving.variables.get(f"{published_prefix(task.task.name)}_URL"):
                message += f"; it is published at {url}"
        yield Reason(kind=ReasonKind.RUNS, message=message, workers=len(workers))


def _speed(task: TaskStatus, worker_id: str) -> str:
    """Where it is another than the usual: so its tests take longer there, or less long."""
    speed = task.speeds.get(worker_id, 1.0)
    return f" (at {speed:.2g} of the usual speed)" if abs(speed - 1) >= _TELLING_DIFFERENCE else ""


def _reasons_to_wait(
    status: RunStatus,
    task: TaskStatus,
    workers: Sequence[Presence],
    place: QueuePlace | None,
    in_the_way: Sequence[Obstacle],
) -> Iterator[Reason]:
    if not workers:
        yield Reason(kind=ReasonKind.NO_WORKERS, message="no worker is connected; start one with: fleetest worker")
    else:
        yield from _unmet(status, task, workers)
    for obstacle in in_the_way:
        yield Reason(kind=ReasonKind.WAITS_FOR_RESOURCE, message=obstacle.message, constraint=obstacle.resource)
    if place is None:
        message = "it is about to be handed to a worker, or to be queued again"
        yield Reason(kind=ReasonKind.BEHIND_OTHERS, message=message)
    elif place.ready_at is not None:
        message = f"it waits until {place.ready_at:%H:%M:%S} UTC before its next attempt"
        yield Reason(kind=ReasonKind.RETRY_WAIT, message=message)
    elif place.position > 1:
        yield Reason(
            kind=ReasonKind.BEHIND_OTHERS,
            message=f"{place.position - 1} of {place.queue_length} in its queue come before it "
            "(priority, then fair share between projects, then age)",
            queue_position=place.position,
        )
    else:
        yield Reason(kind=ReasonKind.BEHIND_OTHERS, message="it is next in its queue", queue_position=1)


def _unmet(status: RunStatus, task: TaskStatus, workers: Sequence[Presence]) -> Iterator[Reason]:
    total = len(workers)

    def reason(kind: ReasonKind, concerned: Sequence[Presence], one: str, many: str, constraint: str = "") -> Reason:
        return Reason(
            kind=kind,
            message=f"{len(concerned)} of {_workers(total)} {one if len(concerned) == 1 else many}",
            workers=len(concerned),
            workers_total=total,
            constraint=constraint,
        )

    able = list(workers)
    for key, value in sorted(required_by(status, task).items()):
        lacking = [worker for worker in workers if worker.capabilities.get(key) != value]
        able = [worker for worker in able if worker.capabilities.get(key) == value]
        if lacking:
            wanted = f"{key}={value}"
            yield reason(ReasonKind.MISSING_CAPABILITY, lacking, f"lacks {wanted}", f"lack {wanted}", wanted)
    needed = asked_by(status, task)
    small = [worker for worker in able if not needed.fits(worker.capacity)]
    if small:
        constraint = _largest_excess(
            needed, small
        )  # of what it asks for: what was measured decides only where it packs
        why = f"too small: it needs {constraint}"
        yield reason(ReasonKind.TOO_LARGE, small, f"is {why}", f"are {why}", constraint)
    able = [worker for worker in able if needed.fits(worker.capacity)]
    draining = [worker for worker in able if worker.draining]
    if draining:
        yield reason(
            ReasonKind.WORKERS_DRAINING, draining, "drains and takes no more work", "drain and take no more work"
        )
    unready = [worker for worker in able if not worker.ready and not worker.draining]
    if unready:
        why = unready[0].not_ready_reason
        yield reason(ReasonKind.WORKERS_NOT_READY, unready, f"is not ready: {why}", f"are not ready: {why}")
    able = [worker for worker in able if worker.ready and not worker.draining]
    if task.task.gang is not None:
        yield from _gang(task, able)
        return
    busy = [
        worker
        for worker in able
        if worker.slots_used >= worker.slots or not task.packed.at_most(worker.capacity).fits(worker.free)
    ]
    if busy:
        could, what = "could run it, but", f"no slot or room free now{_why_packed(task)}"
        yield reason(ReasonKind.WORKERS_BUSY, busy, f"{could} has {what}", f"{could} have {what}")


def _gang(task: TaskStatus, able: Sequence[Presence]) -> Iterator[Reason]:
    """Whether all its shards have room at once, ever or now."""
    gang = f"its {task.open_shards} shards start together"
    ever = sum(_seats(task.task.resources, worker.capacity, worker.slots) for worker in able)
    free = sum(_seats(task.packed, worker.free, worker.slots - worker.slots_used) for worker in able)
    if ever < task.open_shards:
        message = (
            f"{gang}, and {_workers(len(able))} that could run them {'has' if len(able) == 1 else 'have'} {ever} slots"
        )
        kind = ReasonKind.TOO_LARGE
    elif free < task.open_shards:
        message, kind = (
            f"{gang}, and of the {ever} slots that they could have, {free} are free now",
            ReasonKind.WORKERS_BUSY,
        )
    else:
        return
    yield Reason(kind=kind, message=message, workers=len(able), workers_total=len(able), constraint="gang")


def _seats(needed: Resources, room: Resources, slots: int) -> int:
    amounts = (
        (needed.cpu_millis, room.cpu_millis),
        (needed.memory_bytes, room.memory_bytes),
        (needed.disk_bytes, room.disk_bytes),
    )
    return max(0, min([slots, *(there // each for each, there in amounts if each)]))


def _why_packed(task: TaskStatus) -> str:
    """What it takes, where that is in no suite."""
    requested = task.task.resources
    if task.packed == requested:
        return ""
    taken = (
        f"it takes {_amounts(task.packed)}, by what its last runs used, of the {_amounts(requested)} that it asks for"
    )
    return f" ({taken})"


def _amounts(resources: Resources) -> str:
    cpu, memory, disk = resources.cpu_millis, resources.memory_bytes, resources.disk_bytes
    named = {f"cpu {cpu / 1000:g}": cpu, f"memory {_size(memory)}": memory, f"disk {_size(disk)}": disk}
    return ", ".join(text for text, amount in named.items() if amount) or "nothing"


def _size(size_bytes: int) -> str:
    """As written where it is a whole number of MiB, else the next one."""
    return format_size(-(-size_bytes >> 20) << 20)


def _largest_excess(needed: Resources, workers: Sequence[Presence]) -> str:
    if needed.cpu_millis > max(worker.capacity.cpu_millis for worker in workers):
        return f"cpu {needed.cpu_millis / 1000:g}"
    if needed.memory_bytes > max(worker.capacity.memory_bytes for worker in workers):
        return f"memory {format_size(needed.memory_bytes)}"
    if needed.disk_bytes > max(worker.capacity.disk_bytes for worker in workers):
        return f"disk {format_size(needed.disk_bytes)}"
    return "more than any of them has in all"


def _workers(number: int) -> str:
    return f"{number} worker{'' if number == 1 else 's'}"
