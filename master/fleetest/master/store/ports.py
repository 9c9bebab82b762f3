"""
What the master asks of its store. Every adapter passes `tests/contract/test_store.py`.

The log is the truth. Everything else here is derived from it, or serves it, and is idempotent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Protocol

import msgspec

from fleetest.common.results import ResourceUsage
from fleetest.common.states import Outcome, RunState

__all__ = [
    "SUBMITTED_WITH",
    "USAGES_KEPT",
    "BlobHold",
    "BlobHolds",
    "CaseHistory",
    "CaseRow",
    "Commit",
    "Documents",
    "LogPiece",
    "PositionTaken",
    "Projections",
    "RunLog",
    "RunQuery",
    "RunRow",
    "Store",
]


USAGES_KEPT: Final = 5
"""Of how many runs a task's use of resources is remembered: what it needed once it keeps for so long."""


SUBMITTED_WITH: Final = "idempotency"
"""The kind of documents that hold the ids of runs by the keys that these were submitted with."""


class PositionTaken(Exception):
    """The log already has a commit at this position: read on, decide again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """
    One entry of a run's log.

    Args:
        position: 1 for the first commit, then without a gap.
        events: the encoded events, opaque to the store.
    """

    run_id: str
    position: int
    at: datetime
    events: bytes


class RunLog(Protocol):
    """The append-only log of every run, in partitions by the day of the run's id."""

    async def append(self, commit: Commit) -> None:
        """
        Make the commit durable. Concurrent appends share one transaction.

        Raises:
            PositionTaken: `(run_id, position)` exists.
            InvalidRequest: `run_id` is not the id of a run.
            WrongState: the run's partition was dropped, or the position would leave a gap.
            CapacityExceeded: the disk is full.
            DependencyUnavailable: the store cannot be written or reached.
        """

    async def read(self, run_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Commit]:
        """
        The commits with a position greater than `after`, in order; empty at the end.

        Empty, too, when the run's partition was dropped: `dropped_before` tells the two apart.

        Raises:
            InvalidRequest: `run_id` is not the id of a run.
        """

    async def drop_before(self, day: date) -> Sequence[date]:
        """Drop the partitions of runs from before `day`; answer which. Projections stay."""

    async def dropped_before(self) -> date | None:
        """The replay of runs from before this day is gone; `None` while nothing was ever dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """
    A run as listed: what is queried, and the rest as one document.

    Args:
        position: of the last commit that the row contains.
        body: JSON-compatible.
    """

    run_id: str
    project: str
    suite_name: str
    branch: str
    state: RunState
    submitted_at: datetime
    ended_at: datetime | None
    position: int
    body: Mapping[str, object]


class CaseRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    A case of a run with its last accepted result.

    Args:
        index: its place in the task's plan.
        position: of the commit that brought this result.
        body: what else is known of it, JSON-compatible.
        result: all of the result, encoded and opaque to the store.
    """

    run_id: str
    task_id: str
    case_id: str
    index: int
    outcome: Outcome
    flaky: bool
    position: int
    body: Mapping[str, object]
    result: bytes = b""


class CaseHistory(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a case of a project from earlier runs, or of one run.

    Args:
        duration: to predict with, as on a worker of speed 1.
        outcome: the last one.
        worker_id: where it ran last, and `measured` how long it took there; empty and zero when that is not known.
        failing: how much of late it failed, from 0 to 1.
    """

    case_id: str
    duration: timedelta
    outcome: Outcome
    worker_id: str = ""
    measured: timedelta = timedelta()
    failing: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs to list; empty and `None` mean any. Newest first, after `before_run_id`."""

    project: str = ""
    branch: str = ""
    suite_name: str = ""
    state: RunState | None = None
    before_run_id: str = ""
    limit: int = 50


class Projections(Protocol):
    """
    What is read often, derived from the log.

    A write with an older position than the stored changes nothing; one with the same position replaces it, so that
    of two results for a case in one commit the later stands.
    """

    async def save_runs(self, runs: Sequence[RunRow], cases: Sequence[CaseRow] = ()) -> None:
        """After cases of theirs: a run's position says that these are there. Each run is there once."""

    async def save_cases(self, cases: Sequence[CaseRow]) -> None: ...

    async def get_run(self, run_id: str) -> RunRow | None: ...

    async def find_runs(self, prefix: str) -> Sequence[RunRow]:
        """Runs whose id starts with `prefix`, newest first, at most ten."""

    async def list_runs(self, query: RunQuery) -> Sequence[RunRow]: ...

    async def list_cases(
        self,
        run_id: str,
        *,
        task_id: str = "",
        outcomes: frozenset[Outcome] = frozenset(),
        after: tuple[str, int] | None = None,
        limit: int = 1000,
    ) -> Sequence[CaseRow]:
        """Ordered by `(task_id, index)`, after that pair when given."""

    async def save_history(self, project: str, task: str, cases: Sequence[CaseHistory]) -> None:
        """
        Remember durations and outcomes for the next plan.

        A known duration moves half way to the new one (exponential moving average, weight 0.5), so that one slow
        day does not stay; so does `failing`.
        """

    async def load_history(self, project: str, task: str) -> Mapping[str, CaseHistory]: ...

    async def save_usage(self, project: str, run_id: str, usages: Mapping[str, ResourceUsage]) -> None:
        """
        Remember what tasks, by their names, used in a run, for the size of their next shards. Idempotent by run.

        Of each task the newest `USAGES_KEPT` runs are kept, in the order of their ids.
        """

    async def load_usage(self, project: str, tasks: Sequence[str]) -> Mapping[str, Sequence[ResourceUsage]]:
        """What is kept of these tasks, the newest run first. Those of which nothing is known are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of what an attempt's processes wrote. `(run_id, shard_id, token, offset_bytes)` is unique."""

    run_id: str
    task_id: str
    shard_id: str
    token: int
    offset_bytes: int
    content: bytes = field(repr=False)
    truncated: bool = False


class Documents(Protocol):
    """Small things that must be kept and are no run's event."""

    async def put_if_absent(self, kind: str, key: str, value: str) -> str:
        """Store the value unless the key has one; answer the value that is stored now. Atomic."""

    async def get_document(self, kind: str, key: str) -> str | None:
        """The value as it is now; `None` when the key has none."""

    async def list_documents(self, kind: str) -> Sequence[tuple[str, str]]:
        """Keys with their values, ordered by key: for kinds of which there are few."""

    async def replace_document(self, kind: str, key: str, *, expected: str, value: str) -> bool:
        """Store the value if the present one is `expected`; answer whether it was. Atomic."""

    async def append_output(self, pieces: Sequence[LogPiece]) -> None:
        """Keep pieces of output; one that is known already is left as it is."""

    async def read_output(
        self, run_id: str, task_id: str, *, shard_id: str = "", after_id: int = 0, limit: int = 256
    ) -> Sequence[tuple[int, LogPiece]]:
        """Pieces with an id greater than `after_id`, in the order in which they came; ids grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobHold:
    """
    That somebody needs a blob for a time.

    Args:
        project: whose it is; empty when nobody knows yet, as of what a worker is uploading.
        holder: a run, for its artifacts; else what the blob is for.
        name: of the artifact in its run; else empty.
    """

    digest: str
    project: str
    holder: str
    until: datetime
    name: str = ""


class BlobHolds(Protocol):
    """Who needs which blobs, and for how long. Whoever holds a blob may read it; a blob that nobody holds may go."""

    async def hold(self, holds: Sequence[BlobHold]) -> None:
        """Idempotent by all but `until`, of which the later stands."""

    async def held(self, digests: Collection[str], *, at: datetime, project: str | None = None) -> frozenset[str]:
        """Those that somebody holds beyond `at`: that project, or anybody."""

    async def holds_of(self, holder: str) -> Sequence[BlobHold]:
        """All of one holder, those included that have ended and were not released yet."""

    async def end_holds(self, holds: Sequence[BlobHold], *, at: datetime) -> None:
        """They end, unless they did before. Idempotent; one that is not there is not made."""

    async def ended_holds(self, by: datetime, *, limit: int) -> Sequence[BlobHold]:
        """Some that ended by that time and were not released yet, the first ones first."""

    async def release(self, holds: Sequence[BlobHold]) -> None:
        """Forget them, except what has been prolonged meanwhile. Idempotent."""


class Store(RunLog, Projections, Documents, BlobHolds, Protocol):
    """All of them on one engine."""

    async def begin_run(self, commit: Commit, row: RunRow, *, key: str = "") -> str:
        """
        Make a run's first commit durable, with the row by which it is listed, and unless `key` is empty as the run that
        was submitted with it (the document of that key, of the kind `SUBMITTED_WITH`).

        Answers the id of the run that has the key. When that is another run, it had the key before, and nothing was
        written. The engine may need several writes, of which a crash leaves the first ones: key, commit, row.

        Raises as `append` does.
        """

    async def check(self) -> None:
        """
        Raises:
            DependencyUnavailable: the store does not answer, or cannot be written.
        """

    async def close(self) -> None: ...
