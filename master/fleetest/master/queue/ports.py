"""
What the master asks of its coordination. Every adapter passes `tests/contract/test_queue.py`.

Nothing here is the truth: after the loss of all of it the reconciler puts it back from the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from fleetest.common.results import ResourceSample
from fleetest.common.tasks import Resources, Use

__all__ = [
    "Bid",
    "Claim",
    "Claims",
    "CommitFeed",
    "CommitNotice",
    "PeerChannel",
    "PeerWord",
    "Presence",
    "QueueEntry",
    "QueuePlace",
    "ResourceHold",
    "ResourceLedger",
    "ResourceView",
    "SecretStore",
    "ShardQueue",
    "WorkerRegistry",
]


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    A shard that waits for a worker.

    Args:
        priority: 0 to 100, 100 first.
        requirements: capabilities; sorted and hashed they name the queue.
        resources: what a worker must have in all, its capacity, to be given the shard.
        packed: how much of a worker's free room the shard takes; `None` means as much as `resources`.
        environment_key: a worker that has this environment warm is preferred among equals.
        not_before: earliest start (a retry's delay).
        enqueued_at: since when the task waits; a retry keeps it.
        cost: how much of its project's share it uses, in a unit of the caller's choice.
        weight: the project's share, compared with the other projects'.
        uses: named resources that must be free for it.
        gang: how many shards of the task are claimed with it, itself included; they are alike, and all of them are
            enqueued at once. 0: it is claimed by itself.
    """

    run_id: str
    shard_id: str
    project: str
    priority: int
    enqueued_at: datetime
    requirements: Mapping[str, str] = msgspec.field(default_factory=dict)
    resources: Resources = Resources()
    packed: Resources | None = None
    environment_key: str = ""
    not_before: datetime | None = None
    cost: float = 1.0
    weight: float = 1.0
    uses: tuple[Use, ...] = ()
    gang: int = 0

    def takes(self, capacity: Resources) -> Resources:
        """How much of a worker's free room the shard takes there: an empty worker that may have it always can."""
        return (self.resources if self.packed is None else self.packed).at_most(capacity)


class Bid(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one worker would take now: at most `shards`, within `free`. `capacity` and `slots` are what it has in all.

    With no shards at all it only tells that there is such a worker, which a gang may wait for.

    Args:
        ahead: how many more may wait in the sessions that are warm there, each behind one of these, for no more room.
    """

    worker_id: str
    capabilities: Mapping[str, str]
    shards: int
    free: Resources
    capacity: Resources
    warm_environment_keys: frozenset[str] = frozenset()
    slots: int = 0
    ahead: int = 0


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    The first phase: the entry has left its queue for this worker, and comes back unless confirmed in time.

    Args:
        follows: it waits in the session of one that was claimed before it, and takes no room besides.
    """

    entry: QueueEntry
    worker_id: str
    follows: bool = False


class Claims(list[Claim]):
    """
    What was claimed at once.

    Attributes:
        in_vain: bidders for whom nothing waits any more: to ask again is of no use before something is enqueued.
        due_in: how long the first of those that wait out a delay has to wait still.
        gang_waits: whether a gang waits for more workers than there were: the next claim should have the bids of all.
    """

    def __init__(
        self,
        claims: Iterable[Claim] = (),
        *,
        in_vain: frozenset[str] = frozenset(),
        due_in: timedelta | None = None,
        gang_waits: bool = False,
    ) -> None:
        super().__init__(claims)
        self.in_vain = in_vain
        self.due_in = due_in
        self.gang_waits = gang_waits


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlace:
    """Where an entry waits: 1 is next in its queue. `ready_at` is set while it waits out a delay."""

    position: int
    queue_length: int
    ready_at: datetime | None = None


class ShardQueue(Protocol):
    """
    Ambient priority queues: each project has one for each set of required capabilities, declared by nobody.

    Order among all queues that a worker satisfies: priority, then fair share between projects
    (start-time fair queueing, Goyal et al. 1996), then age. Where an entry may go is judged by its `resources`, whether
    there is room for it now by what it `takes`. One that does not fit now is looked past, at most `LOOK_AHEAD` deep;
    one that has waited for long reserves a worker large enough for it.

    A worker that bids for some `ahead` is given what comes next in order behind an entry for its warm environment, as
    long as that is of the same task and nothing special, and three times as many are left for others.

    A gang is claimed whole, for one worker or several, or not at all. Once it has waited for long, it reserves slots of
    as many workers as it needs, provided that all that bid could ever have room for it.

    One whose named resources others have does not count among those that are looked past; once it has waited for long,
    those that come after it get none of these resources before it does. A claim holds them; see `ResourceLedger`.
    """

    async def enqueue(self, entries: Sequence[QueueEntry]) -> None:
        """Idempotent by `(run_id, shard_id)`: what waits or is claimed stays as it is. Wakes dispatchers."""

    async def claim(self, bids: Sequence[Bid], *, confirming: Sequence[Claim] = ()) -> Claims:
        """
        Take entries for these workers, in one script, in O(log n) of the backlog.

        Args:
            confirming: earlier claims that are to be confirmed on the way.
        """

    async def confirm(self, claims: Sequence[Claim]) -> None:
        """The second phase: the attempts have begun; forget the entries. What they hold of resources is given back."""

    async def release(self, claims: Sequence[Claim]) -> None:
        """Put entries back where they were."""

    async def remove(self, run_id: str, shard_ids: Sequence[str] | None = None) -> None:
        """Take a run's entries out, waiting or claimed: some, or all."""

    async def return_expired(self) -> int:
        """Put back claims that were never confirmed, and entries whose delay is over; answer how many."""

    async def place(self, run_id: str, shard_id: str) -> QueuePlace | None: ...

    async def waiting(self, run_id: str) -> frozenset[str]:
        """The shard ids of the run that wait or are claimed."""

    async def count(self, run_id: str) -> int:
        """How many there are in `waiting`, for much less."""

    async def depth(self) -> int: ...

    def wakeups(self) -> AsyncIterator[None]:
        """Yields when work may have come. Several wake-ups may be told as one; none is lost while iterating."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceHold:
    """
    What a shard has of named resources. A task of a run is who holds what is shared or exclusive, by all its shards.

    Args:
        token: of the attempt; 0 while the shard is only claimed.
        project: whose resources are meant, where they are not the cluster's.
    """

    run_id: str
    shard_id: str
    token: int
    project: str = ""
    uses: tuple[Use, ...] = ()

    @property
    def task_id(self) -> str:
        return self.shard_id.rpartition("#")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceView:
    """
    What is held.

    Args:
        known: whether that is all; until it is, nobody is given a resource.
        holds: in the order of their runs.
        first_in_line: run id and task name of the one that gets a resource next, by project (empty: the cluster's) and
            the resource's name.
    """

    known: bool
    holds: Sequence[ResourceHold]
    first_in_line: Mapping[tuple[str, str], tuple[str, str]]


class ResourceLedger(Protocol):
    """
    Who has which named resources. A claim of a `ShardQueue` takes them, atomically; what happens to them then is said
    here. A claim that is released, removed or runs out gives them back by itself.
    """

    async def keep(self, holds: Sequence[ResourceHold], worker_ids: Sequence[str]) -> Sequence[ResourceHold]:
        """
        The second phase for claims with resources, in place of `ShardQueue.confirm`: the attempts have begun. Answers
        those that are held from now on; another attempt must not run, since its claim has run out meanwhile.

        Args:
            worker_ids: of the claims, in the order of `holds`.
        """

    async def give_back(self, holds: Sequence[ResourceHold]) -> None:
        """These attempts are over: those of the same token are held no more. Idempotent. Wakes dispatchers."""

    async def restore(self, holds: Sequence[ResourceHold], *, recovery: str = "") -> bool:
        """
        The log says that these attempts live. A shard that holds something already is left as it is.

        Args:
            recovery: these are all that there are, and were looked for since `recover` answered this; from now on all
                is known, unless it was lost once more meanwhile: then the answer is false.
        """

    async def recover(self) -> str:
        """Somebody is about to look for all attempts that hold something. An earlier one's search counts no more."""

    async def view(self) -> ResourceView: ...


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """
    A worker as the registry knows it.

    Args:
        session_id: names this life of the worker.
        instance: new at every start of the agent.
        draining: it takes no more work.
        last_seen_at: its last heartbeat.
        stream: names the stream over which the worker is spoken with; a master whose stream has another name has lost
            the worker to another master, or to another stream.
    """

    worker_id: str
    session_id: str
    instance: str
    version: str
    hostname: str
    capabilities: Mapping[str, str]
    capacity: Resources
    slots: int
    registered_at: datetime
    last_seen_at: datetime
    free: Resources = Resources()
    slots_used: int = 0
    draining: bool = False
    ready: bool = True
    not_ready_reason: str = ""
    host: ResourceSample | None = None
    offline: bool = False
    stream: str = ""


class WorkerRegistry(Protocol):
    """Who works here. A worker's leases live as long as its session does."""

    async def register(self, worker: Presence, *, lease_ttl: timedelta) -> Presence | None:
        """
        Start a session; answers the session that it replaces (the same instance again, or a dead one), if any.

        Raises:
            AlreadyExists: a live worker of another instance has this id.
        """

    async def attach(self, worker: Presence, *, lease_ttl: timedelta) -> None:
        """
        A stream of the worker's session begins, and from now on is the only one. As good as a heartbeat.

        Raises:
            LeaseLost: the session expired, or another one replaced it.
        """

    async def renew(self, worker: Presence, *, lease_ttl: timedelta) -> None:
        """
        A heartbeat: the session lives on, with what it says of itself.

        Raises:
            LeaseLost: the session expired, another one replaced it, or another stream of it began.
        """

    async def note(self, workers: Sequence[Presence]) -> None:
        """
        What their masters know of workers between two heartbeats. Prolongs no session; those that are over, or have
        another stream, are left as they are.
        """

    async def end(self, worker_id: str, session_id: str) -> None:
        """The worker said goodbye: its session is over at once. Idempotent."""

    async def drain(self, worker_id: str) -> None:
        """
        Mark the worker; it stays marked until it registers as a new instance.

        Raises:
            NotFound: no such worker.
        """

    async def get(self, worker_id: str) -> Presence | None: ...

    async def list(self) -> Sequence[Presence]:
        """Every worker seen within the last day; those without a live session say `offline`."""

    async def live_sessions(self) -> Mapping[str, str]:
        """Worker id to session id of all that are alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitNotice:
    """
    A commit has been made.

    Args:
        events: its content, or `None` when it was too large to be sent along.
        stops: whether it stops attempts, so that every master looks which of them run on its workers.
    """

    run_id: str
    position: int
    events: bytes | None
    stops: bool = False


class CommitFeed(Protocol):
    """Tells every master and gateway of commits. May lose or repeat a notice: the log's positions show gaps."""

    async def publish(self, notices: Sequence[CommitNotice]) -> None: ...

    def notices(self) -> AsyncIterator[Sequence[CommitNotice]]:
        """From now on, in the order of publication. The first answer is empty: what is published after it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWord:
    """
    What a master has learnt on its own streams, for the others to look into.

    Args:
        by: names the master.
        output_of: runs of which there is more output.
        workers: those of whom the registry says something new: one drains, or has another stream.
        dropped: scopes of the result cache in which nothing counts any more.
    """

    by: str
    output_of: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class PeerChannel(Protocol):
    """Between the masters, who hear their own words, too. May lose words, and nothing may depend on one."""

    async def tell(self, word: PeerWord) -> None: ...

    def words(self) -> AsyncIterator[PeerWord]:
        """From now on."""


class SecretStore(Protocol):
    """
    Holds the secrets of runs while they last. Kept apart from the log and the records, and never written there; when
    they are lost, tasks that need them fail and say so.
    """

    async def put(self, run_id: str, secrets: Mapping[str, str], *, ttl: timedelta) -> None: ...

    async def get(self, run_id: str) -> Mapping[str, str]:
        """Empty when there are none (any more)."""

    async def drop(self, run_id: str) -> None:
        """Idempotent."""

    async def held(self) -> frozenset[str]:
        """The ids of the runs that have secrets here; those put or dropped meanwhile may be among them."""
