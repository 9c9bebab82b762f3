"""Which slot gets an attempt, and how many more a worker could take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from fleetest.common.errors import CapacityExceeded
from fleetest.common.tasks import Resources
from fleetest.worker.attempts import Attempt
from fleetest.worker.messages import Expect
from fleetest.worker.slot import Slot

__all__ = ["Credit", "Slots"]

_NOTHING: Final = Resources()


class Credit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    How much work there is room for now. The keys are of environments that are warm, and in a slot with room.

    Args:
        ahead: how many more may wait there, each behind one that is given.
    """

    shards: int
    free: Resources
    warm_environment_keys: tuple[str, ...] = ()
    ahead: int = 0

    def is_news_after(self, said: Credit) -> bool:
        """Whether it is another one, and not in what may wait alone; nothing is nothing, whatever is free."""
        if not (self.shards or said.shards):
            return False
        return (self.shards, self.free, self.warm_environment_keys) != (
            said.shards,
            said.free,
            said.warm_environment_keys,
        )


class Slots:
    """
    A worker's slots, and what they share: its capacity.

    Services have places of their own, as many as it takes: else those that they serve might find no slot. Only while a
    service starts, one slot less is offered, so that no more of them start at once than the worker has slots.

    Args:
        make_slot: makes one more, by its number.
    """

    def __init__(
        self, slots: Sequence[Slot], capacity: Resources, make_slot: Callable[[int], Slot] | None = None
    ) -> None:
        self._slots = tuple(slots)
        self._capacity = capacity
        self._make_slot = make_slot
        self._serving: list[Slot] = []
        self._used: dict[Slot, None] = {}  # those of the worker's own that were ever given something
        self._busy = (
            0  # so many in front were not idle when they were last looked at, and none of them has ended its work
        )

    def __iter__(self) -> Iterator[Slot]:
        return iter((*self._slots, *self._serving))

    @property
    def used(self) -> Iterator[Slot]:
        """Those that were ever given something. Of a worker with many slots, most may never be."""
        return iter((*self._used, *self._serving))

    @property
    def idle(self) -> bool:
        return all(slot.idle for slot in self.used)

    @property
    def credit(self) -> Credit:
        """Idle slots and hungry ones count; a hungry one's own reservation counts as free."""
        shards, ahead, free = len(self._slots) - len(self._used), 0, self._capacity
        warm: set[str] = set()
        for slot in self._used:
            if slot.idle or slot.hungry:
                shards += 1
                warm.add(slot.environment_key)
                ahead += slot.ahead if slot.hungry else 0
            else:
                free -= slot.reserved
        for slot in self._serving:
            if not slot.idle:
                shards -= slot.starting
                free -= slot.reserved
        warm.discard("")
        return Credit(
            shards=max(0, shards),
            free=free if _NOTHING.fits(free) else _without_debts(free),
            warm_environment_keys=tuple(sorted(warm)),
            ahead=ahead,
        )

    def expect(self, expected: Expect) -> None:
        """Let as many idle slots, those first that would be chosen first, get ready for an attempt of this run."""
        key = expected.spec.environment_key
        idle = sorted((slot for slot in self._slots if slot.idle), key=lambda slot: _preference(slot, key))
        for slot in idle[: expected.slots]:
            self._used[slot] = None
            slot.expect(expected)

    def service_ended(self, run_id: str) -> None:
        """Give back what the service had, and those that found it in its run's network: nobody will use that again."""
        for slot in self._serving:
            if slot.idle:
                slot.release()
        for slot in self._slots:
            if slot.idle and slot.run_network == run_id:
                slot.release()

    def place_for(self, attempt: Attempt) -> Slot:
        """
        The slot where an attempt starts soonest: an idle one that has its environment, an idle one that has
        none, the idle one that was used the longest time ago, a hungry one. One that was hungry until a moment ago
        takes what crossed that news on its way: to send it back would cost more than to let it wait there. One that
        follows another goes behind it.

        Raises:
            CapacityExceeded: every slot is busy.
        """
        if attempt.assignment.spec.service is not None:
            return self._place_for_service()
        key = attempt.assignment.spec.environment_key
        if attempt.assignment.follows:
            leading = [slot for slot in self.used if slot.leads(attempt)]
            if leading:
                return min(leading, key=lambda slot: slot.length)
        slot = self._idle_slot_with(key)  # nothing is better, and with many slots there mostly is one
        if slot is None:
            open_slots = [slot for slot in self._slots if slot.idle or slot.hungry]
            open_slots = open_slots or [slot for slot in self._slots if slot.ending]
            if not open_slots:
                raise CapacityExceeded("every slot is busy")
            slot = min(open_slots, key=lambda slot: _preference(slot, key))
        self._used[slot] = None
        return slot

    def work_ended(self) -> None:
        """A slot may be idle again."""
        self._busy = 0

    def _idle_slot_with(self, environment_key: str) -> Slot | None:
        """The first. A batch of attempts does not look again and again at the slots that it has just filled."""
        for number in range(self._busy, len(self._slots)):
            slot = self._slots[number]
            is_right = slot.is_warm_for(environment_key)
            if number == self._busy and (is_right or not slot.idle):
                self._busy += 1
            if is_right:
                return slot
        return None

    def _place_for_service(self) -> Slot:
        slot = next((slot for slot in self._serving if slot.idle), None)
        if slot is None:
            if self._make_slot is None:
                raise CapacityExceeded("this worker has no room for services")
            slot = self._make_slot(len(self._slots) + len(self._serving))
            self._serving.append(slot)
        return slot


def _without_debts(free: Resources) -> Resources:
    return Resources(
        cpu_millis=max(0, free.cpu_millis), memory_bytes=max(0, free.memory_bytes), disk_bytes=max(0, free.disk_bytes)
    )


def _preference(slot: Slot, environment_key: str) -> tuple[bool, bool, bool, float]:
    """The least is the best. Nothing should wait behind a running case while another slot has nothing to do."""
    return slot.hungry, slot.environment_key != environment_key, bool(slot.environment_key), slot.last_used
