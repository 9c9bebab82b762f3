"""Takes in what workers report: output into the store, everything else into the log of its run."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from fleetest.common.clock import Clock
from fleetest.common.coverage import FileCoverage
from fleetest.common.errors import LeaseLost, NotFound, WrongState
from fleetest.common.limits import MAX_CASES_PER_TASK
from fleetest.common.load import LoadSample
from fleetest.common.results import Artifact, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, Verdict
from fleetest.master.blobs.custody import Custody
from fleetest.master.cache.planning import CachedPlanning
from fleetest.master.coverage_window import CoverageWindow
from fleetest.master.load_records import LoadRecords
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import DoneAttempt
from fleetest.master.runs.planner import Plan
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import AttemptRef
from fleetest.master.store.ports import LogPiece, Store

__all__ = [
    "Artifacts",
    "CoverageMeasured",
    "Done",
    "Ended",
    "HandedBack",
    "Inbox",
    "Loaded",
    "Output",
    "Planned",
    "Report",
    "Results",
    "Running",
]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The environment is ready; of a service: it serves, and `variables` say where."""

    variables: Mapping[str, str] = msgspec.field(default_factory=dict)


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The task's cases, in the order of collection; `fingerprints` of their files, if the task asks for these."""

    cases: tuple[PlannedCase, ...]
    deselected: int = 0
    collection_errors: tuple[KeptResult, ...] = ()
    fingerprints: Mapping[str, str] = msgspec.field(default_factory=dict)


class Results(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Cases that are final."""

    results: tuple[KeptResult, ...]


class HandedBack(msgspec.Struct, frozen=True, kw_only=True):
    """Cases that the attempt will not run, as it was asked; perhaps none."""

    case_ids: tuple[str, ...]


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of what the attempt's processes wrote."""

    offset_bytes: int
    content: bytes
    truncated: bool = False


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """Files that the attempt left; their content has been uploaded."""

    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a generator of a load test did in one second."""

    sample: LoadSample


class CoverageMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """What tests have executed of these files; `combined`: all that the run's tests have, of all files."""

    files: Mapping[str, FileCoverage]
    combined: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt's end."""

    verdict: Verdict
    reason: str = ""
    usage: ResourceUsage = ResourceUsage()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


Content = Running | Planned | Results | HandedBack | Output | Artifacts | CoverageMeasured | Loaded | Ended


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that a worker says of one of its attempts."""

    ref: AttemptRef
    content: Content


class Done(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Short attempts of one run that went well: all that their worker says of them, in place of reports."""

    run_id: str
    attempts: Sequence[DoneAttempt]

    @property
    def refs(self) -> list[AttemptRef]:
        return _refs(self.run_id, self.attempts)


class Inbox:
    """
    Where reports arrive.

    Args:
        on_output: told of which runs there is more output.
    """

    def __init__(
        self,
        store: Store,
        book: RunBook,
        planning: CachedPlanning,
        custody: Custody,
        load_records: LoadRecords,
        clock: Clock,
        on_output: Callable[[Collection[str]], None],
    ) -> None:
        self._store = store
        self._book = book
        self._planning = planning
        self._custody = custody
        self._load_records = load_records
        self._clock = clock
        self._coverage = CoverageWindow()
        self._on_output = on_output

    async def take(self, reports: Sequence[Report], done: Sequence[Done] = ()) -> frozenset[AttemptRef]:
        """
        Make reports durable, in their order, each at most once, and then what is done. Answers the attempts that are no
        longer their worker's: their reports were refused.

        Raises:
            DependencyUnavailable, CapacityExceeded: some reports were not taken; send all of them again.
        """
        by_run: defaultdict[str, list[Report]] = defaultdict(list)
        done_by_run: defaultdict[str, list[DoneAttempt]] = defaultdict(list)
        for each in done:
            done_by_run[each.run_id] += each.attempts
        pieces = []
        for report in reports:
            if isinstance(report.content, Output):
                pieces.append(_piece(report.ref, report.content))
            else:
                by_run[report.ref.run_id].append(report)
        if pieces:
            await self._store.append_output(pieces)
            self._on_output({piece.run_id for piece in pieces})
        run_ids = by_run.keys() | done_by_run.keys()
        taking = [self._take_for(run_id, by_run[run_id], done_by_run[run_id]) for run_id in run_ids]
        if len(taking) == 1:  # mostly, and then nobody else need be woken
            return frozenset(await taking[0])
        return frozenset().union(*await asyncio.gather(*taking))

    async def decline(self, ref: AttemptRef, reason: str) -> None:
        """The worker cannot make the attempt; its shard waits again. An attempt that is over already stays so."""
        with contextlib.suppress(LeaseLost, NotFound, WrongState):
            await self._book.keeper(ref.run_id).ask(
                lambda decider: decider.attempt_declined(ref.shard_id, ref.token, reason)
            )

    async def _take_for(self, run_id: str, reports: Sequence[Report], done: Sequence[DoneAttempt]) -> set[AttemptRef]:
        refused = set()
        begin = 0
        for end, report in enumerate(reports, start=1):
            if isinstance(report.content, Loaded) and report.content.sample.last:
                # What a generator measured is recorded before its attempt ends, and with all that it told.
                refused |= await self._take_some(run_id, reports[begin:end])
                begin = end
                await self._record_load(run_id, report.ref)
        rest = reports[begin:]
        return refused | await self._take_some(run_id, rest, done) if rest or done else refused

    async def _record_load(self, run_id: str, ref: AttemptRef) -> None:
        keeper = self._book.keeper(run_id)
        with contextlib.suppress(NotFound):
            status = await keeper.newest_status()
            task_id = ref.shard_id.rpartition("#")[0]
            record = await self._load_records.keep(status, task_id)
            if record is not None:
                await keeper.ask(lambda decider: decider.load_recorded(task_id, record))

    async def _take_some(
        self, run_id: str, reports: Sequence[Report], done: Sequence[DoneAttempt] = ()
    ) -> set[AttemptRef]:
        try:
            kinds = {type(report.content) for report in reports}  # hundreds of reports, mostly of one kind
            plans = await self._plans(run_id, reports) if Planned in kinds else {}
            if Artifacts in kinds:
                await self._keep_artifacts(run_id, reports)
            if CoverageMeasured in kinds:
                await self._gather_coverage(run_id, reports)
        except NotFound:
            return {report.ref for report in reports}.union(_refs(run_id, done))
        gathered = self._coverage.waiting(run_id)

        def take_all(decider: Decider) -> tuple[set[AttemptRef], bool]:
            refused = set()
            for report in reports:
                try:
                    _take(decider, report, plans)
                except LeaseLost:
                    refused.add(report.ref)
            refused.update(_refs(run_id, decider.attempts_done(done)))
            return refused, gathered is not None and gathered.write(decider)

        refused, written = await self._book.keeper(run_id).ask(take_all)
        if gathered is not None and written:
            self._coverage.written(run_id, gathered)
        return refused

    async def _gather_coverage(self, run_id: str, reports: Sequence[Report]) -> None:
        for report in reports:
            if isinstance(report.content, CoverageMeasured) and not report.content.combined:
                combined_by = _combined_by(await self._book.keeper(run_id).newest_status(), report.ref)
                if combined_by:
                    self._coverage.add(run_id, combined_by, report.content.files, self._clock.now())

    async def _plans(self, run_id: str, reports: Sequence[Report]) -> Mapping[AttemptRef, Plan]:
        """Plans need the history of earlier runs, which is read before the decision."""
        plans = {}
        for report in reports:
            if not isinstance(report.content, Planned):
                continue
            status = await self._book.keeper(run_id).newest_status()
            shard = status.shard(report.ref.shard_id)
            if shard is None:
                continue
            task = status.tasks[shard.task_id].task
            cases = () if _too_many(report.content.cases) else report.content.cases
            plans[report.ref] = await self._planning.plan(status, task, cases, report.content.fingerprints)
        return plans

    async def _keep_artifacts(self, run_id: str, reports: Sequence[Report]) -> None:
        """Before the log says that they are there. What is refused afterwards was kept for nothing."""
        for report in reports:
            if isinstance(report.content, Artifacts) and report.content.artifacts:
                status = await self._book.keeper(run_id).newest_status()
                shard = status.shard(report.ref.shard_id)
                if shard is not None:
                    await self._custody.keep_artifacts(
                        run_id,
                        status.request.project,
                        report.ref.shard_id,
                        report.content.artifacts,
                        status.tasks[shard.task_id].task.artifacts_keep,
                    )


def _combined_by(status: RunStatus, ref: AttemptRef) -> str:
    """The task that combines what the attempt measures; empty when the attempt is over, or measures nothing."""
    shard = status.shard(ref.shard_id)
    if shard is None or shard.attempt is None or shard.attempt.token != ref.token:
        return ""
    coverage = status.tasks[shard.task_id].task.coverage
    return coverage.combined_by if coverage is not None else ""


def _refs(run_id: str, done: Iterable[DoneAttempt]) -> list[AttemptRef]:
    return [AttemptRef(run_id=run_id, shard_id=each.shard_id, token=each.token) for each in done]


def _piece(ref: AttemptRef, output: Output) -> LogPiece:
    return LogPiece(
        run_id=ref.run_id,
        task_id=ref.shard_id.rpartition("#")[0],
        shard_id=ref.shard_id,
        token=ref.token,
        offset_bytes=output.offset_bytes,
        content=output.content,
        truncated=output.truncated,
    )


def _take(  # noqa: C901 - a flat table
    decider: Decider, report: Report, plans: Mapping[AttemptRef, Plan]
) -> None:
    ref, content = report.ref, report.content
    match content:
        case Running(variables=variables):
            decider.attempt_running(ref.shard_id, ref.token, variables)
        case Planned():
            if ref not in plans:
                raise LeaseLost(f"{ref.shard_id} of run {ref.run_id} does not exist")
            decider.planned(
                ref.shard_id,
                ref.token,
                plans[ref],
                deselected=content.deselected,
                collection_errors=(*content.collection_errors, *_too_many(content.cases)),
            )
        case Results():
            decider.cases_finished(ref.shard_id, ref.token, content.results)
        case HandedBack():
            decider.cases_handed_back(ref.shard_id, ref.token, content.case_ids)
        case Artifacts():
            decider.artifacts_saved(ref.shard_id, ref.token, content.artifacts, content.problems)
        case Loaded(sample=sample):
            decider.load_sampled(ref.shard_id, ref.token, sample)
        case CoverageMeasured(combined=True):
            decider.coverage_combined(ref.shard_id, ref.token, content.files)
        case CoverageMeasured():
            pass  # it gathers, and is written with what others measure
        case Ended():
            decider.attempt_ended(
                ref.shard_id,
                ref.token,
                content.verdict,
                content.reason,
                usage=content.usage,
                missing=content.missing,
            )
        case Output():
            raise AssertionError("output goes to the store")


def _too_many(cases: Sequence[PlannedCase]) -> Sequence[KeptResult]:
    if len(cases) <= MAX_CASES_PER_TASK:
        return ()
    message = f"{len(cases)} cases were collected; a task may have {MAX_CASES_PER_TASK}: split it into several"
    return (KeptResult(case_id="collection", outcome=Outcome.ERROR, message=message),)
