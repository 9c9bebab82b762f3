"""What a worker and the master say to each other, but for reports; see `worker.proto` for what each means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from fleetest.common.results import ResourceSample
from fleetest.common.tasks import Resources
from fleetest.worker.assignments import Assignment, AttemptRef, TaskSpec

__all__ = [
    "Acknowledged",
    "Assign",
    "Begin",
    "Declined",
    "Drain",
    "Expect",
    "Goodbye",
    "HandBack",
    "Heard",
    "Heartbeat",
    "Hello",
    "Instruction",
    "Offer",
    "Registered",
    "Statement",
    "Stop",
    "StoredBatch",
    "Want",
    "Welcome",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """
    Who the worker is, and what it offers.

    Args:
        instance: new at every start of the agent.
    """

    worker_id: str
    instance: str
    version: str
    hostname: str
    capabilities: Mapping[str, str]
    capacity: Resources
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """
    The master's answer to an offer.

    Args:
        session_address: `host:port`, or `:port` on the host that was called; empty means that no other place is meant.
    """

    session_id: str
    lease_ttl: timedelta
    heartbeat_interval: timedelta
    sample_interval: timedelta
    session_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first word of a stream."""

    session_id: str
    attempts: tuple[AttemptRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Renews every lease of the session. `not_ready_reason` is empty when the worker is ready."""

    host: ResourceSample | None
    attempts: Mapping[AttemptRef, ResourceSample | None]
    not_ready_reason: str
    draining: bool


class Want(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    How much work the worker would take now. An unhurried one is answered by work alone.

    Args:
        ahead: how many more may wait in its warm sessions, each behind one that it is given.
    """

    number: int
    shards: int
    free: Resources
    warm_environment_keys: tuple[str, ...] = ()
    unhurried: bool = False
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """The worker cannot take an assignment after all."""

    ref: AttemptRef
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodbye:
    """The worker goes; nothing of it is left to wait for."""

    reason: str


class StoredBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    Reports in their encoded form, as they lie in the spool.

    Args:
        want: what the worker would take, now that they are told.
    """

    sequence: int
    payload: bytes
    want: Want | None = None


Statement = Hello | Heartbeat | Want | Declined | Goodbye | StoredBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Answers the Hello: these attempts of it are no longer the worker's."""

    forget: tuple[AttemptRef, ...]


class Assign(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    Answers a want, perhaps with nothing.

    Args:
        unreadable: assignments that this version cannot understand, and why.
        acknowledged: every batch of reports up to this one is safe; 0: nothing is said of that.
    """

    want_number: int
    assignments: tuple[Assignment, ...] = ()
    unreadable: Mapping[AttemptRef, str]
    acknowledged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Every batch up to this one is safe."""

    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End these attempts as cancelled."""

    refs: tuple[AttemptRef, ...]
    reason: str
    grace: timedelta
    finish_running_case: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Others could run these cases of an attempt now: give up those that have not been started."""

    ref: AttemptRef
    case_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """All shards of the attempt's gang are ready: its tests begin so long after this was heard."""

    ref: AttemptRef
    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """
    Work of this task is being planned elsewhere: so many slots that have nothing to do may get ready for it.

    Args:
        after: so long after this was heard, unless the work comes first.
    """

    run_id: str
    spec: TaskSpec
    slots: int
    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Finish what runs, take no more."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The master has heard our heartbeat."""


Instruction = Welcome | Assign | Acknowledged | Stop | HandBack | Begin | Expect | Drain | Heard
