"""What became of cases and attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import add

import msgspec

from fleetest.common.states import Outcome

__all__ = [
    "Artifact",
    "Assertion",
    "CacheOrigin",
    "CaseResult",
    "Counts",
    "PlannedCase",
    "ResourceSample",
    "ResourceUsage",
]


class PlannedCase(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    A case as planned.

    Args:
        case_id: a pytest node id, or the name that its runner gives.
        file: relative to the workspace; empty when not known.
        line: 1-based; 0 when not known.
        group: its `xdist_group` mark.
    """

    case_id: str
    file: str = ""
    line: int = 0
    group: str = ""


class CacheOrigin(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a result of the cache was obtained: in which run, and when the case ended there."""

    run_id: str
    at: datetime


class Assertion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One expectation of a case, and whether it was met.

    Args:
        name: what was looked at: `status`, `$.items[0].title`.
        message: what was expected and found; empty when it passed.
    """

    name: str
    passed: bool
    message: str = ""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What became of one case in one attempt.

    Args:
        duration: setup, call and teardown together.
        message: one line: the assertion, or the reason of a skip.
        details: the traceback, or what else explains the outcome.
        truncated: whether a text was longer than the limit.
        properties: what the test recorded about itself.
        cached_from: it did not run: the result is an earlier one.
        uncacheable: why the result may depend on more than its fingerprint says; else empty.
        assertions: of a case that reports each on its own.
    """

    case_id: str
    outcome: Outcome
    duration: timedelta = timedelta()
    started_at: datetime | None = None
    message: str = ""
    details: str = ""
    stdout: str = ""
    stderr: str = ""
    log: str = ""
    file: str = ""
    line: int = 0
    truncated: bool = False
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    cached_from: CacheOrigin | None = None
    uncacheable: str = ""
    assertions: tuple[Assertion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """
    A file that a task left behind; its content is the blob `digest`.

    Args:
        media_type: guessed from its name; may be empty.
        executable: whether its owner may execute it.
        case_id: that it belongs to; empty when nobody knows, or when it is the whole task's.
        attempt: at the shard, from 1; 0 when not known.
        created_at: when the master heard of it; `None` from a worker, and of files from before that was kept.
        expires_at: when it may be deleted; a run's listing alone has it.
    """

    path: str
    digest: str
    size_bytes: int
    media_type: str = ""
    executable: bool = False
    case_id: str = ""
    attempt: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample:
    """What a host or an attempt used over the interval since the sample before."""

    at: datetime
    cpu_cores: float = 0.0
    memory_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    network_received_bytes: int = 0
    network_sent_bytes: int = 0


class ResourceUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    Totals of an attempt, or of several.

    Args:
        wall_time: over which the rest was used; of several, the sum. Zero means that nobody measured it.
    """

    cpu_time: timedelta = timedelta()
    peak_memory_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    wall_time: timedelta = timedelta()

    @property
    def mean_cores(self) -> float | None:
        """How many cores were busy on average; `None` when that was not measured."""
        return self.cpu_time / self.wall_time if self.wall_time else None

    def __add__(self, other: ResourceUsage) -> ResourceUsage:
        """Of one and the other: the higher peak, and the sums of all else."""
        return ResourceUsage(
            cpu_time=self.cpu_time + other.cpu_time,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
            disk_read_bytes=self.disk_read_bytes + other.disk_read_bytes,
            disk_written_bytes=self.disk_written_bytes + other.disk_written_bytes,
            wall_time=self.wall_time + other.wall_time,
        )


class Counts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    How many cases were planned, and how many ended how. `flaky` and `cached` ones are counted under their outcome too.
    """

    planned: int = 0
    passed: int = 0
    failed: int = 0
    error: int = 0
    skipped: int = 0
    xfailed: int = 0
    xpassed: int = 0
    timed_out: int = 0
    flaky: int = 0
    cached: int = 0

    @property
    def done(self) -> int:
        return self.passed + self.failed + self.error + self.skipped + self.xfailed + self.xpassed + self.timed_out

    @property
    def bad(self) -> int:
        return self.failed + self.error + self.timed_out

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    @staticmethod
    def total(counts: Sequence[Counts]) -> Counts:
        """Of all of them; a sum from nothing would add a first one, which is mostly the only one."""
        return reduce(add, counts) if counts else Counts()
