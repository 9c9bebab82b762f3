"""
How an entry is written in Redis.

Within a queue, entries are members of a sorted set whose scores are all 0, so that Redis keeps them in the order of
their bytes: `PPP:age:index:id`, with 100 - priority, microseconds since 1970, and the place in the batch. Each project
has queues of its own, so the first of each is found without a search, however long they are.

Everything else that is known of an entry is its kind, which it shares with the other shards of its task: it is encoded
once for all of them, and decoded once. An entry's record is its member and its kind, with a line feed in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

import msgspec
from msgspec.structs import replace

from fleetest.common.errors import InvalidRequest
from fleetest.common.tasks import CLUSTER_WIDE, Access, Resources, Use
from fleetest.master.queue.capabilities import queue_name
from fleetest.master.queue.ports import QueueEntry

__all__ = [
    "RecordedUse",
    "are_of_one_kind",
    "check_entry",
    "decode_entry",
    "entry_id",
    "ids_of",
    "members_of",
    "microseconds",
    "queue_of",
    "record_kind",
    "resource_of",
    "run_key",
    "shard_of",
    "time_of",
    "use_of",
    "uses_of",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_HIGHEST_PRIORITY: Final = 100
_LAST_INDEX: Final = 10**7 - 1  # as wide as it is written
_PLAIN: Final = re.compile("[A-Za-z0-9_.~#-]*").fullmatch


class _Kind(msgspec.Struct, frozen=True, array_like=True):
    """
    Those down to `members` are read by the scripts, by position: see `prelude.lua`. A new field comes last, with a
    default, since entries of an older master may be waiting.

    Args:
        due: microseconds since 1970.
        follows: whether it is claimed with the first of its gang, and waits in no queue.
        members: of the first of a gang: the ids of all of them.
    """

    queue: str
    priority: int
    charge: float
    asked: tuple[int, int, int]
    packed: tuple[int, int, int] | None
    environment_key: str
    due: int | None
    uses: tuple[RecordedUse, ...] | None
    follows: bool
    members: tuple[str, ...] | None
    project: str
    requirements: dict[str, str]
    cost: float
    weight: float
    gang: int


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
_decoder: Final = msgspec.msgpack.Decoder(_Kind)


def microseconds(moment: datetime) -> int:
    """Since 1970; `moment` is aware."""
    return (moment - _EPOCH) // _MICROSECOND


def time_of(count: int) -> datetime:
    """The opposite of `microseconds`."""
    return _EPOCH + count * _MICROSECOND


def entry_id(run_id: str, shard_id: str) -> str:
    """Ids of a run follow one another in the order of bytes; a slash in an id cannot be taken for ours."""
    return f"{_quoted(run_id)}/{_quoted_shard(shard_id)}"


def run_key(run_id: str) -> str:
    """How a run is named in the queue."""
    return _quoted(run_id)


def shard_of(identifier: bytes) -> str:
    """The shard id in an entry's id."""
    return _unquoted(identifier.decode().partition("/")[2])


def ids_of(identifier: bytes) -> tuple[str, str]:
    """The run id and the shard id in an entry's id."""
    run_id, _, shard_id = identifier.decode().partition("/")
    return _unquoted(run_id), _unquoted(shard_id)


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


def record_kind(entry: QueueEntry, *, members: tuple[str, ...] | None = None, follows: bool = False) -> bytes:
    """
    What it has in common with its like.

    Args:
        members: of the first entry of a gang: the ids of all of them.
        follows: whether it is another one of a gang.
    """
    uses = uses_of(entry.project, entry.uses, max(entry.gang, 1)) if entry.uses else None
    return _encoder.encode(
        _Kind(
            queue=queue_name(entry.requirements, entry.project, uses or ()),
            priority=entry.priority,
            charge=entry.cost / entry.weight,
            asked=_amounts(entry.resources),
            packed=None if entry.packed is None else _amounts(entry.packed),
            environment_key=entry.environment_key,
            due=None if entry.not_before is None else microseconds(entry.not_before),
            uses=uses,
            follows=follows,
            members=members or None,
            project=entry.project,
            requirements=dict(entry.requirements),
            cost=entry.cost,
            weight=entry.weight,
            gang=entry.gang,
        )
    )


def are_of_one_kind(one: QueueEntry, other: QueueEntry) -> bool:
    """Whether `record_kind` surely is the same for both: the shards of a task share what they are made of."""
    return (
        one.requirements is other.requirements
        and one.resources is other.resources
        and one.packed is other.packed
        and one.uses is other.uses
        and one.not_before is other.not_before
        and one.project == other.project
        and one.priority == other.priority
        and one.environment_key == other.environment_key
        and one.cost == other.cost
        and one.weight == other.weight
        and one.gang == other.gang == 0
    )


def members_of(entries: Sequence[QueueEntry], places: Iterable[int]) -> list[str]:
    """
    Those of entries of one run. What they begin with is mostly the same.

    Args:
        places: in the batch, which decides between entries of the same age.
    """
    run = run_key(entries[0].run_id)
    members, last, beginning = list[str](), None, ""
    for entry, place in zip(entries, places, strict=True):
        this = entry.priority, entry.enqueued_at
        if this != last:
            last, beginning = this, f"{_HIGHEST_PRIORITY - this[0]:03d}:{max(0, microseconds(this[1])):017d}"
        index = str(min(place, _LAST_INDEX)).zfill(7)
        members.append(f"{beginning}:{index}:{run}/{_quoted_shard(entry.shard_id)}")
    return members


def decode_entry(member: bytes, kind: bytes) -> QueueEntry:
    """The entry that was written."""
    _, age, _, identifier = member.decode().split(":")
    run, _, shard = identifier.partition("/")
    return replace(_like(kind), run_id=_unquoted(run), shard_id=_unquoted(shard), enqueued_at=_time_of(age))


@lru_cache(maxsize=1024)
def _like(kind: bytes) -> QueueEntry:
    """An entry of the kind: to replace what makes one its own takes a sixth of the time of making it."""
    record = _decoder.decode(kind)
    return QueueEntry(
        run_id="",
        shard_id="",
        enqueued_at=_EPOCH,
        project=record.project,
        priority=record.priority,
        requirements=record.requirements,
        resources=_resources(*record.asked),
        packed=None if record.packed is None else _resources(*record.packed),
        environment_key=record.environment_key,
        not_before=None if record.due is None else time_of(record.due),
        cost=record.cost,
        weight=record.weight,
        uses=tuple(map(use_of, record.uses)) if record.uses else (),
        gang=record.gang,
    )


@lru_cache(maxsize=1024)
def _time_of(age: str) -> datetime:
    """The shards of a task wait since the same moment."""
    return time_of(int(age))


def queue_of(record: bytes) -> str:
    """The name of the queue to which a recorded entry belongs."""
    return _decoder.decode(record.partition(b"\n")[2]).queue


def _amounts(resources: Resources) -> tuple[int, int, int]:
    return resources.cpu_millis, resources.memory_bytes, resources.disk_bytes


@lru_cache(maxsize=1024)
def _resources(cpu_millis: int, memory_bytes: int, disk_bytes: int) -> Resources:
    """The shards of a task need the same."""
    return Resources(cpu_millis=cpu_millis, memory_bytes=memory_bytes, disk_bytes=disk_bytes)


def _unquoted(text: str) -> str:
    plain = text.replace("%23", "#")
    return unquote(text) if "%" in plain else plain


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
