"""The workers whose streams this master holds, and what it has to say to each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from fleetest.common.states import ShardKind
from fleetest.common.tasks import Resources, Task
from fleetest.master.queue.ports import Bid, Presence
from fleetest.master.runs.events import RunSubmitted

__all__ = [
    "Acknowledge",
    "Assign",
    "Assigned",
    "AttemptRef",
    "Begin",
    "Drain",
    "Expect",
    "HandBack",
    "Heard",
    "Instruction",
    "Session",
    "Sessions",
    "Stop",
    "Want",
    "Work",
    "settle",
]


_MOST_EARLY_STOPS: Final = 256
_ACKNOWLEDGED_WITHIN: Final = timedelta(milliseconds=20)


class AttemptRef(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One try at a shard."""

    run_id: str
    shard_id: str
    token: int


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much work a worker would take now. One that is unhurried need not hear that there is none.

    Args:
        ahead: how many more may wait in its warm sessions, each behind one that is given, and take no room besides.
    """

    number: int
    shards: int
    free: Resources
    warm_environment_keys: frozenset[str] = frozenset()
    unhurried: bool = False
    ahead: int = 0

    def without(self, assigned: Sequence[Assigned]) -> Want:
        """What is left of it when the worker has these."""
        if not assigned:
            return self
        taking = [each for each in assigned if not each.follows]
        return replace(
            self,
            shards=self.shards - len(taking),
            free=self.free - Resources.total([each.reserve for each in taking]),
            ahead=max(0, self.ahead - (len(assigned) - len(taking))),
            warm_environment_keys=self.warm_environment_keys - {each.work.environment_key for each in assigned},
        )


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the shards of a task, of which there may be thousands, have in common for those who run them.

    Args:
        requirements: capabilities that a worker must have.
        secrets: by the variables that they fill; they are not shown.
        run_network: which run's network its container is in; empty: none.
    """

    request: RunSubmitted
    task: Task
    kind: ShardKind
    shard_count: int
    environment_key: str
    secrets: Mapping[str, str]
    requirements: Mapping[str, str] = msgspec.field(default_factory=dict)
    run_network: str = ""

    def __repr__(self) -> str:
        return f"Work({self.task.name!r}, {self.kind.value})"


class Assigned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    An attempt, with all that a worker must know to make it.

    Args:
        reserve: what it takes of the worker's free room.
        follows: it waits in the session of one that was given before it, and takes no room besides.
    """

    ref: AttemptRef
    work: Work
    number: int
    case_ids: tuple[str, ...]
    shard_index: int
    reserve: Resources
    follows: bool = False


class Assign(msgspec.Struct, frozen=True, kw_only=True):
    """
    Answers a want; perhaps with nothing.

    Args:
        acknowledged: reports up to this batch are durable; 0 says nothing.
    """

    want_number: int
    assigned: tuple[Assigned, ...]
    acknowledged: int = 0


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """End these attempts."""

    refs: tuple[AttemptRef, ...]
    reason: str
    grace: timedelta
    finish_running_case: bool


class HandBack(msgspec.Struct, frozen=True, kw_only=True):
    """Others could run these cases of an attempt now: give up those that have not been started."""

    ref: AttemptRef
    case_ids: tuple[str, ...]


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """All shards of the attempt's gang are ready: its tests begin after so long."""

    ref: AttemptRef
    after: timedelta


class Expect(msgspec.Struct, frozen=True, kw_only=True):
    """
    Work of this task is being planned elsewhere: so many idle slots may get ready for it.

    Args:
        after: so long after they have heard of it, unless its work comes first.
    """

    run_id: str
    request: RunSubmitted
    task: Task
    environment_key: str
    slots: int
    run_network: str = ""
    after: timedelta = timedelta()


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True):
    """Every report up to this sequence number is safe."""

    sequence: int


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Finish what runs, take no more."""

    reason: str


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """Answers a heartbeat."""


Instruction = Assign | Stop | HandBack | Begin | Expect | Acknowledge | Drain | Heard


def _unheard(_: Session) -> None:
    """Nobody wants to know how busy the worker is."""


class Session:
    """
    One worker's stream.

    Args:
        held: the attempts that the worker has as the stream begins.

    Attributes:
        presence: the worker as known now: its free slots and room follow what it is given and what it ended.
        instructions: what is to be sent, in order; `None` ends the stream.
        answered: whether the open want has had an answer.
        question: done once what the worker wants has been put to the queue; whoever asks it so, lets others know.
        speed: of the worker, as the newest plan has it; 1 where nothing is known.
        on_count: called when the worker's slots or free room have changed.
    """

    def __init__(self, presence: Presence, held: Iterable[AttemptRef] = ()) -> None:
        self._attempts = set(held)
        self._services: set[AttemptRef] = set()
        self._early_stops: dict[AttemptRef, Stop] = {}
        self._aside: list[Assigned] = []
        self._over = False
        self._acknowledged = 0
        self._acknowledging: asyncio.TimerHandle | None = None
        self.on_count: Callable[[Session], None] = _unheard
        self.question: asyncio.Future[None] | None = None
        self.speed = 1.0
        self.presence = replace(presence, slots_used=len(self._attempts))
        self.instructions: asyncio.Queue[Instruction | None] = asyncio.Queue()
        self.want: Want | None = None
        self.answered = True

    @property
    def over(self) -> bool:
        """Whether the worker is spoken with over another stream by now."""
        return self._over

    def holds(self, ref: AttemptRef) -> bool:
        """Whether the worker has the attempt: it said so, or was given it."""
        return ref in self._attempts

    def ask(self, want: Want) -> None:
        self.want, self.answered = want.without(self._aside), want.unhurried
        self._count()

    def ask_besides(self, want: Want) -> bool:
        """
        As `ask`, along with word of what has ended, which may wait until it is known what the worker is given. It does
        not wait where the want has grown by little, of which much was open already. Answers whether it does.
        """
        standing = self.want.shards if self.want is not None and self.answered else 0
        self.ask(want)
        waits = not (want.unhurried and standing <= want.shards <= 2 * standing)
        if waits:
            self.question = asyncio.get_running_loop().create_future()
        return waits

    async def asked(self, patience: timedelta) -> None:
        """Returns when the queue has answered what was asked besides, or after so long."""
        question = self.question
        if question is not None and not question.done():
            timer = asyncio.get_running_loop().call_later(patience.total_seconds(), settle, question)
            await question
            timer.cancel()

    def drain(self, instruction: Drain) -> None:
        """Give the worker no more work, and tell it why."""
        if not self.presence.draining:
            self.presence = replace(self.presence, draining=True)
            self.instructions.put_nowait(instruction)

    def stop(self, instruction: Stop) -> None:
        """Have attempts ended. The word may come before the attempt is sent: then it is said again after it."""
        self.instructions.put_nowait(instruction)
        for ref in instruction.refs:
            if ref not in self._attempts:
                self._early_stops[ref] = replace(instruction, refs=(ref,))
        while len(self._early_stops) > _MOST_EARLY_STOPS:  # most are of attempts that have just ended
            del self._early_stops[next(iter(self._early_stops))]

    def hand_back(self, instruction: HandBack) -> None:
        """Ask for cases of an attempt. One that was not sent yet is asked for them later, if that is still of use."""
        if instruction.ref in self._attempts:
            self.instructions.put_nowait(instruction)

    def begin(self, instruction: Begin) -> None:
        """Have an attempt begin with the others of its gang. One that was not sent yet is not ready, and nobody is."""
        if instruction.ref in self._attempts:
            self.instructions.put_nowait(instruction)

    def expect(self, planned: Assigned, after: timedelta) -> None:
        """Let slots that have nothing to do get ready for a task whose plan another one makes."""
        if self.want is not None and self.want.shards > 0 and planned.reserve.fits(self.want.free):
            self.instructions.put_nowait(
                Expect(
                    run_id=planned.ref.run_id,
                    request=planned.work.request,
                    task=planned.work.task,
                    environment_key=planned.work.environment_key,
                    run_network=planned.work.run_network,
                    slots=self.want.shards,
                    after=after,
                )
            )

    def hear_from_registry(self, known: Presence) -> None:
        """
        Another master may have had to do with the worker: drained it, or taken it over. A session without a stream is
        one whose stream Redis has forgotten.
        """
        forgotten = not known.stream and known.session_id == self.presence.session_id
        if known.stream != self.presence.stream and not known.offline and not forgotten:
            self.end()
        elif known.draining and known.instance == self.presence.instance:
            self.drain(Drain(reason="drained by an operator"))

    def end(self) -> None:
        """The worker has another stream: this one gets nothing more. Idempotent."""
        if not self._over:
            self._over = True
            self.instructions.put_nowait(None)

    @property
    def want_number(self) -> int:
        """Of the newest want; 0 before the first."""
        return self.want.number if self.want is not None else 0

    @property
    def wants_more(self) -> bool:
        """Whether part of its want is open."""
        return self.want is not None and self.want.shards > 0

    def bid(self) -> Bid | None:
        """What the worker would take now; `None` when it takes nothing."""
        want, presence = self.want, self.presence
        if self._over or want is None or want.shards <= 0 or presence.draining or not presence.ready:
            return None
        return Bid(
            worker_id=presence.worker_id,
            capabilities=presence.capabilities,
            shards=want.shards,
            free=want.free,
            capacity=presence.capacity,
            slots=presence.slots,
            warm_environment_keys=want.warm_environment_keys,
            ahead=want.ahead,
        )

    def token_bid(self) -> Bid | None:
        """That there is such a worker, though it takes nothing now; `None` when it will not take anything soon."""
        presence = self.presence
        if self._over or presence.draining or not presence.ready:
            return None
        return Bid(
            worker_id=presence.worker_id,
            capabilities=presence.capabilities,
            shards=0,
            free=Resources(),
            capacity=presence.capacity,
            slots=presence.slots,
        )

    def assign(self, assigned: Sequence[Assigned]) -> None:
        """Answer the want; what is left of it stays open."""
        want = self.want
        if want is None or (self.answered and not assigned):
            return
        self.want = want.without(assigned)
        self._send(want.number, assigned)

    def set_aside(self, assigned: Assigned) -> None:
        """Take an attempt off what the worker wants, though it cannot be sent yet. Only while it wants something."""
        assert self.want is not None
        self._aside.append(assigned)
        self.want = self.want.without([assigned])

    def put_back(self, assigned: Assigned) -> None:
        """Nothing came of an attempt that was set aside."""
        assert self.want is not None
        self._aside.remove(assigned)
        free = self.want.free + assigned.reserve
        self.want = replace(self.want, shards=self.want.shards + 1, free=free)

    def assign_set_aside(self, assigned: Sequence[Assigned]) -> None:
        """Send what was set aside."""
        assert self.want is not None
        for each in assigned:
            self._aside.remove(each)
        self._send(self.want.number, assigned)

    def _send(self, want_number: int, assigned: Sequence[Assigned]) -> None:
        self.answered = True
        self._attempts |= {each.ref for each in assigned}
        self._services |= {each.ref for each in assigned if each.work.task.service is not None}
        acknowledged, self._acknowledged = self._acknowledged, 0
        self.instructions.put_nowait(
            Assign(want_number=want_number, assigned=tuple(assigned), acknowledged=acknowledged)
        )
        self._count()  # afterwards: whoever hears of that should not come before the worker
        for each in assigned if self._early_stops else ():
            if (stop := self._early_stops.pop(each.ref, None)) is not None:
                self.instructions.put_nowait(stop)

    def acknowledge(self, sequence: int) -> None:
        """Reports up to this batch are durable. Nobody waits for that: the next assignment says it, if one comes."""
        self._acknowledged = sequence
        if self._acknowledging is None:
            within = _ACKNOWLEDGED_WITHIN.total_seconds()
            self._acknowledging = asyncio.get_running_loop().call_later(within, self._say_acknowledged)

    def _say_acknowledged(self) -> None:
        self._acknowledging = None
        if self._acknowledged:
            self.instructions.put_nowait(Acknowledge(sequence=self._acknowledged))
            self._acknowledged = 0

    def release(self, refs: Iterable[AttemptRef]) -> None:
        """The worker has these attempts no more. Idempotent."""
        over = set(refs)
        self._attempts -= over
        if self._services:
            self._services -= over
        self._count()

    def _count(self) -> None:
        free = self.want.free if self.want is not None else self.presence.free
        before = self.presence
        # A service takes no slot, and several attempts may wait in one.
        used = min(len(self._attempts) - len(self._services), before.slots)
        if (used, free) != (before.slots_used, before.free):
            self.presence = replace(before, slots_used=used, free=free)
            self.on_count(self)


def settle(question: asyncio.Future[None]) -> None:
    """Whoever waits for it goes on. Idempotent."""
    if not question.done():
        question.set_result(None)


class Sessions:
    """By worker id; a worker has one stream."""

    def __init__(self) -> None:
        self._by_worker: dict[str, Session] = {}
        self._changed: dict[str, Session] = {}
        self._news = asyncio.Event()

    def add(self, session: Session) -> None:
        """A new stream of a worker ends the one before."""
        before = self._by_worker.get(session.presence.worker_id)
        if before is not None:
            before.end()
        self._by_worker[session.presence.worker_id] = session
        session.on_count = self._take_note

    def remove(self, session: Session) -> None:
        if self._by_worker.get(session.presence.worker_id) is session:
            del self._by_worker[session.presence.worker_id]

    def get(self, worker_id: str) -> Session | None:
        return self._by_worker.get(worker_id)

    def know_speeds(self, speeds: Mapping[str, float]) -> None:
        """Of workers, by id."""
        for worker_id, speed in speeds.items():
            if (session := self._by_worker.get(worker_id)) is not None:
                session.speed = speed

    async def changes(self) -> Sequence[Session]:
        """Those whose slots or free room have changed since the last answer, once there is one. For one listener."""
        await self._news.wait()
        self._news.clear()
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def _take_note(self, session: Session) -> None:
        self._changed[session.presence.worker_id] = session
        self._news.set()

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_worker.values()))

    def __len__(self) -> int:
        return len(self._by_worker)
