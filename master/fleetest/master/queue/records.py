"""
How an entry is written in Redis.

Within a queue, entries are members of a sorted set whose scores are all 0, so that Redis keeps them in the order of
their bytes: `PPP:project:age:index:id`, with 100 - priority, microseconds since 1970, and the place in the batch.
Thus the entries of one project within a priority lie together, oldest first, and ZRANGEBYLEX finds each's head.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from fleetest.common.errors import InvalidRequest
from fleetest.common.tasks import CLUSTER_WIDE, Access, Resources, Use
from fleetest.master.queue.capabilities import queue_name
from fleetest.master.queue.ports import QueueEntry

__all__ = [
    "Recorded",
    "RecordedUse",
    "check_entry",
    "decode_entry",
    "entry_id",
    "first_id_after_run",
    "first_id_of_run",
    "ids_of",
    "microseconds",
    "queue_of",
    "record_entry",
    "resource_of",
    "shard_of",
    "time_of",
    "use_of",
    "uses_of",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_HIGHEST_PRIORITY: Final = 100
_PLAIN: Final = re.compile("[A-Za-z0-9_.~#-]*").fullmatch


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """
    The first nine and those from `packed` to `members` are read by the scripts, by position: see `prelude.lua`. A new
    field comes last, with a default, since entries of an older master may be waiting.
    """

    member: str
    queue: str
    project_key: str
    enqueued_at: int
    charge: float
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    environment_key: str
    run_id: str
    shard_id: str
    project: str
    priority: int
    not_before: int | None
    requirements: dict[str, str]
    cost: float
    weight: float
    packed: tuple[int, int, int] | None = None
    uses: tuple[RecordedUse, ...] | None = None
    follows: bool = False
    members: tuple[str, ...] | None = None
    gang: int = 0


class RecordedUse(msgspec.Struct, frozen=True, array_like=True):
    """
    How an entry uses a resource; read by the scripts, by position. A new field comes last, with a default.

    Args:
        name: of the resource in the whole cluster.
        size: how many there are.
        together: by how many shards at once, which must all have it.
    """

    name: str
    access: str
    amount: int
    size: int
    together: int = 1


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Record)


def microseconds(moment: datetime) -> int:
    """Since 1970; `moment` is aware."""
    return (moment - _EPOCH) // _MICROSECOND


def time_of(count: int) -> datetime:
    """The opposite of `microseconds`."""
    return _EPOCH + count * _MICROSECOND


def entry_id(run_id: str, shard_id: str) -> str:
    """Ids of a run follow one another in the order of bytes; a slash in an id cannot be taken for ours."""
    return f"{_quoted(run_id)}/{_quoted_shard(shard_id)}"


def first_id_of_run(run_id: str) -> str:
    """Not greater than any id of the run's entries."""
    return f"{_quoted(run_id)}/"


def first_id_after_run(run_id: str) -> str:
    """Greater than any id of the run's entries: `0` follows the slash."""
    return f"{_quoted(run_id)}0"


def shard_of(identifier: bytes) -> str:
    """The shard id in an entry's id."""
    return unquote(identifier.decode().partition("/")[2])


def ids_of(identifier: bytes) -> tuple[str, str]:
    """The run id and the shard id in an entry's id."""
    run_id, _, shard_id = identifier.decode().partition("/")
    return unquote(run_id), unquote(shard_id)


@lru_cache(maxsize=1024)
def uses_of(project: str, uses: tuple[Use, ...], together: int = 1) -> tuple[RecordedUse, ...]:
    """As the scripts read them: `project/shop`, and `/shop` for what all projects share."""
    return tuple(
        RecordedUse(
            f"/{use.resource.removeprefix(CLUSTER_WIDE)}"
            if use.resource.startswith(CLUSTER_WIDE)
            else f"{_quoted(project)}/{use.resource}",
            use.access.value,
            use.amount,
            use.size,
            together,
        )
        for use in uses
    )


def resource_of(name: str) -> tuple[str, str]:
    """The project, empty where it is the cluster's, and the resource in a name."""
    project, _, resource = name.partition("/")
    return (unquote(project), resource) if project else ("", CLUSTER_WIDE + resource)


def use_of(recorded: RecordedUse) -> Use:
    """The opposite of `uses_of`, but for the project."""
    resource = resource_of(recorded.name)[1]
    return Use(resource=resource, access=Access(recorded.access), amount=recorded.amount, size=recorded.size)


class Recorded(NamedTuple):
    """An entry as the queue holds it: its names there, and its record."""

    identifier: str
    queue: str
    member: str
    record: bytes


def record_entry(
    entry: QueueEntry, index: int, *, members: tuple[str, ...] | None = None, follows: bool = False
) -> Recorded:
    """
    Args:
        index: its place in the batch, which decides between entries of the same age.
        members: of the first entry of a gang: the ids of all of them.
        follows: whether it is another one of a gang.

    Raises:
        InvalidRequest: its priority, cost or weight is out of range.
    """
    packed = entry.packed
    age = max(0, microseconds(entry.enqueued_at))
    project_key = _quoted(entry.project)
    identifier = entry_id(entry.run_id, entry.shard_id)
    member = f"{_HIGHEST_PRIORITY - entry.priority:03d}:{project_key}:{age:017d}:{index:07d}:{identifier}"
    uses = uses_of(entry.project, entry.uses, max(entry.gang, 1)) if entry.uses else None
    queue = queue_name(entry.requirements, uses or ())
    record = _encoder.encode(
        _Record(
            member=member,
            queue=queue,
            project_key=project_key,
            enqueued_at=age,
            charge=entry.cost / entry.weight,
            cpu_millis=entry.resources.cpu_millis,
            memory_bytes=entry.resources.memory_bytes,
            disk_bytes=entry.resources.disk_bytes,
            environment_key=entry.environment_key,
            run_id=entry.run_id,
            shard_id=entry.shard_id,
            project=entry.project,
            priority=entry.priority,
            not_before=None if entry.not_before is None else microseconds(entry.not_before),
            requirements=dict(entry.requirements),
            cost=entry.cost,
            weight=entry.weight,
            packed=None if packed is None else (packed.cpu_millis, packed.memory_bytes, packed.disk_bytes),
            uses=uses,
            follows=follows,
            members=members or None,
            gang=entry.gang,
        )
    )
    return Recorded(identifier, queue, member, record)


def decode_entry(raw: bytes) -> QueueEntry:
    """The entry that was encoded."""
    record = _decoder.decode(raw)
    packed = record.packed
    return QueueEntry(
        run_id=record.run_id,
        shard_id=record.shard_id,
        project=record.project,
        priority=record.priority,
        enqueued_at=time_of(record.enqueued_at),
        requirements=record.requirements,
        resources=_resources(record.cpu_millis, record.memory_bytes, record.disk_bytes),
        packed=None if packed is None else _resources(*packed),
        environment_key=record.environment_key,
        not_before=None if record.not_before is None else time_of(record.not_before),
        cost=record.cost,
        weight=record.weight,
        uses=tuple(map(use_of, record.uses)) if record.uses else (),
        gang=record.gang,
    )


def queue_of(raw: bytes) -> str:
    """The name of the queue to which a recorded entry belongs."""
    return _decoder.decode(raw).queue


@lru_cache(maxsize=1024)
def _resources(cpu_millis: int, memory_bytes: int, disk_bytes: int) -> Resources:
    """The shards of a task need the same."""
    return Resources(cpu_millis=cpu_millis, memory_bytes=memory_bytes, disk_bytes=disk_bytes)


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    """Free of the signs that part an id or a member. Of runs and projects there are few."""
    return quote(text, safe="")


def _quoted_shard(text: str) -> str:
    """As `_quoted`, and quick for most names of shards, of which there are many."""
    return text.replace("#", "%23") if _PLAIN(text) else quote(text, safe="")


def check_entry(entry: QueueEntry) -> None:
    """
    Raises:
        InvalidRequest: a priority, cost or weight is out of range.
    """
    if not 0 <= entry.priority <= _HIGHEST_PRIORITY:
        raise InvalidRequest(
            f"shard {entry.shard_id!r} has priority {entry.priority}", hint="A priority is a number from 0 to 100."
        )
    if not (entry.cost >= 0 and entry.weight > 0):
        raise InvalidRequest(
            f"shard {entry.shard_id!r} has cost {entry.cost} and weight {entry.weight}",
            hint="A cost is at least 0, a weight more than 0.",
        )
